r"""The mailbox that a registration means: that of the login user, on one configured server.

A mailbox is (server name, login user): a user's password gives access to that user's mailbox and to no other, whatever
address the app sends. Two spellings of one user would be two mailboxes, so the relay normalises a user first: it strips
white space, composes the text (NFC), and writes the domain (`ann@DOMAIN`, `DOMAIN\ann`) in lower case, because no
domain has case. The name itself keeps its case: some servers have both `Ann` and `ann`.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from eas_watcher.autodiscover.search import may_discover
from relay.domain.model import AUTODISCOVER
from relay.registration.errors import UnknownServer

LONGEST: Final = 320  # characters: 64 before the @, 255 after it [RFC 5321 4.5.3.1]
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def normalise(user: str) -> str:
    """Return an address or user name in its one spelling; raise ValueError, whose text never has the name."""
    user = unicodedata.normalize("NFC", user).strip()
    if not user or len(user) > LONGEST:
        raise ValueError(f"must have 1 to {LONGEST} characters")
    if any(unicodedata.category(character) in _INVISIBLE for character in user):
        raise ValueError("must not have control characters or invisible ones")
    if ":" in user:
        raise ValueError("must not have a colon [RFC 7617 2]")
    windows_domain, backslash, name = user.rpartition("\\")
    local, at, domain = name.rpartition("@")
    user = windows_domain.lower() + backslash + local + at + (domain.lower() if at else domain)
    return unicodedata.normalize("NFC", user)


class ServerDirectory:
    """Finds the configured server of a mailbox."""

    def __init__(self, servers: Mapping[str, Sequence[str]], discovered: frozenset[str] = frozenset()) -> None:
        """Set up with the configured server names, the mail domains of each, and the hosts of Autodiscover."""
        self._names = frozenset(servers)
        self._discovered = discovered
        self._by_domain = {domain.lower(): name for name, domains in servers.items() for domain in domains}

    def find(self, name: str | None, mailbox: str, user: str | None = None) -> str:
        """Return the name of a server: the given name, else by the address's domain, else the only configured one.

        A domain whose servers Autodiscover finds comes before the only configured server; then the login `user` (None:
        the address) must be an address of such a domain too, because the search is for the login user. Raises
        UnknownServer.
        """
        if name is not None:
            if name not in self._names:
                raise UnknownServer("no server of this name is configured", "server")
            return name
        found = self._by_domain.get(mailbox.rpartition("@")[2].lower()) if "@" in mailbox else None
        if found is not None:
            return found
        if may_discover(mailbox, self._discovered) and may_discover(user or mailbox, self._discovered):
            return AUTODISCOVER
        if len(self._names) == 1:
            return next(iter(self._names))
        raise UnknownServer("no configured server serves the domain of this mailbox; name one in `server`", "mailbox")
