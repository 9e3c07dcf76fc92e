"""Who uses the console: the holder of an admin token, or a person whom a trusted proxy names. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relay.admin.tokens import AdminToken, Scope
from relay.http.addresses import Proxies

LONGEST: Final = 128  # characters of a name or a group; mail addresses and distinguished names of people are shorter
GROUP: Final = "group:"
"""What the name of a group begins with in the settings."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who uses the console, with what is open to them."""

    name: str
    """As the audit log shows it: the name of a token, or `proxy:` and the name that the proxy gave."""
    scopes: frozenset[Scope]
    proxied: bool = False
    """True if a proxy named the person."""

    @classmethod
    def of_token(cls, token: AdminToken) -> "Person":
        """Return the holder of a token."""
        return cls(token.name, token.scopes)


@dataclass(frozen=True, slots=True)
class TrustedProxy:
    """The reverse proxy that says who uses the console."""

    header: str
    groups_header: str | None
    peers: Proxies
    """The proxies whose headers are believed."""
    scopes: Mapping[Scope, frozenset[str]]
    """For each scope the names of persons, and of groups with `group:` before them."""

    def person(self, peer: str | None, names: Sequence[str], groups: Sequence[str]) -> Person | None:
        """Return the person of a request that came from `peer`, with these values of the two headers.

        None: no proxy sent it, or it names nobody, or several. A person without any scope may be returned.
        """
        if peer not in self.peers or len(names) != 1:
            return None
        name = names[0].strip()
        if not _is_name(name):
            return None
        listed = (part.strip() for value in groups for part in value.split(","))
        known = {name, *(f"{GROUP}{each}" for each in listed if _is_name(each))}
        if name.startswith(GROUP):
            return None  # such a person would be taken for a whole group
        return Person(f"proxy:{name}", frozenset(each for each in Scope if self._opens(each, known)), proxied=True)

    def _opens(self, scope: Scope, known: Collection[str]) -> bool:
        return not self.scopes.get(scope, frozenset()).isdisjoint(known)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST and text.isprintable()
