r"""Which spellings of a login mean one user of a mail server, so that nobody has two mailboxes with two Pings. Pure.

Directories of Windows, Domino and most others do not tell `Ann` from `ann`. Whether `ann`, `ann@example.com` and
`EXAMPLE\ann` are one user, only the operator knows. A login that is taken for another spelling is tried in the spelling
that the relay knows already: if it is another user after all, its password is refused there, and opens nothing.
"""

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accounts:
    """How one mail server names its users."""

    cased: bool = False
    """True if the server tells `Ann` from `ann`; then each spelling is a user of its own."""
    domains: frozenset[str] = frozenset()
    """Mail domains and Windows domains in which a name is one user, in lower case."""

    def key(self, user: str) -> str | None:
        """Return what all spellings of a user have in common; None if there is only one."""
        return None if self.cased else self._name(user)

    def keys(self, user: str) -> tuple[str, ...]:
        """Return the keys under which a user may be stored: by these settings, and by those that did not know them."""
        name = self.key(user)
        if name is None:
            return ()
        if "@" in name or "\\" in name:
            return (name,)
        forms = (form for domain in sorted(self.domains) for form in (f"{name}@{domain}", f"{domain}\\{name}"))
        return (name, *forms)

    def alike(self, one: str, other: str) -> bool:
        """Return True if two logins, each in its one spelling, mean one user."""
        return one == other or (not self.cased and self._name(one) == self._name(other))

    def _name(self, user: str) -> str:
        folded = unicodedata.normalize("NFC", user.casefold())
        domain, _, name = folded.rpartition("\\")
        if domain in self.domains:
            folded = name
        name, _, domain = folded.rpartition("@")
        return name if name and domain in self.domains else folded
