"""Own how a mailbox's sealed credential becomes an account at a configured server, or the reason why it does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.progress import Condition, WatchState
from eas_watcher.states import Policy
from eas_watcher.wire import Account
from relay.errors import SealBroken
from relay.model import Mailbox
from relay.sealing import SealingPrivateKey
from relay.watch.proof import Door, same


@dataclass(frozen=True, slots=True)
class EasServer:
    """Join a configured server with the transport to it."""

    url: str
    transport: Transport
    policy: Policy
    door: Door = field(default_factory=Door)


class Accounts:
    """Open credentials; the only holder of the private sealing key."""

    def __init__(self, key: SealingPrivateKey, servers: Mapping[str, EasServer]) -> None:
        """Take the key and the configured servers by name."""
        self._key = key
        self._servers = servers

    def server(self, mailbox: Mailbox) -> EasServer:
        """Give the server of a mailbox whose account was opened."""
        return self._servers[mailbox.server]

    def open(self, mailbox: Mailbox, sealed: bytes) -> Account | Condition:
        """Open a credential; a mailbox that cannot be opened or reached is blocked, with the remedy."""
        server = self._servers.get(mailbox.server)
        if server is None:
            detail = f"server {mailbox.server!r} is not configured any more: add [servers.{mailbox.server}] again"
            return Condition(WatchState.BLOCKED, "server-unknown", detail=detail)
        try:
            credential = self._key.open(mailbox.id, sealed)
        except SealBroken:
            detail = "the stored credential does not open with this sealing key: restore the key, or register again"
            return Condition(WatchState.BLOCKED, "seal-broken", detail=detail)
        return Account(mailbox.id, server.url, credential.user, mailbox.device_id, credential)

    def alike(self, mailbox: MailboxId, left: bytes | None, right: bytes | None) -> bool:
        """Tell whether two sealed credentials of a mailbox hold the same; in constant time, False if one is none."""
        try:
            return left is not None and right is not None and same(*(self._key.open(mailbox, s) for s in (left, right)))
        except SealBroken:
            return False
