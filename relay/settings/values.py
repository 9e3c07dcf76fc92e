"""Own the frozen values that settings become: what one process may know, by its role."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eas_watcher.auth.grant import OAuthClient
from eas_watcher.auth.negotiate import Service
from eas_watcher.machine.state import Policy
from relay.domain.model import Platform, Role
from relay.push.apns.config import ApnsConfig
from relay.push.fcm.config import FcmConfig
from relay.push.webpush.config import WebPushConfig
from relay.security.credentials import CredentialKind
from relay.security.invitations import Guests
from relay.security.sealing import SealingPrivateKey, SealingPublicKey
from relay.settings.urls import with_password


@dataclass(frozen=True, slots=True)
class Secret:
    """Hold a text that never shows itself."""

    value: str

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Hold where the database is."""

    url: str
    """SQLAlchemy's URL with the asynchronous driver, without a password."""
    password: Secret | None = None
    file: Path | None = None
    """The file of an embedded database."""
    ca_file: Path | None = None
    """CA certificates that PostgreSQL's host must prove itself by; None: the URL decides about TLS."""

    @property
    def dsn(self) -> str:
        """Write the URL with its password; for the engine alone."""
        return self.url if self.password is None else with_password(self.url, self.password.value)


@dataclass(frozen=True, slots=True)
class SealingSettings:
    """Hold the sealing keys that the role may have."""

    private_key_file: Path
    public_key_file: Path
    private: SealingPrivateKey | None = field(default=None, repr=False)
    public: SealingPublicKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Hold how the registration API listens."""

    host: str
    port: int
    certificate_file: Path | None
    key_file: Path | None
    """Both None: plain HTTP, on loopback or behind a proxy."""
    behind_proxy: bool
    verdict_wait: float
    registrations_per_minute: int


@dataclass(frozen=True, slots=True)
class OpsSettings:
    """Hold where health and metrics listen."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """Hold where the refresh tokens of a server's users are exchanged, and as whom."""

    client: OAuthClient
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class KerberosSettings:
    """Hold whose mailboxes may be watched with tickets, and who the relay is to the KDC."""

    guests: Guests
    service: Service | None
    """Known to roles that open credentials."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Hold one ActiveSync server."""

    url: str
    ca_file: Path | None
    domains: frozenset[str]
    policy: Policy
    credentials: frozenset[CredentialKind] = frozenset({CredentialKind.BASIC})
    oauth: OAuthSettings | None = None
    """Known to roles that open credentials, if the server takes such."""
    kerberos: KerberosSettings | None = None
    sources: tuple[str, ...] = ()
    """Addresses of this host that connections come from in turn; empty: the host chooses."""


@dataclass(frozen=True, slots=True)
class PushSettings:
    """Hold how fast pushes leave, in seconds."""

    coalesce: float
    expire: float
    jitter: float


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """Hold where everything that leaves the company is noted."""

    folder: Path
    largest: int
    """Bytes of a file."""


@dataclass(frozen=True, slots=True)
class AutodiscoverSettings:
    """Hold where servers of domains without a configured one are looked for."""

    hosts: frozenset[str]
    """Lower-case, with their port unless it is 443; empty: nowhere."""
    ca_file: Path | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class WebPushSettings:
    """Hold which apps are pushed to through which push services, and as whom; all is empty without WebPush."""

    apps: frozenset[str]
    services: frozenset[str]
    """The only ones that are ever asked, named as in relay.subscription."""
    public_key: str
    """What apps subscribe with, base64url."""
    sender: WebPushConfig | None
    """Known to roles that push."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Hold what is logged and how."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["json", "text"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold all that one process may know; what is not its role's stays unread and None."""

    role: Role
    state_dir: Path
    database: DatabaseSettings
    sealing: SealingSettings
    api: ApiSettings | None
    ops: OpsSettings
    servers: Mapping[str, ServerSettings]
    autodiscover: AutodiscoverSettings
    apns: ApnsConfig | None
    fcm: FcmConfig | None
    webpush: WebPushSettings
    apps: Mapping[Platform, frozenset[str]]
    """Which apps may be registered and pushed to, known to every role."""
    push: PushSettings
    egress: EgressSettings
    log: LogSettings
