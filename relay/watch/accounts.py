"""Own how a mailbox's sealed credential becomes an account at a configured server, or the reason why it does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.autodiscover.urls import eas_location
from eas_watcher.machine.memory import Condition, Memory, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.transport.bearer import BearerTransport
from eas_watcher.transport.tokens import TokenEndpoint
from relay.domain.errors import SealBroken
from relay.domain.model import Mailbox
from relay.security import credentials
from relay.security.credentials import StoredCredential
from relay.security.sealing import SealingPrivateKey
from relay.watch.discovery import Discovery
from relay.watch.oauth_grants import Grants

NOWHERE: Final = Condition(
    WatchState.BLOCKED,
    Reason.HOST_NOT_ALLOWED,
    detail="[autodiscover] does not list the host where the mailbox was found: list it, or register again",
)


@dataclass(frozen=True, slots=True)
class EasServer:
    """Join a configured server with the transport to it, and with what leads there for other credentials than Basic."""

    url: str
    """Empty for what stands for all servers that are discovered."""
    transport: Transport
    policy: Policy
    tokens: TokenEndpoint | None = None
    """Where refresh tokens are exchanged; None: the server takes no OAuth credentials."""
    basic: bool = True
    """Whether user and password are taken."""
    identify: Callable[[CertificateCredential], Transport] | None = None
    """Makes connections that show a client certificate; raises UnusableCredential. None: the server takes none."""
    delegate: Callable[[KerberosCredential, datetime | None], Transport] | None = None
    """Acts for a user whom the operator invited; raises UnusableCredential. None: the server is not told to.

    With a time, the invitation must not be over by then.
    """
    discovery: Discovery | None = None
    """Finds where a mailbox is that has no URL so far; None: all of them are at `url`."""

    def allows(self, url: str | None) -> bool:
        """Tell whether a mailbox may still be where it was last (None: `url`): the settings may have changed since."""
        return url is None or eas_location(url, self.policy.hosts) is not None


@dataclass(frozen=True, slots=True)
class Connection:
    """Hold what it takes to be one mailbox's user at its server."""

    account: Account
    transport: Transport
    server: EasServer

    def place(self, memory: Memory) -> "tuple[Connection | Condition, Memory]":
        """Return what a watch is to start with: a credential goes to no host that was struck from the settings.

        The mailbox is at its configured URL again then; one that was discovered is nowhere.
        """
        if self.server.allows(memory.partnership.url):
            return self, memory
        home = replace(memory, partnership=replace(memory.partnership, version=None, url=None))
        return (self if self.server.discovery is None else NOWHERE), home


class Accounts:
    """Open credentials; the only holder of the private sealing key beside the grants."""

    def __init__(self, key: SealingPrivateKey, servers: Mapping[str, EasServer], grants: Grants | None = None) -> None:
        """Take the key, the configured servers by name, and the OAuth grants if a server takes such credentials."""
        self._key = key
        self._servers = servers
        self._grants = grants

    def open(self, mailbox: Mailbox, sealed: bytes, shown_at: datetime | None = None) -> Connection | Condition:
        """Open a credential; a mailbox that cannot be opened or reached is blocked, with the remedy.

        `shown_at` is the time for one that somebody shows now, None for one that was accepted before.
        """
        server = self._servers.get(mailbox.server)
        if server is None:
            detail = f"server {mailbox.server!r} is not configured any more: add [servers.{mailbox.server}] again"
            return Condition(WatchState.BLOCKED, Reason.SERVER_UNKNOWN, detail=detail)
        try:
            credential = self._key.open(mailbox.id, sealed)
        except SealBroken:
            detail = "the stored credential does not open with this sealing key: restore the key, or register again"
            return Condition(WatchState.BLOCKED, Reason.SEAL_BROKEN, detail=detail)
        try:
            transport = self._transport(mailbox.id, sealed, credential, server, shown_at)
        except UnusableCredential as error:
            return Condition(WatchState.CREDENTIAL_REFUSED, Reason.CREDENTIAL_UNUSABLE, detail=str(error))
        if transport is None:
            kind = credentials.kind_of(credential).value
            detail = f"servers.{mailbox.server}.credentials does not allow {kind!r} any more: add it, or register again"
            return Condition(WatchState.BLOCKED, Reason.CREDENTIAL_KIND, detail=detail)
        account = Account(mailbox.id, server.url, credential.user, mailbox.device_id, credential)
        return Connection(account, transport, server)

    def alike(self, mailbox: MailboxId, left: bytes | None, right: bytes | None) -> bool:
        """Tell whether two sealed credentials of a mailbox prove the same; False if one is none."""
        if left is None or right is None:
            return False
        try:
            return credentials.alike(self._key.open(mailbox, left), self._key.open(mailbox, right))
        except SealBroken:
            return False

    def newest(self, mailbox: MailboxId, sealed: bytes, present: bytes | None) -> bytes:
        """Give the newest seal of what `sealed` holds: `sealed`, unless it is a grant that was rotated since.

        `present` is the mailbox's credential, which may be the same grant.
        """
        try:
            credential = self._key.open(mailbox, sealed)
        except SealBroken:
            return sealed
        if not isinstance(credential, OAuthCredential):
            return sealed
        known = None if self._grants is None else self._grants.newest(mailbox, credential)
        if known is not None:
            return known
        return present if present is not None and self.alike(mailbox, sealed, present) else sealed

    def _transport(
        self,
        mailbox: MailboxId,
        sealed: bytes,
        credential: StoredCredential,
        server: EasServer,
        shown_at: datetime | None,
    ) -> Transport | None:
        """Give the transport that proves a credential; None when the server's settings do not allow its kind."""
        match credential:
            case OAuthCredential():
                if server.tokens is None or self._grants is None:
                    return None
                tokens = self._grants.tokens(mailbox, sealed, credential, server.tokens)
                return BearerTransport(server.transport, tokens)
            case CertificateCredential():
                return None if server.identify is None else server.identify(credential)
            case KerberosCredential():
                return None if server.delegate is None else server.delegate(credential, shown_at)
            case BasicCredential():
                return server.transport if server.basic else None
