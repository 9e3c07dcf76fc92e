"""OPTIONS: the versions and commands that a server offers, and the choice of a version [MS-ASHTTP 2.2.3, 2.2.4]."""

from collections.abc import Container
from dataclasses import dataclass
from re import compile as pattern
from typing import ClassVar, Final

from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.errors import ProtocolViolation, VersionRefused
from eas_watcher.names import ProtocolVersion

KNOWN: Final = {version.wire: version for version in ProtocolVersion}
VERSION: Final = pattern(r"[0-9]{1,2}\.[0-9]{1,2}")
COMMAND: Final = pattern(r"[A-Za-z]{1,32}")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The versions and commands that a server offers."""

    versions: tuple[ProtocolVersion, ...]
    """The versions that the relay knows, lowest first."""
    commands: frozenset[str]
    unknown: tuple[str, ...] = ()
    """Versions that the relay does not know, as the server spells them."""


@dataclass(frozen=True, slots=True)
class Options(Command[Capabilities]):
    """Ask what the server offers; the only request that is not a command."""

    name: ClassVar[str] = ""
    carries_policy_key: ClassVar[bool] = False

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- the request comes before the choice of a version
        """Return no bytes: OPTIONS has no body."""
        return b""

    def read(self, reply: HttpReply) -> Capabilities:
        """Read the two headers; each may come twice, joined by a comma [observed: Exchange Online, 2026].

        Raises ProtocolViolation when the answer names no versions: the URL is not that of an ActiveSync server.
        """
        offered = _words(reply, "ms-asprotocolversions")
        if offered is None:
            raise ProtocolViolation("not an ActiveSync server: OPTIONS was answered without MS-ASProtocolVersions")
        versions = sorted(KNOWN[word] for word in offered & KNOWN.keys())
        unknown = sorted(word for word in offered - KNOWN.keys() if VERSION.fullmatch(word))
        commands = _words(reply, "ms-asprotocolcommands") or frozenset()
        return Capabilities(tuple(versions), frozenset(filter(COMMAND.fullmatch, commands)), tuple(unknown))


def choose_version(capabilities: Capabilities, allowed: Container[ProtocolVersion]) -> ProtocolVersion:
    """Return the highest version that the server offers and the operator allows.

    Raises VersionRefused, naming the offered versions, when there is none.
    """
    for version in sorted(capabilities.versions, reverse=True):
        if version in allowed:
            return version
    offered = [*capabilities.unknown, *(version.wire for version in capabilities.versions)]
    raise VersionRefused(
        f"none of the server's protocol versions can be used; it offers {', '.join(offered) or 'none'}"
    )


def _words(reply: HttpReply, header: str) -> frozenset[str] | None:
    value = reply.headers.get(header)
    return None if value is None else frozenset(word.strip() for word in value.split(","))
