"""The address of APNs, and the accounts that the relay has there: values that the settings make."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from relay.domain.model import Environment
from relay.network.route import DIRECT, Route

KEY_FILE: Final = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8", re.ASCII)
"""Apple's name for the file of a key, which has the key's id in it."""
BOTH: Final = frozenset(Environment)


@dataclass(frozen=True, slots=True)
class ApnsToken:
    """Authentication with a provider token that a .p8 key signs."""

    file: Path
    key_id: str | None
    """None: it stands in the name of the file, or of the file that it links to."""
    team_id: str

    @property
    def present_key_id(self) -> str | None:
        """The id of the key that the file holds now; None when neither the settings nor the file's name say it."""
        if self.key_id is not None:
            return self.key_id
        named = KEY_FILE.fullmatch(self.file.resolve().name)
        return None if named is None else named[1]


@dataclass(frozen=True, slots=True)
class ApnsCertificate:
    """Authentication with a client certificate; the file holds the certificate and its key as PEM."""

    file: Path


Authentication: TypeAlias = ApnsToken | ApnsCertificate


@dataclass(frozen=True, slots=True)
class ApnsAccount:
    """One key of one developer team, or one certificate, and the apps that it may push to."""

    topics: frozenset[str]
    authentication: Authentication
    environments: frozenset[Environment] = BOTH
    """Where the key or certificate is valid: Apple makes keys for one environment or for both."""
    table: str = "apns"
    """The account's table in relay.toml, for remedies."""

    @property
    def file_setting(self) -> str:
        """The key of relay.toml that names the file."""
        return f"{self.table}.{'key' if isinstance(self.authentication, ApnsToken) else 'certificate'}_file"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of one environment."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ApnsConfig:
    """The addresses of APNs, and the relay's accounts there."""

    accounts: tuple[ApnsAccount, ...]
    """No two accounts are for the same topic in the same environment."""
    host: str = "api.push.apple.com"
    port: int = 443
    sandbox_host: str = "api.sandbox.push.apple.com"
    sandbox_port: int = 443
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""
    in_flight: int = 100
    """Pushes at once per account and environment: the bodies of 100 fit into HTTP/2's first window of 65,535 bytes."""
    time_limit: float = 20.0
    """Seconds for one push, connecting and repeating included; the push ends at most one second later."""
    route: Route = DIRECT
    """The proxy that connections go through, and the address that they come from."""

    @property
    def endpoints(self) -> dict[Environment, Endpoint]:
        """The address of each environment."""
        return {
            Environment.PRODUCTION: Endpoint(self.host, self.port),
            Environment.SANDBOX: Endpoint(self.sandbox_host, self.sandbox_port),
        }
