"""The canary: a mail that the relay sends to a mailbox of its own, and what becomes of it until it is shown. Pure.

One mail is under way at a time. Its moments are those of the database's clock, whichever role noted them.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, NamedTuple

from relay.domain.model import Platform, RegistrationView
from relay.domain.users import Accounts

SERVICE: Final = "device.canary.invalid"
"""The push service of the relay's own device, which is no host and never becomes one [RFC 6761 6.4]."""
APP: Final = "push-relay-canary"
"""The app of that device."""
WINDOW: Final = timedelta(days=1)
"""The mails of the last day say whether the goal is kept."""
FEWEST: Final = 4
"""Mails that are enough to say so."""
RETRY: Final = timedelta(minutes=10)
"""After a refused password the relay waits so long before it shows one that was written since."""


RECORDED: Final = 5.0
"""Seconds after a device showed a push until which it is recorded that the provider took it: outcomes are grouped."""
NOT_REGISTERED: Final = "not-registered"
"""Why the mailbox is not watched if nobody knows better."""


class Stage(StrEnum):
    """How far a mail has come; the seconds of each count from its sending."""

    NOTICED = "noticed"
    """The relay saw the change of the mailbox."""
    ACCEPTED = "accepted"
    """The provider took the push."""
    SHOWN = "shown"
    """The device showed the push."""


class Result(StrEnum):
    """What became of a mail."""

    SHOWN = "shown"
    LATE = "late"
    """It was shown by all devices that must, after the goal."""
    NOT_SENT = "not-sent"
    """The mail server did not take it."""
    NOT_WATCHED = "not-watched"
    """It was not sent, since its mailbox is not registered, or the watch of it does not run."""
    NOT_NOTICED = "not-noticed"
    """It did not reach the mailbox, or the watch saw nothing of it."""
    NOT_ACCEPTED = "not-accepted"
    NOT_SHOWN = "not-shown"


class Turn(StrEnum):
    """Whose turn it is to send a mail."""

    NOW = "now"
    """This process's, now."""
    LATER = "later"
    """This process's, once the interval is over."""
    ANOTHERS = "another's"


@dataclass(frozen=True, slots=True)
class Goal:
    """What the operator wants of the whole way."""

    platforms: frozenset[Platform]
    """Whose devices must show each push; WEBPUSH is the relay's own."""
    seconds: float = 60.0
    share: float = 0.95
    """The part of all mails that must be shown in time."""
    interval: float = 300.0
    """Seconds between two mails, and until one that was not shown counts as lost."""


@dataclass(frozen=True, slots=True)
class CanaryMailbox:
    """The mailbox of the canary, as the settings name it."""

    server: str
    user: str
    accounts: Accounts
    """Which logins mean the user."""
    password: str | None = field(default=None, repr=False)
    """None: the relay has no device of its own there; phones register the mailbox."""
    written_at: datetime | None = None
    """When the password was written."""

    def owns(self, view: RegistrationView) -> bool:
        """Return True if a registration is one of this mailbox."""
        return view.mailbox.server == self.server and self.accounts.alike(view.mailbox.user, self.user)


@dataclass(frozen=True, slots=True)
class Submission:
    """Where and as whom a mail is handed over [RFC 6409]."""

    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    """STARTTLS, TLS from the first byte on, or none, which is for a server on this host alone."""
    sender: str
    recipient: str
    ca_file: Path | None = None
    user: str = ""
    """Empty: the server takes the mail without a login."""
    password: str = field(default="", repr=False)


class Shown(NamedTuple):
    """A push that a device of the canary's mailbox showed."""

    noticed_at: datetime
    shown_at: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database knows of the canary's mailbox and the mail that is under way."""

    watched: bool = True
    """Whether its mailbox is watched."""
    why: str = ""
    """Why it is not: a reason of its watch, or why it is not registered."""
    changed_at: datetime | None = None
    """The last change that the watch saw."""
    accepted: Mapping[Platform, datetime] = field(default_factory=dict)
    """The last push that each provider took."""
    shown: Mapping[Platform, Shown] = field(default_factory=dict)
    """The first push for a change since the mail was sent that a device showed."""


class Judgement(NamedTuple):
    """What became of a mail, and the seconds until each stage; the platform is None where there is none yet."""

    result: Result
    stages: Mapping[tuple[Stage, Platform | None], float]


def judge(sent_at: datetime, reading: Reading, now: datetime, goal: Goal) -> Judgement | None:
    """Return what became of a mail; None: it is still under way."""
    stages = _stages(sent_at, reading)
    shown = {platform: seconds for (stage, platform), seconds in stages.items() if stage is Stage.SHOWN}
    if goal.platforms <= shown.keys():
        taken = all((Stage.ACCEPTED, platform) in stages for platform in goal.platforms)
        if not taken and (now - sent_at).total_seconds() < max(shown.values()) + RECORDED:
            return None
        late = any(shown[platform] > goal.seconds for platform in goal.platforms)
        return Judgement(Result.LATE if late else Result.SHOWN, stages)
    if (now - sent_at).total_seconds() < goal.interval:
        return None
    missing = goal.platforms - shown.keys()
    if (Stage.NOTICED, None) not in stages:
        return Judgement(Result.NOT_NOTICED, stages)
    taken = all((Stage.ACCEPTED, platform) in stages for platform in missing)
    return Judgement(Result.NOT_SHOWN if taken else Result.NOT_ACCEPTED, stages)


def _stages(sent_at: datetime, reading: Reading) -> dict[tuple[Stage, Platform | None], float]:
    noticed = [each.noticed_at for each in reading.shown.values()]
    moments: dict[tuple[Stage, Platform | None], datetime] = {}
    if noticed or reading.changed_at is not None:
        moments[Stage.NOTICED, None] = min(noticed, default=reading.changed_at or sent_at)
    moments |= {(Stage.ACCEPTED, platform): at for platform, at in reading.accepted.items()}
    moments |= {(Stage.SHOWN, platform): each.shown_at for platform, each in reading.shown.items()}
    return {key: (at - sent_at).total_seconds() for key, at in moments.items() if at >= sent_at}


def may_show(written_at: datetime, refused_at: datetime | None, now: datetime) -> bool:
    """Return True if a password may be shown to its server: it was not refused, or was written since then.

    A moment ahead was noted while a clock was wrong: a refusal that is ahead holds nothing back, and a password that
    is ahead waits, or it would be shown again and again.
    """
    if refused_at is None or refused_at > now:
        return True
    return refused_at < written_at <= now and now >= refused_at + RETRY


def _ignore(stage: Stage, platform: Platform | None, seconds: float) -> None:
    """Do nothing with a measurement."""


class CanaryLog:
    """What became of the mails that this process sent, for metrics and health."""

    def __init__(self) -> None:
        self.results: Counter[Result] = Counter()
        self.last_shown_at: datetime | None = None
        """When a mail was last shown in time or late; None: not since the start of the process."""
        self.last: Result | None = None
        self.why = ""
        """Why the last mail was not sent, or none is."""
        self.lost = 0
        """Mails in a row that were not shown."""
        self.on_stage: Callable[[Stage, Platform | None, float], None] = _ignore
        """Called with the seconds until each stage that a mail came to."""
        self._in_time: deque[tuple[datetime, bool]] = deque()

    def note(self, judgement: Judgement, now: datetime, why: str = "") -> None:
        """Add what became of a mail."""
        self.results[judgement.result] += 1
        self.last, self.why = judgement.result, why
        self.lost += 1
        if judgement.result in {Result.SHOWN, Result.LATE}:
            self.last_shown_at, self.lost = now, 0
        self._in_time.append((now, judgement.result is Result.SHOWN))
        for (stage, platform), seconds in judgement.stages.items():
            self.on_stage(stage, platform, seconds)

    def hold(self, result: Result, why: str) -> None:
        """Note that no mail is sent, and why."""
        self.last, self.why = result, why

    def pass_on(self) -> None:
        """Forget what says how the canary is now: another process sends its mails."""
        self.last, self.why, self.lost = None, "", 0
        self._in_time.clear()

    def share(self, now: datetime) -> float | None:
        """Return the part of the mails of the last day that were shown in time; None: too few to say."""
        while self._in_time and abs(now - self._in_time[0][0]) > WINDOW:
            self._in_time.popleft()
        if len(self._in_time) < FEWEST:
            return None
        return sum(in_time for _, in_time in self._in_time) / len(self._in_time)
