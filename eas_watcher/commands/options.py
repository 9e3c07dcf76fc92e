"""Own OPTIONS: which versions and commands a server offers, and which version is taken [MS-ASHTTP 2.2.3, 2.2.4]."""

from collections.abc import Container
from dataclasses import dataclass
from re import compile as pattern
from typing import ClassVar, Final

from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.errors import ProtocolViolation, VersionRefused
from eas_watcher.names import ProtocolVersion

SPOKEN: Final = {version.wire: version for version in ProtocolVersion}
VERSION: Final = pattern(r"[0-9]{1,2}\.[0-9]{1,2}")
COMMAND: Final = pattern(r"[A-Za-z]{1,32}")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Hold what a server offers."""

    versions: tuple[ProtocolVersion, ...]
    """Those that the relay speaks, lowest first."""
    commands: frozenset[str]
    unspoken: tuple[str, ...] = ()
    """Versions that the relay does not speak, as the server spells them."""


@dataclass(frozen=True, slots=True)
class Options(Command[Capabilities]):
    """Ask what the server offers; the one request that is no command."""

    name: ClassVar[str] = ""
    carries_policy_key: ClassVar[bool] = False

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- the request comes before the choice of a version
        """Write nothing: OPTIONS has no body."""
        return b""

    def read(self, reply: HttpReply) -> Capabilities:
        """Read the two headers; both may come twice, joined by a comma [observed: Exchange Online, 2026].

        Raises ProtocolViolation when there are no versions at all: the URL is not an ActiveSync server's.
        """
        offered = _words(reply, "ms-asprotocolversions")
        if offered is None:
            raise ProtocolViolation("not an ActiveSync server: OPTIONS was answered without MS-ASProtocolVersions")
        versions = sorted(SPOKEN[word] for word in offered & SPOKEN.keys())
        unspoken = sorted(word for word in offered - SPOKEN.keys() if VERSION.fullmatch(word))
        commands = _words(reply, "ms-asprotocolcommands") or frozenset()
        return Capabilities(tuple(versions), frozenset(filter(COMMAND.fullmatch, commands)), tuple(unspoken))


def choose_version(capabilities: Capabilities, allowed: Container[ProtocolVersion]) -> ProtocolVersion:
    """Take the highest version that the server offers and the operator allows.

    Raises VersionRefused, naming what was offered, when there is none.
    """
    for version in sorted(capabilities.versions, reverse=True):
        if version in allowed:
            return version
    offered = [*capabilities.unspoken, *(version.wire for version in capabilities.versions)]
    raise VersionRefused(
        f"none of the server's protocol versions can be used; it offers {', '.join(offered) or 'none'}"
    )


def _words(reply: HttpReply, header: str) -> frozenset[str] | None:
    value = reply.headers.get(header)
    return None if value is None else frozenset(word.strip() for word in value.split(","))
