"""The tables of relay.toml about mail servers: how they are reached and watched, and the canary."""

from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from eas_watcher.heartbeat import MAXIMUM, MINIMUM, START
from eas_watcher.machine.state import RATE
from relay.settings.section import Host, Platforms, Port, ProxySection, Section, Text, Texts
from relay.settings.spellings import login_domain, mail_address, mail_domain, split, split_numbers, words

LoginDomains = Annotated[tuple[Annotated[Text, AfterValidator(login_domain)], ...], BeforeValidator(split)]
Domains = Annotated[tuple[Annotated[Text, AfterValidator(mail_domain)], ...], BeforeValidator(split)]
MailAddress = Annotated[Text, AfterValidator(mail_address)]
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
        default=100, description="refused logins of apps within lockout_window, over all accounts, 4 to 1000000"
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
