"""Receipts: an app says that it showed a push, by the id that the push has. Pure.

The id itself says which change the push reports, so the relay keeps no list of pushes: nothing is written for a push
that an app may acknowledge, and little for a receipt. Providers read nothing in it, least of all when the mail came:
`push.jitter_seconds` hides that from them.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

from eas_watcher.names import MailboxId
from relay.domain.model import Mark, Registration, RegistrationId

LONGEST: Final = 64
"""Characters of an id, with room for those of later versions."""
MOST: Final = 50
"""Receipts of one request."""
OLDEST: Final = timedelta(days=8)
"""A receipt for a push older than this is ignored; a provider keeps none as long."""
SLACK: Final = timedelta(seconds=5)
"""By how much a phone may be wrong about when it showed a push, and the moments of two processes may differ."""
A_SEALED_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
"""What the id of a push looks like: 16 bytes in base64url."""

_NUMBERS: Final = {
    Mark.EMAIL: 1,
    Mark.CALENDAR: 2,
    Mark.CONTACTS: 3,
    Mark.TASKS: 4,
    Mark.NOTES: 5,
    Mark.ATTENTION: 6,
    Mark.TEST: 7,
}
"""How an id names its mark; the app answers a challenge by its nonce. A number is never used for another mark."""
_MARKS: Final = {number: mark for mark, number in _NUMBERS.items()}
_TAG: Final = 6  # bytes: enough that no two pushes of a registration have one
_SINCE: Final = 6  # bytes: milliseconds until the year 10889
_GENERATION: Final = 3  # bytes
_INSIDE: Final = 1 + _SINCE + _GENERATION
_LENGTH: Final = 22  # characters of 16 bytes in base64 without its padding
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY: Final = 86_400  # seconds


class PushId(NamedTuple):
    """What distinguishes a push from all others of its registration; it has nothing of the item."""

    mark: Mark
    since: int
    """When the relay noticed the first change that the push reports, in milliseconds since 1970."""
    generation: int
    """The last three bytes of the mark's generation."""

    @classmethod
    def of(cls, mark: Mark, first_at: datetime, generation: int) -> "PushId":
        """Return the id of the push of a mark; a repetition of the push has the same."""
        since = first_at - _EPOCH
        milliseconds = (since.days * _DAY + since.seconds) * 1000 + since.microseconds // 1000
        return cls(mark, milliseconds, generation % 256**_GENERATION)

    @property
    def noticed_at(self) -> datetime:
        """When the relay noticed the first change that the push reports."""
        return _EPOCH + self.since * _MILLISECOND

    @property
    def text(self) -> str:
        """The id for the timeline, e.g. "email-1764403200000-1"."""
        return f"{self.mark.value}-{self.since}-{self.generation}"

    def seal(self, mailbox: MailboxId, registration: RegistrationId) -> str:
        """Return the id as the push has it: the same each time, and opaque without the id of the mailbox.

        That is random, known to every role, and never leaves the company. The tag is a keyed digest of what is inside,
        and what is inside is hidden by a keyed digest of the tag [RFC 5297 has this construction with AES].
        """
        number = (_NUMBERS[self.mark] << 8 * _SINCE | self.since) << 8 * _GENERATION | self.generation
        inside = number.to_bytes(_INSIDE, "big")
        tag = _digest(mailbox, registration, b"push id tag", inside, _TAG)
        hidden = number ^ int.from_bytes(_digest(mailbox, registration, b"push id inside", tag, _INSIDE), "big")
        return urlsafe_b64encode(tag + hidden.to_bytes(_INSIDE, "big"))[:_LENGTH].decode("ascii")

    @classmethod
    def open(cls, text: str, mailbox: MailboxId, registration: RegistrationId) -> "PushId | None":
        """Return what a sealed id says; None for one that no push of this registration has."""
        if A_SEALED_ID.fullmatch(text) is None:
            return None
        sealed = urlsafe_b64decode(f"{text}==")
        tag, hidden = sealed[:_TAG], sealed[_TAG:]
        number = int.from_bytes(hidden, "big")
        number ^= int.from_bytes(_digest(mailbox, registration, b"push id inside", tag, _INSIDE), "big")
        inside = number.to_bytes(_INSIDE, "big")
        if not compare_digest(tag, _digest(mailbox, registration, b"push id tag", inside, _TAG)):
            return None
        mark, since = _MARKS.get(inside[0]), int.from_bytes(inside[1 : 1 + _SINCE], "big")
        return None if mark is None else cls(mark, since, int.from_bytes(inside[1 + _SINCE :], "big"))


_TEXT: Final = re.compile(r"[a-z]+-([0-9]{1,15})-[0-9]+", re.ASCII)


def read_noticed_at(text: str) -> datetime | None:
    """Return the moment in the text of an id, as the timeline has it; None if it has none."""
    found = _TEXT.fullmatch(text)
    return None if found is None else _EPOCH + int(found[1]) * _MILLISECOND


def _digest(mailbox: MailboxId, registration: RegistrationId, purpose: bytes, data: bytes, size: int) -> bytes:
    return blake2b(registration.encode() + data, key=mailbox.encode(), digest_size=size, person=purpose).digest()


class Receipt(NamedTuple):
    """A push that an app showed, and when."""

    push: PushId
    shown_at: datetime

    @property
    def waited(self) -> float:
        """Seconds from the change until the push was shown."""
        return (self.shown_at - self.push.noticed_at).total_seconds()


def read_receipts(sent: Iterable[tuple[str, float]], own: Registration, now: datetime) -> list[Receipt]:
    """Return the receipts of a registration that can be true, of sealed ids with the seconds since the push was shown.

    Ids that it has not been sent are left out, and those of pushes that are older than OLDEST or the registration, or
    would have been shown before their change. The seconds are the phone's; its clock does not matter.
    """
    found = []
    for text, seconds in sent:
        push = PushId.open(text, own.mailbox_id, own.id)
        if push is None:
            continue
        noticed_at, shown_at = push.noticed_at, now - timedelta(seconds=seconds)
        possible = max(own.created_at, now - OLDEST) - SLACK <= noticed_at <= now + SLACK
        if possible and shown_at >= noticed_at - SLACK:
            found.append(Receipt(push, max(shown_at, noticed_at)))
    return found
