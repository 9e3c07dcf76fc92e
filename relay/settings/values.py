"""The frozen values that the rest of the relay gets: the settings that one process may know, by its role."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from eas_watcher.auth.grant import OAuthClient
from eas_watcher.auth.negotiate import Service
from eas_watcher.machine.state import Policy
from eas_watcher.proxy.proxy import Proxy
from relay.admin.people import TrustedProxy
from relay.admin.tokens import AdminToken
from relay.domain.canary import CanaryMailbox, Goal, Submission
from relay.domain.model import AUTODISCOVER, Platform, Role
from relay.domain.retention import Retention
from relay.domain.sealing_keys import KeySource
from relay.domain.shadow import PushMode
from relay.domain.traces import Tracing
from relay.domain.tries import DEFAULT, TryLimits, share_directories
from relay.domain.users import Accounts
from relay.http.addresses import Proxies
from relay.push.apns.config import ApnsConfig
from relay.push.fcm.config import FcmConfig
from relay.push.payload import WebAppPages
from relay.push.webpush.config import WebPushConfig
from relay.registration.capabilities import OAuthFacts
from relay.registration.enrolment import Enrolment
from relay.security.credentials import CredentialKind
from relay.security.invitations import Invitations, InvitedUsers
from relay.security.sealing import SealingPrivateKey, SealingPublicKey
from relay.settings.urls import with_password


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that prints as "<secret>"."""

    value: str

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the database is."""

    url: str
    """The URL for SQLAlchemy, with the asynchronous driver, without a password."""
    password: Secret | None = None
    file: Path | None = None
    """The file of an embedded database."""
    ca_file: Path | None = None
    """CA certificates that verify the host of PostgreSQL; None: the URL decides whether TLS is used."""

    @property
    def dsn(self) -> str:
        """The URL with its password, only for the engine."""
        return self.url if self.password is None else with_password(self.url, self.password.value)


@dataclass(frozen=True, slots=True)
class SealingSettings:
    """The sealing keys that the role may have; the others are None."""

    private_key_file: Path
    public_key_file: Path
    private: SealingPrivateKey | None = field(default=None, repr=False)
    public: SealingPublicKey | None = field(default=None, repr=False)
    sources: tuple[KeySource, ...] = field(default=(), repr=False)
    """The private keys, the present one first."""


@dataclass(frozen=True, slots=True)
class KeyMaking:
    """Where new sealing keys go, and the database whose credentials they must open."""

    private_key_file: Path
    public_key_file: Path
    former: frozenset[bytes]
    """The ids of the keys in sealing.former_private_key_files, and of those beside the present one."""
    database: DatabaseSettings
    audit_key_file: Path


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The listener of the registration API."""

    hosts: tuple[str, ...]
    port: int
    certificate_file: Path | None
    key_file: Path | None
    """If this and the certificate are None: plain HTTP, on loopback or behind a proxy."""
    proxies: Proxies
    """The reverse proxies whose word about their clients counts."""
    verdict_wait: float
    """Seconds that a registration waits for the mail server to accept the password."""
    registrations_per_minute: int
    requests_per_minute: int
    connections_per_address: int
    """At once; all three for one client address."""
    invitations: Invitations | None = None
    """None: everybody may register who has a credential."""
    enrolment: Enrolment = field(default_factory=Enrolment, repr=False)
    """What a registration must show besides."""
    client_ca_file: Path | None = None
    """The CA of devices' certificates; None: none is asked for."""
    proving: frozenset[Platform] = frozenset()
    """Platforms whose apps must prove that they are on their device."""


@dataclass(frozen=True, slots=True)
class OpsSettings:
    """The listener of health and metrics."""

    hosts: tuple[str, ...]
    port: int
    names: tuple[str, ...] = ()
    """Further names and addresses that requests may be for."""


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The acts of administrators, and who may do them over HTTP."""

    audit_key_file: Path
    """The keys of the audit log."""
    tokens: tuple[AdminToken, ...] = ()
    """Who may use the admin API, and log in to the console; empty: the API is off."""
    proxy: TrustedProxy | None = None
    """Who else says who uses the console."""
    console: bool = False
    """Whether the console is served."""


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """Where the relay exchanges the refresh tokens of a server's users, and its client id and secret there."""

    client: OAuthClient
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class KerberosSettings:
    """The users whose mailboxes the relay may watch with Kerberos tickets, and its own account at the KDC."""

    invited: InvitedUsers
    service: Service | None
    """None for roles that do not open credentials."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One mail server."""

    url: str
    ca_file: Path | None
    domains: frozenset[str]
    policy: Policy
    credentials: frozenset[CredentialKind] = frozenset({CredentialKind.BASIC})
    """The kinds that its users may register."""
    oauth: OAuthSettings | None = None
    """None unless the server takes OAuth and the role opens credentials."""
    kerberos: KerberosSettings | None = None
    """None unless the server takes Kerberos."""
    sources: tuple[str, ...] = ()
    """Addresses of this host that the relay connects from in turn; empty: the operating system chooses."""
    tries: TryLimits = DEFAULT
    """What the server's directory bears of refused logins."""
    accounts: Accounts = field(default_factory=Accounts)
    """Which logins mean one user."""
    http2: bool = True
    """Whether the relay speaks HTTP/2 to the server where that offers it."""
    oauth_facts: OAuthFacts | None = None
    """What apps may know of its OAuth; None unless the server takes it."""
    redirects: frozenset[str] = frozenset()
    """Where apps get codes for its OAuth, the web app aside."""
    proxy: Proxy | None = None
    """The proxy on the way to the server and its token endpoint; None: no proxy, or the role does not reach them."""


@dataclass(frozen=True, slots=True)
class PushSettings:
    """Which pushes leave, and how fast, in seconds; see the keys of [push]."""

    coalesce: float
    expire: float
    jitter: float
    mode: PushMode
    receipts: bool = True
    """Whether apps may say that they showed a push."""


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """The mailbox of the canary, and the mails to it, as far as the role needs them."""

    mailbox: CanaryMailbox
    """Without a password for roles that do not register it."""
    goal: Goal
    submission: Submission | None = field(repr=False)
    """None for roles that send no mails."""
    submission_written_at: datetime
    """When the password for sending was written."""


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """Where the relay logs everything that leaves the company."""

    folder: Path
    largest: int
    """Bytes at which a file is full."""
    key_file: Path
    """The keys of its chain."""
    keep: timedelta | None = None
    """Age at which a file is removed; None: never."""
    most: int | None = None
    """Bytes of all files beyond which the oldest is removed; None: no limit."""
    low: int = 0
    """Bytes of room on the disk below which health is degraded."""


@dataclass(frozen=True, slots=True)
class AutodiscoverSettings:
    """Where the relay looks for the servers of domains that no configured server lists."""

    hosts: frozenset[str]
    """Lower-case, with the port unless it is 443; empty: the relay looks nowhere."""
    ca_file: Path | None
    policy: Policy
    tries: TryLimits = DEFAULT
    """What the directory of all these servers bears of refused logins."""
    proxy: Proxy | None = None
    """The proxy on the way to hosts that no server is configured for; None: no proxy."""


@dataclass(frozen=True, slots=True)
class WebPushSettings:
    """The apps, push services and key of WebPush; all empty without the table [webpush]."""

    apps: frozenset[str]
    services: frozenset[str]
    """The only push services that the relay sends to, written as `relay.domain.subscription.read_service` does."""
    public_key: str
    """The key that apps subscribe with, base64url."""
    sender: WebPushConfig | None
    """None for roles that do not push."""


@dataclass(frozen=True, slots=True)
class Logo:
    """An image of the company."""

    content: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class WebAppSettings:
    """The relay's own web app."""

    origin: str
    """How browsers reach it: scheme, host, and port if it is not that of the scheme."""
    base_path: str
    """Where its pages are, without a slash at the end."""
    title: str
    help_text: str
    """Whom users ask; empty: nobody is named."""
    pages: WebAppPages
    """What notifications open."""
    logo: Logo | None = None

    @property
    def return_path(self) -> str:
        """Where users come back with a code after they signed in at an authorization endpoint."""
        return f"{self.base_path}/signed-in"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The lowest level that is logged, and the format of the lines."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["json", "text", "journal"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What settings were made of, to see later what has changed; no secret is in it."""

    values: Mapping[str, object] = field(default_factory=dict)
    """By key as in TOML, e.g. "api.port", with defaults; the key of a table, e.g. "fcm", says whether it is there."""
    contents: Mapping[str, Mapping[Path, bytes]] = field(default_factory=dict)
    """A digest of each file, by the key that names it and by its path."""
    patterns: tuple[tuple[Path, str], ...] = ()
    """Folders, and patterns of names in them: files that a later reading would read, too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings that one process may know; what its role does not need is not read, and is None."""

    role: Role
    state_dir: Path
    database: DatabaseSettings
    sealing: SealingSettings
    api: ApiSettings | None
    ops: OpsSettings
    admin: AdminSettings
    servers: Mapping[str, ServerSettings]
    autodiscover: AutodiscoverSettings
    apns: ApnsConfig | None
    fcm: FcmConfig | None
    webpush: WebPushSettings
    webapp: WebAppSettings | None
    """None: it is off."""
    apps: Mapping[Platform, frozenset[str]]
    """The apps that may be registered and pushed to, for every role."""
    push: PushSettings
    retention: Retention
    wiped_needs_administrator: bool
    """Whether nobody registers for a wiped mailbox before an administrator allows it."""
    egress: EgressSettings
    log: LogSettings
    canary: CanarySettings | None = field(default=None, repr=False)
    """None: there is none, or the role has no part in it."""
    tracing: Tracing | None = None
    """None: no traces."""
    warnings: tuple[tuple[str, str, str], ...] = ()
    """What works, but should change: key as in TOML, what is wrong, what to do."""
    origin: Origin = field(default_factory=Origin, repr=False, compare=False)

    @property
    def server_names(self) -> frozenset[str]:
        """The names that mailboxes have of their servers."""
        return frozenset({*self.servers, *([AUTODISCOVER] if self.autodiscover.hosts else [])})

    @property
    def limits(self) -> Mapping[str, TryLimits]:
        """What the directory of each server bears of refused logins, by the server's name in mailboxes."""
        found = {AUTODISCOVER: self.autodiscover.tries} if self.autodiscover.hosts else {}
        return share_directories({name: server.tries for name, server in self.servers.items()} | found)
