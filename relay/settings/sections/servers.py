"""Own the tables about mail servers: those that are named, and where others are looked for."""

from typing import Annotated, Final, Literal, get_args

from pydantic import BeforeValidator, Field

from eas_watcher.gate import RATE
from eas_watcher.heartbeat import MAXIMUM, MINIMUM, START
from relay.settings.sections.section import Section, Text, Texts, split, split_numbers

Version = Literal["12.1", "14.0", "14.1", "16.0", "16.1"]
VERSIONS: Final[tuple[Version, ...]] = get_args(Version)
LONGEST_HEARTBEAT: Final = 3540  # seconds, Exchange's upper bound [MS-ASCMD 2.2.3.79.1]
Seconds = Annotated[int, Field(ge=1, le=LONGEST_HEARTBEAT)]


class ServerSection(Section):
    """Hold one ActiveSync server."""

    url: Text | None = Field(
        default=None, description="https:// URL; without a path, /Microsoft-Server-ActiveSync is taken"
    )
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust instead of the system's")
    domains: Texts = Field(default=(), description="mail domains whose addresses are looked for on this server")
    source_addresses: Texts = Field(
        default=(), description="addresses of this host that connections come from in turn; unset: the host chooses"
    )
    versions: Annotated[tuple[Version, ...], BeforeValidator(split), Field(min_length=1)] = Field(
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
        default=None, description="https:// URL where refresh tokens are exchanged; nowhere else are they ever sent"
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
        description="mailboxes per second that start, or return after an outage, 0.1 to 10000",
    )


class AutodiscoverSection(Section):
    """Hold whether and where servers of domains without a configured one are looked for."""

    enabled: bool = Field(
        default=False, description="true to look for the servers of other domains than `domains` name"
    )
    hosts: Texts = Field(
        default=(),
        description="the only hosts (host, or host:port) that are asked, and that mailboxes may be sent to",
    )
    ca_file: Text | None = Field(default=None, description="PEM file of CAs to trust for these hosts")
