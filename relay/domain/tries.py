"""How many credentials of one account may be shown to its mail server before its directory could lock the user out.

Directories count failed logins of an account, and forget them when none came for some minutes [Microsoft: "Reset
account lockout counter after"]. The relay counts the same way, before it shows a credential. Pure.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Final

LIMIT: Final = 3
"""Tries of one account in one window; fewer than the thresholds at which directories lock."""
KEPT: Final = 1
"""Of them for credentials that came with the secret of an active registration, so that no stranger blocks a user."""
SHARE: Final = 4
"""One part in so many of a server's budget is kept for such credentials, too."""
SOON: Final = 10.0
"""Seconds to wait while candidates that wait fill the limit."""
LONGEST_CHAIN: Final = LIMIT
"""Windows after which a row of any account is stale: each try may come at the very end of the window before."""

_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
"""Letters without a glyph; NFKD leaves the first two."""
_LIGATURES: Final = MappingProxyType({"æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "\u0131": "i"})
"""Letters that Windows compares as others and NFKD does not take apart."""
_KATAKANA: Final = range(0x30A1, 0x30F7)
_TO_HIRAGANA: Final = 0x60


@dataclass(frozen=True, slots=True)
class TryLimits:
    """What one server's directory bears."""

    window: timedelta = timedelta(minutes=30)
    """A directory forgets failed logins of an account when none came for so long."""
    refusals: int = 100
    """Refused candidates of all accounts within a window."""
    directory: str = ""
    """The name of a directory that several servers have; empty: the server's is its own."""

    def place(self, server: str) -> str:
        """Return where the tries of a server are counted: by its directory, which counts for all of them."""
        return self.directory or server

    def since(self, now: datetime) -> datetime:
        """Return the moment after which a try still counts."""
        return now - self.window

    def stale(self, now: datetime) -> datetime:
        """Return the moment before which no try counts any more, whatever followed it."""
        return now - LONGEST_CHAIN * self.window


DEFAULT: Final = TryLimits()
"""For a server that the settings do not name any more."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why no try is left, and for how long."""

    seconds: float
    of_server: bool = False
    """True if the budget of the whole server is used up, and not the tries of one account."""


class Withdrawn(Enum):
    """Why a candidate is not to be shown, though a try is left."""

    CANDIDATE = "candidate"
    """It has its result, or another one took its place, or its registration is gone."""


@dataclass(frozen=True, slots=True)
class Tries:
    """The tries of one account that its directory may still count."""

    spent: int = 0
    last_at: datetime | None = None
    """None: there is none."""

    def present(self, limits: TryLimits, now: datetime) -> "Tries":
        """Return the tries that count now: all of them, or none if the last one is a window ago.

        A try more than a window ahead was noted while a clock was wrong, and does not count.
        """
        if self.last_at is None or abs(now - self.last_at) >= limits.window:
            return Tries()
        return self

    def wait(self, limits: TryLimits, now: datetime, *, owner: bool, others: int = 0) -> Wait | None:
        """Return how long another try must wait; None: it may be made now.

        `owner`: the credential came with the secret of an active registration. `others` is how many credentials wait
        for a try of their own.
        """
        present = self.present(limits, now)
        if present.spent + others < allowed(owner=owner):
            return None
        return Wait(_left(present.last_at, limits, now))


@dataclass(frozen=True, slots=True)
class Load:
    """What is known of an account before another credential of it is taken."""

    tries: Tries = Tries()
    waiting: int = 0
    """Candidates that wait for a try."""

    def wait(self, limits: TryLimits, now: datetime, *, owner: bool) -> float | None:
        """Return how many seconds an app must wait before it sends a credential; None: it may send it now.

        What strangers sent before does not stop the owner of an active registration, who replaces what waits of it.
        """
        found = self.tries.wait(limits, now, owner=owner, others=0 if owner else self.waiting)
        return None if found is None else found.seconds


@dataclass(frozen=True, slots=True)
class Budget:
    """The refused candidates of one server within its window."""

    strangers: int = 0
    owners: int = 0
    first_at: datetime | None = None
    """When the oldest of them was tried; None: there is none."""

    def wait(self, limits: TryLimits, now: datetime, *, owner: bool) -> Wait | None:
        """Return how long another candidate must wait; None: it may be shown now."""
        spent, most = (self.strangers + self.owners, limits.refusals) if owner else (self.strangers, share(limits))
        return None if spent < most else Wait(_left(self.first_at, limits, now), of_server=True)


def share_directories(limits: Mapping[str, TryLimits]) -> Mapping[str, TryLimits]:
    """Return what each server bears, by name; those of one directory bear what the strictest of them does."""
    groups: dict[str, list[TryLimits]] = {}
    for server, own in limits.items():
        groups.setdefault(own.place(server), []).append(own)
    return {
        server: replace(
            own,
            window=max(other.window for other in groups[own.place(server)]),
            refusals=min(other.refusals for other in groups[own.place(server)]),
        )
        for server, own in limits.items()
    }


def servers_alike(limits: Mapping[str, TryLimits], server: str) -> frozenset[str]:
    """Return the names of all servers that have the accounts of one: its own, and those of its directory."""
    place = limits.get(server, DEFAULT).place(server)
    return frozenset({server, *(name for name, own in limits.items() if own.place(name) == place)})


def allowed(*, owner: bool) -> int:
    """Return how many tries of an account may be spent in a window, by its owner or by anybody."""
    return LIMIT if owner else LIMIT - KEPT


def share(limits: TryLimits) -> int:
    """Return how many refused candidates of strangers a server bears in a window."""
    return max(1, limits.refusals - limits.refusals // SHARE)


def account_key(user: str) -> str:
    r"""Return one key for all spellings that a directory may take for one account.

    Case, accents, width, kana type and invisible characters do not count, as in Active Directory, nor do the Windows
    domain (`EXAMPLE\ann`, `EXAMPLE/ann`), the suffix of an address or UPN (`ann@example.com`), the organisation of a
    Domino name (`Ann Lee/Example`) and a tag (`ann+phone`). Two users whose keys are the same share their tries: at
    worst one of them waits.
    """
    text = _fold(user)
    name = text.rpartition("\\")[2]
    person, slash, _ = name.partition("/")
    if slash:
        name = person if " " in person.strip() else name.rpartition("/")[2]
    for mark in "@+":
        name = name.partition(mark)[0].strip() or name
    return name.strip() or text


def _fold(user: str) -> str:
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", user).casefold())
    return "".join(_letter(character) for character in text if not _invisible(character)).strip()


def _invisible(character: str) -> bool:
    return unicodedata.category(character)[0] in "MC" or character in _FILLERS


def _letter(character: str) -> str:
    """Return a letter as Windows compares it: without a stroke or a hook, hiragana for katakana."""
    if character.isascii():
        return character
    if ord(character) in _KATAKANA:
        return chr(ord(character) - _TO_HIRAGANA)
    if character in _LIGATURES:
        return _LIGATURES[character]
    letter, _, addition = unicodedata.name(character, "").partition(" WITH ")
    plain = letter.removeprefix("LATIN SMALL LETTER ")
    return plain.lower() if addition and len(plain) == 1 else character


def _left(since: datetime | None, limits: TryLimits, now: datetime) -> float:
    """Return the seconds until a window after a moment is over; SOON if there is none, since only others wait."""
    if since is None:
        return SOON
    return min(limits.window.total_seconds(), max(1.0, (since + limits.window - now).total_seconds()))
