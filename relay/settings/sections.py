"""The tables of relay.toml: each key with its type, default, bounds and meaning."""

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from eas_watcher.heartbeat import MAXIMUM, MINIMUM, START
from eas_watcher.machine.state import RATE
from relay.domain.pacing import COALESCE_MOST, JITTER_MOST
from relay.push.fcm.budget import PER_HOUR
from relay.settings.spellings import (
    app_name,
    apple_id,
    bare_host,
    bundle_id,
    header_name,
    listening_host,
    login_domain,
    mail_address,
    mail_domain,
    package_name,
    printable,
    some_hosts,
    split,
    split_numbers,
    words,
)

Text = Annotated[str, Field(min_length=1), AfterValidator(printable)]
Host = Annotated[Text, AfterValidator(bare_host)]
Listen = Annotated[
    tuple[Annotated[Text, AfterValidator(listening_host)], ...], BeforeValidator(split), AfterValidator(some_hosts)
]
Port = Annotated[int, Field(ge=1, le=65535)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(split)]
Apps = Annotated[tuple[Annotated[Text, AfterValidator(app_name)], ...], BeforeValidator(split)]
BundleIds = Annotated[tuple[Annotated[Text, AfterValidator(bundle_id)], ...], BeforeValidator(split)]
PackageNames = Annotated[tuple[Annotated[Text, AfterValidator(package_name)], ...], BeforeValidator(split)]
AppleId = Annotated[Text, AfterValidator(apple_id)]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(split)]
LoginDomains = Annotated[tuple[Annotated[Text, AfterValidator(login_domain)], ...], BeforeValidator(split)]
Domains = Annotated[tuple[Annotated[Text, AfterValidator(mail_domain)], ...], BeforeValidator(split)]
MailAddress = Annotated[Text, AfterValidator(mail_address)]
Platforms = Annotated[tuple[Literal["apns", "fcm", "webpush"], ...], BeforeValidator(split)]
InFlight = Annotated[int, Field(ge=1, le=1000)]
ProviderProxy = Annotated[
    Text | None,
    Field(description="another proxy than network.proxy, without authentication, or none to connect straight"),
]


class Section(BaseModel):
    """One table of relay.toml; None means that a key is not set and has no default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _without_blanks(cls, value: Any) -> Any:
        """Drop blanks at both ends of texts: nobody sees them in a file."""
        if isinstance(value, list):
            return [part.strip() if isinstance(part, str) else part for part in value]
        return value.strip() if isinstance(value, str) else value


class ProxySection(Section):
    """What [network], [servers.NAME] and [autodiscover] say of the proxy that connections go through."""

    proxy: Text | None = Field(
        default=None,
        description="http://HOST:PORT, https://, socks5:// or, where only the proxy can look names up, socks5h://; "
        "unset or none: straight",
    )
    proxy_auth: Literal["basic", "negotiate"] = Field(
        default="basic", description="basic: proxy_user and its password; negotiate: Kerberos tickets, to HTTP proxies"
    )
    proxy_user: Text | None = Field(
        default=None, description="user at the proxy; with negotiate a principal, unset: that of the ticket cache"
    )
    proxy_password_file: Text | None = Field(
        default=None, description="file whose first line is the password of proxy_user"
    )
    proxy_keytab_file: Text | None = Field(
        default=None, description="keytab with the key of proxy_user, for negotiate; unset: the process's ticket cache"
    )
    proxy_ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's for an https:// proxy itself"
    )


class RelaySection(Section):
    """[relay]: what all roles share."""

    state_dir: Text | None = Field(
        default=None,
        description="folder for the database and the sealing keys; unset: /var/lib/NAME for /etc/NAME/relay.toml, "
        "otherwise the folder state beside relay.toml",
    )


class DatabaseSection(Section):
    """[database]: where the database is."""

    url: Text | None = Field(
        default=None,
        description="sqlite:///FILE or postgresql://USER@HOST:PORT/NAME or "
        "postgresql://USER@/NAME?host=/SOCKET/FOLDER, without a password; "
        "unset: relay.sqlite3 in relay.state_dir",
    )
    password_file: Text | None = Field(default=None, description="file whose first line is the PostgreSQL password")
    ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust for PostgreSQL; set: TLS is demanded, and the host verified"
    )


class SealingSection(Section):
    """[sealing]: where the sealing keys are."""

    private_key_file: Text | None = Field(
        default=None,
        description="PEM file that opens credentials, or environment:NAME; unset: sealing-private.pem in "
        "relay.state_dir",
    )
    public_key_file: Text | None = Field(
        default=None, description="PEM file that seals credentials; unset: sealing-public.pem in relay.state_dir"
    )
    former_private_key_files: Texts = Field(
        default=(),
        description="PEM files of replaced keys, whose credentials are sealed for the present key while the relay runs",
    )


class ApiSection(Section):
    """[api]: the listener of the registration API."""

    host: Listen = Field(
        default=("0.0.0.0",),  # noqa: S104 -- phones come from outside; TLS is demanded unless it is a loopback address
        description="addresses of this host the registration API listens on; * is all, IPv4 and IPv6",
    )
    port: Port = Field(default=8443, description="port of the registration API, 1 to 65535")
    certificate_file: Text | None = Field(
        default=None, description="PEM file with the server certificate and its chain"
    )
    key_file: Text | None = Field(default=None, description="PEM file with the key of api.certificate_file")
    proxies: Texts = Field(
        default=(),
        description="addresses or networks of the TLS reverse proxies before it: plain HTTP; the relay believes what "
        "they alone say about their clients",
    )
    proxy_header: Literal["X-Forwarded-For", "Forwarded"] = Field(
        default="X-Forwarded-For", description="header in which they name the client, X-Forwarded-For or Forwarded"
    )
    verdict_wait: float = Field(
        default=6.0, ge=0, le=60, description="seconds that a registration waits for the mail server's verdict, 0 to 60"
    )
    invitation_key_file: Text | None = Field(
        default=None,
        description="PEM file of public keys: a registration needs an invitation for its user that one of them signed",
    )
    enrolment: Annotated[Texts, Field(min_length=1)] = Field(
        default=("open",),
        description="what a registration must show besides the credential: open, key, mtls; one of the list is enough, "
        "+ joins what is demanded together",
    )
    enrolment_key_files: Texts = Field(
        default=(), description="files with one key a line, any of which opens `key`; an MDM hands them out"
    )
    client_ca_file: Text | None = Field(
        default=None, description="PEM file of the CA whose client certificates open `mtls` to the user they name"
    )
    prove_possession: Platforms = Field(
        default=("apns", "fcm", "webpush"),
        description="platforms whose apps must return the nonce of a challenge push before a registration is active",
    )
    registrations_per_minute: int = Field(
        default=30, ge=1, le=100_000, description="registrations per minute and client address, at least 1"
    )
    requests_per_minute: int = Field(
        default=600, ge=1, le=100_000, description="requests per minute and client address, at least 1"
    )
    connections_per_address: int = Field(
        default=256, ge=1, le=4096, description="connections at once of one client address, 1 to 4096"
    )


class OpsSection(Section):
    """[ops]: the listener of health and metrics."""

    host: Listen = Field(
        default=("127.0.0.1",),
        description="addresses of this host that health and metrics listen on (plain HTTP); * is all, IPv4 and IPv6",
    )
    port: Port = Field(default=9090, description="port of health and metrics, 1 to 65535")
    hosts: Hosts = Field(
        default=(), description="names and addresses that monitoring reaches it by, besides localhost and ops.host"
    )


class AdminSection(Section):
    """[admin]: the acts of administrators, and who may do them over HTTP."""

    audit_key_file: Text | None = Field(
        default=None,
        description="keys of the audit log of administrative acts, the newest first; "
        "unset: admin-audit.key in relay.state_dir",
    )
    console: bool | None = Field(
        default=None,
        description="true or false: whether this process serves the console; unset: the roles all and api do, "
        "if there are tokens or a proxy",
    )


class AdminProxySection(Section):
    """[admin.proxy]: the reverse proxy that says who uses the console."""

    header: Annotated[Text, AfterValidator(header_name)] | None = Field(
        default=None, description="header in which the proxy names the person, such as X-Forwarded-User"
    )
    groups_header: Annotated[Text, AfterValidator(header_name)] | None = Field(
        default=None, description="header in which the proxy lists the person's groups, with commas in between"
    )
    peers: Texts = Field(
        default=(), description="addresses or networks of the proxies whose headers the relay believes"
    )
    read: Texts = Field(default=(), description="who may look: names of persons, and group:NAME for all of a group")
    act: Texts = Field(default=(), description="who may retry, pause, resume, test and put servers into maintenance")
    forget: Texts = Field(default=(), description="who may forget users and registrations")


class AdminTokenSection(Section):
    """[admin.tokens.NAME]: one token of the admin API."""

    file: Text | None = Field(
        default=None, description="file whose first line is the token, or sha256: and the SHA-256 of the token in hex"
    )
    scopes: Annotated[tuple[Literal["read", "act", "forget"], ...], BeforeValidator(split), Field(min_length=1)] = (
        Field(default=("read",), description="what it opens, out of read, act, forget")
    )


Version = Literal["12.1", "14.0", "14.1", "16.0", "16.1"]
VERSIONS: Final[tuple[Version, ...]] = get_args(Version)
LONGEST_HEARTBEAT: Final = 3540  # seconds, Exchange's upper bound [MS-ASCMD 2.2.3.79.1]
Seconds = Annotated[int, Field(ge=1, le=LONGEST_HEARTBEAT)]
LockoutWindow = Annotated[int, Field(ge=60, le=86_400)]
RefusedLogins = Annotated[int, Field(ge=4, le=1_000_000)]


class ServerSection(ProxySection):
    """[servers.NAME]: one mail server."""

    url: Text | None = Field(
        default=None, description="https:// URL; without a path, /Microsoft-Server-ActiveSync is taken"
    )
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    domains: Domains = Field(default=(), description="mail domains whose addresses are looked for on this server")
    http2: Literal["auto", "off"] = Field(
        default="auto",
        description="auto: HTTP/2 where the server offers it, 100 Pings on a connection; off: HTTP/1.1 only",
    )
    source_addresses: Texts = Field(
        default=(), description="addresses of this host that connections come from in turn; unset: the host chooses"
    )
    versions: Annotated[tuple[Version, ...], BeforeValidator(words), Field(min_length=1)] = Field(
        default=VERSIONS, description=f"protocol versions that may be spoken, out of {', '.join(VERSIONS)}"
    )
    acknowledgement: Literal[1, 2, 4] = Field(
        default=4,
        description="the answer to a server that demands a device policy: 1 applied, 2 partly, 4 managed by others",
    )
    acknowledgement_fallback: Annotated[tuple[Literal[1, 2, 4], ...], BeforeValidator(split_numbers)] = Field(
        default=(), description="what else may be answered to a server that refuses acknowledgement, in this order"
    )
    credentials: Annotated[
        tuple[Literal["basic", "oauth", "certificate", "kerberos"], ...], BeforeValidator(split), Field(min_length=1)
    ] = Field(
        default=("basic",), description="how users may prove who they are, out of basic, oauth, certificate, kerberos"
    )
    oauth_token_endpoint: Text | None = Field(
        default=None,
        description="https:// URL where refresh tokens and codes are exchanged; nowhere else are they ever sent",
    )
    oauth_authorization_endpoint: Text | None = Field(
        default=None,
        description="https:// URL where users sign in and get a code for the relay; unset: no codes",
    )
    oauth_redirect_uris: Texts = Field(
        default=(), description="addresses at which apps of yours get codes, besides the page of the web app"
    )
    oauth_client_id: Text | None = Field(default=None, description="the relay's client id there")
    oauth_client_secret_file: Text | None = Field(
        default=None, description="file whose first line is the client's secret; unset: a public client"
    )
    oauth_scope: Text | None = Field(
        default=None, description="scope to ask for, words joined by spaces; unset: what the user granted"
    )
    oauth_audience: Texts = Field(
        default=(), description="what access tokens must be meant for, where they can be read; unset: not checked"
    )
    oauth_user_claims: Texts = Field(
        default=("upn", "preferred_username", "unique_name"),
        description="claims of tokens that name their user, who must be the mailbox's; none of them there: not checked",
    )
    oauth_ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's for oauth_token_endpoint"
    )
    kerberos_realm: Text | None = Field(
        default=None, description="realm of the users' accounts, as the directory writes it, e.g. EXAMPLE.COM"
    )
    kerberos_principal: Text | None = Field(
        default=None, description="the relay's own account, which may act for users at this server alone"
    )
    kerberos_keytab_file: Text | None = Field(default=None, description="keytab with the key of kerberos_principal")
    kerberos_target: Text | None = Field(
        default=None, description="the server's principal, e.g. HTTP/mail.example.com@EXAMPLE.COM; unset: by its URL"
    )
    kerberos_users: Literal["account", "address"] = Field(
        default="account", description="what the directory knows users by: account name, or address (UPN)"
    )
    kerberos_invitation_key_file: Text | None = Field(
        default=None, description="PEM file of public keys whose invitations let users register"
    )
    heartbeat_start: Seconds = Field(default=START, description="seconds of a mailbox's first Ping, 1 to 3540")
    heartbeat_minimum: Seconds = Field(default=MINIMUM, description="seconds that a Ping lasts at least, 1 to 3540")
    heartbeat_maximum: Seconds = Field(default=MAXIMUM, description="seconds that a Ping lasts at most, 1 to 3540")
    mode: Literal["ping", "poll"] = Field(
        default="ping", description="ping: one Ping held per mailbox; poll: a Sync per mailbox every poll_interval"
    )
    poll_interval: Annotated[int, Field(ge=30, le=LONGEST_HEARTBEAT)] = Field(
        default=300, description="seconds between two Syncs of a mailbox with mode poll, 30 to 3540"
    )
    return_rate: float = Field(
        default=RATE,
        ge=0.1,
        le=10_000,
        description="mailboxes per second that start, return or have a credential checked, 0.1 to 10000",
    )
    directory: Text | None = Field(
        default=None, description="a name for the directory behind it, where another server has the same accounts"
    )
    user_case: Literal["ignored", "kept"] = Field(
        default="ignored", description="ignored: `Ann` and `ann` are one user; kept: the server tells them apart"
    )
    user_domains: LoginDomains = Field(
        default=(),
        description="mail and Windows domains in which a name is one user, so that `ann`, `ann@example.com` and "
        "`EXAMPLE\\ann` share a mailbox; nothing with user_case kept",
    )
    lockout_window: LockoutWindow = Field(
        default=1800, description="seconds after which the directory forgets failed logins of an account, 60 to 86400"
    )
    refused_logins: RefusedLogins = Field(
        default=100, description="refused logins of apps that the relay brings in such a time, 4 to 1000000"
    )


class AutodiscoverSection(ProxySection):
    """[autodiscover]: whether and where to look for the servers of domains that no [servers.NAME] lists."""

    enabled: bool = Field(
        default=False, description="true to look for the servers of other domains than `domains` name"
    )
    hosts: Texts = Field(
        default=(),
        description="the only hosts (host, or host:port) that are asked, and that mailboxes may be sent to",
    )
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust for these hosts")
    directory: Text | None = Field(default=None, description="as in [servers.NAME]")
    lockout_window: LockoutWindow = Field(
        default=1800, description="as in [servers.NAME], for all servers that Autodiscover finds"
    )
    refused_logins: RefusedLogins = Field(
        default=100, description="as in [servers.NAME], for all servers that Autodiscover finds together"
    )


class ApnsAccountSection(Section):
    """[apns.accounts.NAME]: one APNs account, with its key or certificate and its apps."""

    key_file: Text | None = Field(default=None, description="the .p8 key from Apple's developer site")
    key_id: AppleId | None = Field(
        default=None,
        description="the ten letters and digits that name key_file at Apple; unset: those in its name AuthKey_KEYID.p8",
    )
    team_id: AppleId | None = Field(default=None, description="the ten letters and digits of the Apple developer team")
    certificate_file: Text | None = Field(
        default=None, description="PEM file with a push certificate and its key, instead of key_file"
    )
    topics: BundleIds = Field(default=(), description="bundle ids of the apps that may be pushed to")
    environments: Annotated[
        tuple[Literal["production", "sandbox"], ...], BeforeValidator(split), Field(min_length=1)
    ] = Field(
        default=("production", "sandbox"),
        description="what the key or certificate is good for, out of production, sandbox",
    )


class ApnsSection(ApnsAccountSection):
    """[apns]: how to reach APNs; its other keys are the first account, often the only one."""

    host: Host = Field(default="api.push.apple.com", description="APNs host for apps from the store")
    port: Port = Field(default=443, description="APNs port for apps from the store, 443 or 2197")
    sandbox_host: Host = Field(default="api.sandbox.push.apple.com", description="APNs host for development builds")
    sandbox_port: Port = Field(default=443, description="APNs port for development builds, 443 or 2197")
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    proxy: ProviderProxy = None
    in_flight: InFlight = Field(default=100, description="pushes at once, 1 to 1000")


class FcmAccountSection(Section):
    """[fcm.accounts.NAME]: one Firebase project, with its service account and its apps."""

    service_account_file: Text | None = Field(
        default=None, description="JSON key of the service account, from the Firebase console"
    )
    apps: PackageNames = Field(default=(), description="package names of the apps that may be pushed to")


class FcmSection(FcmAccountSection):
    """[fcm]: how to reach FCM; its other keys are the first account, often the only one."""

    url: Text = Field(default="https://fcm.googleapis.com", description="https:// URL of FCM, without a path")
    ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's, for FCM and for its access tokens"
    )
    proxy: ProviderProxy = None
    in_flight: InFlight = Field(default=100, description="pushes at once, 1 to 1000")
    high_priority_per_hour: int = Field(
        default=PER_HOUR, ge=1, le=1000, description="pushes of new items that wake one phone within an hour, 1 to 1000"
    )


class WebPushSection(Section):
    """[webpush]: the push services that the relay sends to, and the key that identifies the relay there."""

    hosts: Texts = Field(
        default=(),
        description="the only push services (host, or host:port; apple, google, mozilla, microsoft for browsers) that "
        "are asked, whatever a phone names",
    )
    apps: Apps = Field(default=(), description="names of the apps that may be pushed to, as they register")
    vapid_key_file: Text | None = Field(
        default=None, description="PEM file that proves the relay to push services, from `relay vapid --new`"
    )
    public_key: Text | None = Field(
        default=None, description="the public half of webpush.vapid_key_file, for the api role: `relay vapid` prints it"
    )
    subject: Annotated[str, Field(max_length=255, pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://[^\s]+)$")] | None = Field(
        default=None, description="whom operators of push services may ask: mailto:ADDRESS or an https:// URL"
    )
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    proxy: ProviderProxy = None
    straight_hosts: Texts = Field(
        default=(), description="those of webpush.hosts that are inside and reached without any proxy"
    )
    in_flight: InFlight = Field(
        default=100, description="pushes at once, 1 to 1000; to one of several hosts half of it"
    )


class WebAppSection(Section):
    """[webapp]: the relay's own web app, which registers browsers and phones without another app."""

    enabled: bool = Field(default=False, description="true to serve the web app beside the registration API")
    origin: Text | None = Field(
        default=None,
        description="how browsers reach the registration API: https://HOST or https://HOST:PORT, without a path",
    )
    base_path: Annotated[str, Field(pattern=r"^/[a-z0-9][a-z0-9-]{0,31}$")] = Field(
        default="/app", description="path of its pages there: / and one word of small letters, digits and -"
    )
    title: Annotated[str, Field(min_length=1, max_length=40), AfterValidator(printable)] = Field(
        default="Mail notifications", description="name under which phones show it, at most 40 characters"
    )
    open_url: Text | None = Field(
        default=None,
        description="what a notification of new items opens, e.g. https://mail.example.com/owa/; unset: the web app",
    )
    help_text: Annotated[str, Field(min_length=1, max_length=400), AfterValidator(printable)] | None = Field(
        default=None, description="whom users ask, shown below each page, at most 400 characters"
    )
    logo_file: Text | None = Field(
        default=None, description="PNG or SVG of the company, of at most 200 kB, shown above each page"
    )


class NetworkSection(ProxySection):
    """[network]: the connections to Apple, Google and push services; those to mail servers have keys of their own."""

    source_address: Texts = Field(
        default=(), description="address to connect from, one of IPv4, one of IPv6, or both; unset: the host chooses"
    )


class PushSection(Section):
    """[push]: whether and how fast pushes leave, through any provider."""

    mode: Literal["live", "shadow"] = Field(
        default="live",
        description="live, or shadow: watch and note what would leave, and push nothing of it",
    )
    live_apps: Apps = Field(default=(), description="apps that are pushed to all the same while push.mode is shadow")
    live_servers: Texts = Field(
        default=(),
        description="mail servers, by the NAME of servers.NAME, whose mailboxes are pushed for all the same while "
        "push.mode is shadow; autodiscover: those that Autodiscover found",
    )

    coalesce_seconds: float = Field(
        default=2.0,
        ge=0,
        le=COALESCE_MOST,
        description="seconds between two pushes of one class to one phone, 0 to 60; what comes meanwhile adds up",
    )
    expire_hours: float = Field(
        default=24.0,
        ge=0.1,
        le=720,
        description="age in hours of its newest change at which a push is dropped, 0.1 to 720",
    )
    jitter_seconds: float = Field(
        default=0.0,
        ge=0,
        le=JITTER_MOST,
        description="seconds within which a push leaves at a random moment, 0 to 300; 0: at once",
    )
    receipts: bool = Field(
        default=True,
        description="pushes have ids, by which apps may say that they showed them; false: they have none",
    )


class RegistrationsSection(Section):
    """[registrations]: how long registrations are kept, and who may come back after a wipe."""

    wiped_needs_administrator: bool = Field(
        default=True,
        description="nobody registers for a wiped mailbox before `relay wipes allow USER`",
    )
    retain_token_gone_days: float = Field(
        default=30.0, ge=0, le=3650, description="days until a registration ends whose app is gone; 0: never"
    )
    retain_refused_days: float = Field(
        default=30.0, ge=0, le=3650, description="days until one ends whose credential is refused; 0: never"
    )
    retain_untouched_days: float = Field(
        default=180.0,
        ge=0,
        le=3650,
        description="days until one ends whose app was not seen and that got no push; 0: never",
    )
    retain_tombstone_days: float = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="days for which an app whose registration has ended learns how, up to 3650",
    )


class EgressSection(Section):
    """[egress]: where the relay logs everything that leaves the company."""

    folder: Text | None = Field(
        default=None, description="folder of the egress log, for the push role; unset: egress in relay.state_dir"
    )
    file_megabytes: int = Field(
        default=64, ge=1, le=10_000, description="size at which a file of the egress log is full, 1 to 10000"
    )
    key_file: Text | None = Field(
        default=None, description="file of the keys of the egress log's chain; unset: egress.key in relay.state_dir"
    )
    keep_days: int = Field(
        default=0, ge=0, le=36_500, description="days after which a file of the egress log is removed; 0: never"
    )
    keep_megabytes: int = Field(
        default=0, ge=0, description="size of all files of the egress log, beyond it the oldest goes; 0: no limit"
    )
    free_megabytes: int = Field(
        default=256, ge=0, description="room on the disk of the egress log, below which health is degraded"
    )


class TimelineSection(Section):
    """[timeline]: the last events of each mailbox, which `relay explain` shows; they have no content."""

    keep_hours: float = Field(
        default=72.0, ge=0, le=8760, description="hours for which events are kept, up to 8760; 0: none is noted"
    )
    per_mailbox: int = Field(
        default=300, ge=10, le=100_000, description="events of one mailbox that are kept, the newest, 10 to 100000"
    )


class CanarySection(Section):
    """[canary]: a mailbox of the relay's own, to which it sends mails that must be pushed."""

    server: Text | None = Field(default=None, description="the NAME of its server in servers.NAME")
    user: Text | None = Field(default=None, description="its login, as phones register it")
    password_file: Text | None = Field(
        default=None, description="file whose first line is its password, for the api role; for webpush only"
    )
    platforms: Annotated[Platforms, Field(min_length=1)] = Field(
        default=("webpush",),
        description="platforms whose devices must show each push; webpush is the relay's own device, the others are "
        "phones that register the mailbox",
    )
    smtp_host: Host | None = Field(default=None, description="the only host that takes its mails, by SMTP")
    smtp_port: Port = Field(default=587, description="port of that host, 1 to 65535")
    smtp_tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="starttls, tls from the first byte on, or none for a server on this host"
    )
    smtp_ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    smtp_user: Text | None = Field(default=None, description="login for sending; unset: the server asks for none")
    smtp_password_file: Text | None = Field(
        default=None, description="file whose first line is the password of canary.smtp_user, for the watch role"
    )
    smtp_from: MailAddress | None = Field(default=None, description="address of the sender; unset: canary.smtp_to")
    smtp_to: MailAddress | None = Field(default=None, description="address of the mailbox; unset: canary.user")
    interval_seconds: int = Field(
        default=300, ge=30, le=86_400, description="seconds between two mails, 30 to 86400; then one counts as lost"
    )
    goal_seconds: float = Field(
        default=60.0, ge=1, le=86_400, description="seconds within which a mail shall be shown, 1 to 86400"
    )
    goal_percent: float = Field(
        default=95.0, ge=1, le=100, description="part of the mails of a day that shall be shown in that time, 1 to 100"
    )


class LogSection(Section):
    """[log]: which log records are written, and in which format."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged: debug, info, warning or error"
    )
    format: Literal["json", "text", "journal"] = Field(
        default="json",
        description=(
            "json: one object per line, for collectors; text: for people; journal: fields of systemd's journal, "
            "and JSON where standard error is not the journal"
        ),
    )


class TracingSection(Section):
    """[tracing]: traces of the way of mails and pushes, for an OpenTelemetry collector; they have no content."""

    endpoint: Text | None = Field(
        default=None,
        description="https URL of a collector that takes OTLP over HTTP, e.g. https://otel.example.com:4318/v1/traces; "
        "unset: no traces. Needs the extra otel",
    )
    ca_file: Text | None = Field(
        default=None, description="PEM file of CAs to trust instead of the system's for tracing.endpoint"
    )
    headers_file: Text | None = Field(
        default=None, description="file of headers for each request, one a line, e.g. Authorization: Bearer ..."
    )
    sample_ratio: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of all traces that is sent, above 0 and up to 1, the same in all roles",
    )


RETIRED: Final[dict[str, tuple[str, str]]] = {
    "api.behind_proxy": (
        "is no setting any more",
        'Remove it; behind a TLS reverse proxy, list its addresses instead: api.proxies = ["192.0.2.10"].',
    ),
}
"""Keys of earlier versions: what is wrong with them now, and what to write instead."""

SECTIONS: Final[dict[str, type[Section]]] = {
    "relay": RelaySection,
    "database": DatabaseSection,
    "sealing": SealingSection,
    "api": ApiSection,
    "ops": OpsSection,
    "admin": AdminSection,
    "admin.proxy": AdminProxySection,
    "servers": ServerSection,
    "autodiscover": AutodiscoverSection,
    "apns": ApnsSection,
    "fcm": FcmSection,
    "webpush": WebPushSection,
    "webapp": WebAppSection,
    "network": NetworkSection,
    "push": PushSection,
    "registrations": RegistrationsSection,
    "egress": EgressSection,
    "timeline": TimelineSection,
    "canary": CanarySection,
    "log": LogSection,
    "tracing": TracingSection,
}
"""The tables of relay.toml; `servers` holds one such table per server. A name with a dot is a table in a table."""

NAMED: Final[dict[str, type[Section]]] = {
    "servers": ServerSection,
    "apns.accounts": ApnsAccountSection,
    "fcm.accounts": FcmAccountSection,
    "admin.tokens": AdminTokenSection,
}
"""The tables that hold one table per name; operators choose the names."""


def known_keys() -> dict[str, tuple[Any, str]]:
    """Return every key, e.g. "api.port" and "servers.NAME.url", with its default and its meaning."""
    keys: dict[str, tuple[Any, str]] = {}
    for table, section in SECTIONS.items():
        inner = [(where, fields) for where, fields in NAMED.items() if where.startswith(f"{table}.")]
        for where, fields in (table, section), *inner:
            name = f"{where}.NAME" if where in NAMED else where
            if fields is not None:
                keys |= {
                    f"{name}.{key}": (field.default, field.description or "")
                    for key, field in fields.model_fields.items()
                }
    return keys
