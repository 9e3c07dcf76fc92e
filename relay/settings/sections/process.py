"""Own the tables about a process itself: its folder, database, keys, listeners and log."""

from typing import Literal

from pydantic import Field

from relay.settings.sections.section import Port, Section, Text


class RelaySection(Section):
    """Hold what all parts share."""

    state_dir: Text = Field(default="state", description="folder for the database and the sealing keys")


class DatabaseSection(Section):
    """Hold where the database is."""

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
    """Hold where the sealing keys are."""

    private_key_file: Text | None = Field(
        default=None, description="PEM file that opens credentials; unset: sealing-private.pem in relay.state_dir"
    )
    public_key_file: Text | None = Field(
        default=None, description="PEM file that seals credentials; unset: sealing-public.pem in relay.state_dir"
    )


class ApiSection(Section):
    """Hold how the registration API listens."""

    host: Text = Field(
        default="0.0.0.0",  # noqa: S104 -- phones come from outside; TLS is demanded unless it is a loopback address
        description="address the registration API listens on",
    )
    port: Port = Field(default=8443, description="port of the registration API, 1 to 65535")
    certificate_file: Text | None = Field(
        default=None, description="PEM file with the server certificate and its chain"
    )
    key_file: Text | None = Field(default=None, description="PEM file with the key of api.certificate_file")
    behind_proxy: bool = Field(
        default=False, description="true when a TLS reverse proxy stands before it: plain HTTP, X-Forwarded-For trusted"
    )
    verdict_wait: float = Field(
        default=6.0, ge=0, le=60, description="seconds that a registration waits for the mail server's verdict, 0 to 60"
    )
    registrations_per_minute: int = Field(
        default=30, ge=1, le=100_000, description="registrations per minute and client address, at least 1"
    )


class OpsSection(Section):
    """Hold how the ops listener listens."""

    host: Text = Field(default="127.0.0.1", description="address that health and metrics listen on (plain HTTP)")
    port: Port = Field(default=9090, description="port of health and metrics, 1 to 65535")


class LogSection(Section):
    """Hold what is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged: debug, info, warning or error"
    )
    format: Literal["json", "text"] = Field(
        default="json", description="json: one object per line, for collectors; text: for people"
    )
