"""Own how APNs is reached and as whom: values only, made by the settings."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from relay.domain.model import Environment
from relay.network.route import DIRECT, Route

KEY_FILE: Final = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8", re.ASCII)
"""How Apple names the files of keys: after the key's id."""
BOTH: Final = frozenset(Environment)


@dataclass(frozen=True, slots=True)
class ApnsToken:
    """Authenticate with a provider token signed by a .p8 key."""

    file: Path
    key_id: str | None
    """None: it stands in the name of the file, or of what that is a link to."""
    team_id: str

    @property
    def present_key_id(self) -> str | None:
        """Tell the id of the key that the file holds now; None when neither the settings nor a name tell it."""
        if self.key_id is not None:
            return self.key_id
        named = KEY_FILE.fullmatch(self.file.resolve().name)
        return None if named is None else named[1]


@dataclass(frozen=True, slots=True)
class ApnsCertificate:
    """Authenticate with a client certificate; the file holds the certificate and its key as PEM."""

    file: Path


Authentication: TypeAlias = ApnsToken | ApnsCertificate


@dataclass(frozen=True, slots=True)
class ApnsAccount:
    """Hold as whom which apps are pushed to: one key of one developer team, or one certificate."""

    topics: frozenset[str]
    authentication: Authentication
    environments: frozenset[Environment] = BOTH
    """What the key or certificate is good for: Apple makes keys for one environment or for both."""
    table: str = "apns"
    """Its table in relay.toml, for remedies."""

    @property
    def file_setting(self) -> str:
        """Name the key of relay.toml that names the file."""
        return f"{self.table}.{'key' if isinstance(self.authentication, ApnsToken) else 'certificate'}_file"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Name where one environment listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ApnsConfig:
    """Hold how to reach APNs and as whom."""

    accounts: tuple[ApnsAccount, ...]
    """No two are for the same topic in the same environment."""
    host: str = "api.push.apple.com"
    port: int = 443
    sandbox_host: str = "api.sandbox.push.apple.com"
    sandbox_port: int = 443
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""
    in_flight: int = 100
    """Pushes at once per account and environment: their bodies fit into HTTP/2's first window of 65,535 bytes."""
    time_limit: float = 20.0
    """Seconds for one push, connecting and repeating included; one more may pass before it is given up."""
    route: Route = DIRECT
    """How connections are made: through which proxy, from which address."""

    @property
    def endpoints(self) -> dict[Environment, Endpoint]:
        """Name where each environment listens."""
        return {
            Environment.PRODUCTION: Endpoint(self.host, self.port),
            Environment.SANDBOX: Endpoint(self.sandbox_host, self.sandbox_port),
        }
