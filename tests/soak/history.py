"""The history of a long run: which mails came and which pushes arrived; and the judge of what was lost or repeated."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that came to a mailbox; `at` is in nanoseconds, before it was delivered."""

    mailbox: str
    at: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """A push that the provider accepted for a mailbox's only phone, and how many new mails it reports."""

    mailbox: str
    at: int
    count: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a history shows."""

    lost: frozenset[str]
    """Mailboxes whose last mail no push followed, or that got a push for none of their mails."""
    repeated: int
    """Mails that were reported more than once."""
    mails: int


def judge(mails: Iterable[Mail], pushes: Iterable[Arrived]) -> Judgement:
    """Judge a history.

    A push reports all mails of a mailbox so far that none reported yet, so a mail is lost if no push follows it: one
    that follows a later mail is for both. Each mail is counted once, so what is counted beyond the mails was repeated.
    """
    came: dict[str, list[int]] = defaultdict(list)
    told: dict[str, list[Arrived]] = defaultdict(list)
    for mail in mails:
        came[mail.mailbox].append(mail.at)
    for push in pushes:
        told[push.mailbox].append(push)
    lost = {name for name, moments in came.items() if max((p.at for p in told[name]), default=-1) < max(moments)}
    repeated = sum(max(0, _counted(arrived) - len(came[name])) for name, arrived in told.items())
    return Judgement(frozenset(lost), repeated, sum(map(len, came.values())))


def _counted(pushes: Sequence[Arrived]) -> int:
    return sum(push.count for push in pushes)


def without_the_end(pushes: Iterable[Arrived], mailbox: str, since: int) -> list[Arrived]:
    """Return pushes without those to a mailbox from a moment on: a history in which its last mail was lost."""
    return [push for push in pushes if push.mailbox != mailbox or push.at < since]
