"""What differs between two readings of the settings, and which of it a running process can take."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relay.domain.model import AUTODISCOVER
from relay.settings.values import Origin

FIXED: Final = (
    "relay.",
    "database.",
    "ops.",
    "webapp.",
    "api.host",
    "api.port",
    "egress.folder",
    "egress.key_file",
    "tracing.",
)
"""Beginnings of the keys that a process takes only when it starts: what it holds open."""
TABLES: Final = frozenset({"apns", "fcm", "webpush", "webapp", "canary"})
"""Tables that a process has from its start to its end, or not at all; what is in them may change."""
SERVERS: Final = "servers."
GENTLE: Final = frozenset(
    {"domains", "return_rate", "directory", "lockout_window", "refused_logins", "user_case", "user_domains"}
)
"""Keys of a mail server that its watches take while they hold their Pings; any other key gives them new ones."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The keys, as in TOML, whose values or files have changed, in their order."""

    live: tuple[str, ...] = ()
    """Those that a running process takes."""
    fixed: tuple[str, ...] = ()
    """Those that need a restart."""

    def touch(self, *tables: str) -> bool:
        """Return True if a running process must take something of these tables, e.g. "api"."""
        return any(key.partition(".")[0] in tables for key in self.live)

    @property
    def servers(self) -> frozenset[str]:
        """The names of the mail servers that were added, removed or changed, AUTODISCOVER for those that it finds."""
        return frozenset(filter(None, map(_server_of, self.live)))

    @property
    def restarting(self) -> frozenset[str]:
        """Those of these servers whose mailboxes need new watches."""
        return frozenset(filter(None, (_server_of(key) for key in self.live if not _is_gentle(key))))


def _server_of(key: str) -> str | None:
    """Return the name of the mail server that a key describes."""
    if key.startswith(SERVERS):
        return key.split(".")[1]
    return AUTODISCOVER if key.partition(".")[0] == AUTODISCOVER else None


def _is_gentle(key: str) -> bool:
    """Return True if the watches of a server take its key, e.g. "servers.main.return_rate", as they are."""
    parts = key.split(".")
    return parts[1 if parts[0] == AUTODISCOVER else 2 :] in [[name] for name in GENTLE]


def is_fixed(key: str) -> bool:
    """Return True if a process takes a key only when it starts."""
    return key in TABLES or key.startswith(FIXED)


def compare(started: Origin, running: Origin, found: Origin) -> Changes:
    """Return what changes if a process goes over to the settings that were `found`.

    It has taken live settings of `running` since it began with those that it `started` with.
    """
    return Changes(
        tuple(key for key in _differing(running, found) if not is_fixed(key)),
        tuple(key for key in _differing(started, found) if is_fixed(key)),
    )


def _differing(before: Origin, after: Origin) -> Iterable[str]:
    """Return the keys that differ; the order is that of `after`, then come those that it does not have any more."""
    # A file that is read for the first time under an unchanged key was made by the relay itself.
    for key in dict.fromkeys((*after.values, *before.values)):
        contents, known = after.contents.get(key, {}), before.contents.get(key, {})
        values_differ = before.values.get(key) != after.values.get(key)
        if values_differ or any(path in known and known[path] != digest for path, digest in contents.items()):
            yield key
