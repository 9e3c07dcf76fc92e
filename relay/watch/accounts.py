"""How the sealed credential of a mailbox becomes an account at a configured server, or why it does not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.credential import Credential, UnusableCredential
from eas_watcher.auth.grant import is_user
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.autodiscover.urls import eas_location
from eas_watcher.machine.memory import Condition, Memory, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.transport.bearer import BearerTransport
from eas_watcher.transport.tokens import TokenEndpoint
from relay.domain.errors import SealBroken
from relay.domain.model import Mailbox, WatchRecord
from relay.domain.tries import DEFAULT, TryLimits
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
    """A configured server: its policy, and the transports to it for each kind of credential."""

    url: str
    """Empty if this stands for all servers that Autodiscover finds."""
    transport: Transport
    policy: Policy
    tokens: TokenEndpoint | None = None
    """Where refresh tokens are exchanged for access tokens; None: the server takes no OAuth credentials."""
    basic: bool = True
    """True if the server takes user and password."""
    identify: Callable[[CertificateCredential], Transport] | None = None
    """Returns a transport that shows a client certificate; raises UnusableCredential. None: the server takes none."""
    delegate: Callable[[KerberosCredential, datetime | None], Transport] | None = None
    """Returns a transport that acts for an invited user; raises UnusableCredential. None: the server takes no tickets.

    With a time, the invitation must still be valid at that time.
    """
    tries: TryLimits = DEFAULT
    """What its directory bears of refused logins."""
    discovery: Discovery | None = None
    """Finds the URL of a mailbox that has none yet; None: all mailboxes are at `url`."""

    def allows(self, url: str | None) -> bool:
        """Return True if the settings still allow the URL where a mailbox was last (None: `url`)."""
        return url is None or eas_location(url, self.policy.hosts) is not None


@dataclass(frozen=True, slots=True)
class Connection:
    """All that is needed to act as a mailbox's user at its server."""

    account: Account
    transport: Transport
    server: EasServer

    def place(self, memory: Memory) -> "tuple[Connection | Condition, Memory]":
        """Return what a watch starts with, so that no credential goes to a host that was removed from the settings.

        A mailbox at such a host is taken to be at its configured URL again; one that Autodiscover found is blocked.
        """
        if self.server.allows(memory.partnership.url):
            return self, memory
        home = replace(memory, partnership=replace(memory.partnership, version=None, url=None))
        return (self if self.server.discovery is None else NOWHERE), home


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which settings of which server a mailbox is watched; one object for all its mailboxes."""

    server: str
    revision: int = 0
    """How often settings have changed that need a new watch."""


class Accounts:
    """Opens sealed credentials; only this class and the grants have the private sealing key."""

    def __init__(self, key: SealingPrivateKey, servers: Mapping[str, EasServer], grants: Grants | None = None) -> None:
        """Take the key, the configured servers by name, and the OAuth grants if a server takes such credentials.

        The servers may change while mailboxes are watched.
        """
        self.key = key
        """The keys in use; those of a later configuration take their place."""
        self._servers = servers
        self._grants = grants
        self._terms: dict[str, Terms] = {}

    def terms(self, server: str) -> Terms:
        """Return the present terms of a server, which may not be configured."""
        return self._terms.setdefault(server, Terms(server))

    def renew_terms(self, servers: Iterable[str]) -> None:
        """Note that the settings of some servers have changed, so that their mailboxes need new watches."""
        for name in servers:
            self._terms[name] = Terms(name, self.terms(name).revision + 1)

    def server(self, name: str) -> EasServer | None:
        """Return a server; None: it is not configured."""
        return self._servers.get(name)

    def open(self, mailbox: Mailbox, sealed: bytes, shown_at: datetime | None = None) -> Connection | Condition:
        """Open a credential; return a condition with the remedy if it cannot be opened or used.

        `shown_at` is the present time for a candidate, None for a credential that was accepted before.
        """
        server = self._servers.get(mailbox.server)
        if server is None:
            detail = f"server {mailbox.server!r} is not configured any more: add [servers.{mailbox.server}] again"
            return Condition(WatchState.BLOCKED, Reason.SERVER_UNKNOWN, detail=detail)
        try:
            credential = self.key.open(mailbox, sealed)
        except SealBroken as error:
            return Condition(WatchState.BLOCKED, Reason.SEAL_BROKEN, detail=str(error))
        try:
            transport = self._transport(mailbox, sealed, credential, server, shown_at)
        except UnusableCredential as error:
            return Condition(WatchState.CREDENTIAL_REFUSED, Reason.CREDENTIAL_UNUSABLE, detail=str(error))
        if transport is None:
            kind = credentials.kind_of(credential).value
            detail = f"servers.{mailbox.server}.credentials does not allow {kind!r} any more: add it, or register again"
            return Condition(WatchState.BLOCKED, Reason.CREDENTIAL_KIND, detail=detail)
        account = Account(mailbox.id, server.url, credential.user, mailbox.device_id, credential)
        return Connection(account, transport, server)

    def alike(self, mailbox: Mailbox, left: bytes | None, right: bytes | None) -> bool:
        """Return True if two sealed credentials of a mailbox are the same credential; False if one is None."""
        if left is None or right is None:
            return False
        try:
            return credentials.alike(self.key.open(mailbox, left), self.key.open(mailbox, right))
        except SealBroken:
            return False

    def is_same_grant(self, mailbox: Mailbox, left: bytes | None, right: bytes | None) -> bool:
        """Return True if two sealed credentials of a mailbox are the same OAuth grant; False if one is None."""
        if right is None or not self.alike(mailbox, left, right):
            return False
        return isinstance(self.key.open(mailbox, right), OAuthCredential)

    def is_sealed(self, mailbox: Mailbox, shown: Credential | None, sealed: bytes | None) -> bool:
        """Return True if the credential that a watch shows is a sealed one of its mailbox; False if one is None."""
        if sealed is None or not isinstance(shown, StoredCredential):
            return False
        try:
            return credentials.alike(shown, self.key.open(mailbox, sealed))
        except SealBroken:
            return False

    def newest(self, mailbox: Mailbox, sealed: bytes, present: bytes | None) -> bytes:
        """Return the newest seal of a credential: `sealed`, unless it is a grant that was rotated since.

        `present` is the mailbox's credential, which may be the same grant.
        """
        try:
            credential = self.key.open(mailbox, sealed)
        except SealBroken:
            return sealed
        if not isinstance(credential, OAuthCredential):
            return sealed
        known = None if self._grants is None else self._grants.newest(mailbox.id, credential)
        if known is not None:
            return known
        return present if present is not None and self.alike(mailbox, sealed, present) else sealed

    def renew(self, mailbox: Mailbox, sealed: bytes) -> None:
        """Have the next request with a credential show that it is valid now: an access token outlives its grant."""
        credential = self.key.open(mailbox, sealed)
        if isinstance(credential, OAuthCredential) and self._grants is not None:
            self._grants.renew(mailbox.id, credential)

    async def redeem(self, mailbox: Mailbox, sealed: bytes, opened: Connection) -> bool:
        """Get the first access token of a candidate that is a grant; return False if that is another user's.

        The transport of `opened` goes on with the token. A code is exchanged by it, and the grant is stored when this
        returns. Raises the errors of TokenEndpoint.refresh.
        """
        credential, endpoint = opened.account.credential, opened.server.tokens
        if not isinstance(credential, OAuthCredential) or self._grants is None or endpoint is None:
            return True
        token = await self._grants.tokens(mailbox, sealed, credential, endpoint).get(0.0)
        return is_user(credential.user, token.users)

    def upgrades(self, record: WatchRecord) -> dict[bytes, bytes]:
        """Return the seals of a mailbox that are of the old form and open, sealed again: before -> after."""
        renewals = ((sealed, self.key.upgraded(record.mailbox, sealed)) for sealed in record.seals)
        return {before: after for before, after in renewals if after is not None}

    def _transport(
        self,
        mailbox: Mailbox,
        sealed: bytes,
        credential: StoredCredential,
        server: EasServer,
        shown_at: datetime | None,
    ) -> Transport | None:
        """Return the transport that shows a credential; None if the server's settings do not allow its kind."""
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
