"""The tables of relay.toml about the relay itself, and the list of all tables.

Each key stands with its type, default, bounds and meaning.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from relay.settings.mail_sections import AutodiscoverSection, CanarySection, ServerSection
from relay.settings.push_sections import (
    ApnsAccountSection,
    ApnsSection,
    EgressSection,
    FcmAccountSection,
    FcmSection,
    NetworkSection,
    PushSection,
    WebPushSection,
)
from relay.settings.section import Host, Platforms, Port, ProviderProxy, Section, Text, Texts
from relay.settings.spellings import header_name, listening_host, printable, some_hosts, split

Listen = Annotated[
    tuple[Annotated[Text, AfterValidator(listening_host)], ...], BeforeValidator(split), AfterValidator(some_hosts)
]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(split)]


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


class TimelineSection(Section):
    """[timeline]: the last events of each mailbox, which `relay explain` shows; they have no content."""

    keep_hours: float = Field(
        default=72.0, ge=0, le=8760, description="hours for which events are kept, up to 8760; 0: none is noted"
    )
    per_mailbox: int = Field(
        default=300, ge=10, le=100_000, description="events of one mailbox that are kept, the newest, 10 to 100000"
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
    proxy: ProviderProxy = None
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
