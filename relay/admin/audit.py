"""The audit log of administrative acts: who did what and when, and to whom, as a keyed hash; entries are a chain.

An entry's digest is keyed, so nobody who can write to the database alone adds, changes, moves or removes one unseen,
but the last ones: note the end of the chain elsewhere (`relay audit verify --acts` prints it). Pure.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from relay.domain.tries import account_key

START: Final = "0" * 64
"""What the first entry follows."""
SHORT: Final = 8
"""Hex digits that name a key."""


class What(StrEnum):
    """What an administrator did; the values stay the same for ever."""

    MAILBOX_RETRY = "mailbox.retry"
    MAILBOX_PAUSE = "mailbox.pause"
    MAILBOX_RESUME = "mailbox.resume"
    MAILBOX_FORGET = "mailbox.forget"
    MAILBOX_EXPORT = "mailbox.export"
    REGISTRATION_RETRY = "registration.retry"
    REGISTRATION_TEST = "registration.test-push"
    REGISTRATION_FORGET = "registration.forget"
    MAINTENANCE_ON = "maintenance.on"
    MAINTENANCE_OFF = "maintenance.off"
    WIPE_ALLOW = "wipe.allow"
    RESTORED = "database.restored"
    BACKED_UP = "database.backup"
    MOVED = "database.moved"
    CREDENTIALS_FORGET = "credentials.forget"
    KEY_NEW = "key.new"
    KEY_ROTATE = "key.rotate"
    KEY_RETIRE = "key.retire"


@dataclass(frozen=True, slots=True)
class AuditKey:
    """A key of the audit log: it chains entries, and hashes users."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """What an entry names the key by; it tells nothing of the key."""
        return hashlib.sha256(b"audit key " + self.secret).hexdigest()[:SHORT]

    def subject(self, user: str) -> str:
        """Return the keyed hash of a user, the same for all spellings that a directory may take for one account."""
        return self._hash(b"user", account_key(user).encode())[:32]

    def chain(self, text: bytes) -> str:
        """Return the keyed digest of an entry's text."""
        return self._hash(b"act", text)

    def _hash(self, purpose: bytes, text: bytes) -> str:
        return hmac.new(self.secret, purpose + b"\0" + text, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who acts, how, when, and the keys of the log, the newest first."""

    who: str
    """A user of the operating system, the name of an admin token, or `proxy:` and a person whom a proxy names."""
    via: str
    """`cli`, `api` or `console`."""
    at: datetime
    keys: tuple[AuditKey, ...] = field(repr=False)

    @property
    def key(self) -> AuditKey:
        """The key that new entries are chained with."""
        return self.keys[0]

    def subjects(self, user: str) -> frozenset[str]:
        """Return the hashes of a user under all keys, to find the entries about the user."""
        return frozenset(key.subject(user) for key in self.keys)


@dataclass(frozen=True, slots=True)
class Act:
    """One entry of the audit log."""

    number: int
    at: datetime
    who: str
    via: str
    what: str
    server: str
    subject: str
    """The keyed hash of the user; empty: the act concerned no single user."""
    detail: str
    key: str
    digest: str = ""

    def chained(self, before: str, key: AuditKey) -> "Act":
        """Return the entry with its digest, after an entry with the digest `before`."""
        return replace(self, digest=key.chain(self._text(before)))

    def is_chained(self, before: str, key: AuditKey) -> bool:
        """Return True if the entry's digest is right, after an entry with the digest `before`."""
        return hmac.compare_digest(key.chain(self._text(before)), self.digest)

    def _text(self, before: str) -> bytes:
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        who = (self.who, self.via, self.what, self.server, self.subject, self.detail, self.key)
        return json.dumps([self.number, at, *who, before]).encode()


def new_act(
    stamp: Stamp, what: What, last: tuple[int, str], *, server: str = "", user: str | None = None, detail: str = ""
) -> Act:
    """Return the entry of an act, after the number and digest of the last entry."""
    number, before = last
    subject = "" if user is None else stamp.key.subject(user)
    key = stamp.key
    return Act(number + 1, stamp.at, stamp.who, stamp.via, what.value, server, subject, detail, key.id).chained(
        before, key
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at the whole audit log found."""

    entries: int
    end: str
    """The digest of the last entry: who notes it elsewhere sees later whether entries before it are gone."""
    faults: tuple[str, ...] = ()


def verify(acts: Iterable[Act], keys: Mapping[str, AuditKey]) -> Verdict:
    """Check a whole log, in the order of its numbers; `keys` by their ids."""
    faults: list[str] = []
    number, before = 0, START
    for act in acts:
        if act.number != number + 1:
            faults.append(f"entry {act.number}: follows {number}, so entries in between are gone")
        key = keys.get(act.key)
        if key is None:
            faults.append(f"entry {act.number}: its key {act.key} is not here, so it cannot be checked")
        elif not act.is_chained(before, key):
            faults.append(f"entry {act.number}: it, or the one before it, was changed")
        number, before = act.number, act.digest
    return Verdict(number, before, tuple(faults))
