"""The outcomes of pushes: what a provider's answer means, and the line that a registration keeps of the last one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final, Self, TypeAlias

from eas_watcher.values import by_slots


class Reach(IntEnum):
    """How far a push came that was not delivered, and so what it shows of the way to the provider."""

    HERE = 0
    """It was not sent."""
    UNANSWERED = 1
    """The relay sent it, or tried to; the provider did not answer."""
    ANSWERED = 2
    """The provider answered this one push: it serves."""
    CHECKED = 3
    """The provider accepted the relay and checked the device token: the channel works."""


@by_slots
@dataclass(frozen=True, slots=True)
class Delivered:
    """The provider took the push."""

    provider_id: str = ""
    lowered: bool = False
    """Whether it was sent with less priority than its mode asks for, since its phone was woken often lately."""


@dataclass(frozen=True, slots=True)
class TokenGone:
    """The provider says that the app is gone from the device: the registration gets no more pushes."""

    reason: str
    gone_since: datetime | None = None
    """Since when, aware UTC (APNs 410 only). A device token registered later is still good."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Nothing is wrong with the push itself: try again, in `after` seconds if the provider named a time."""

    reason: str
    after: float | None = None
    remedy: str = ""
    """What an operator can do if it lasts; empty: only wait."""
    provider: bool = False
    """Whether it may concern the provider as a whole (out of reach, overloaded, silent) and not just this push. It does
    if the provider did not answer; an answer counts when those to several devices agree."""
    reach: Reach = Reach.UNANSWERED


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider does not take this push until an operator or an app changes something: keep it, retry rarely."""

    reason: str
    remedy: str
    channel: bool = False
    """Whether the fault lies with the whole channel (key, certificate, project) and not with this one token."""
    reach: Reach = Reach.ANSWERED
    one_host: bool = False
    """Whether the fault may lie with the one host that was asked, e.g. its certificate, and not with the way there."""
    passing: bool = False
    """Whether it may pass by itself, e.g. when the phone is on again: the device is tried more often than otherwise."""


Outcome: TypeAlias = Delivered | TokenGone | RetryLater | Refused


@dataclass(frozen=True, slots=True)
class Shadowed:
    """The push was due, and shadow mode held it back."""


PushEnd: TypeAlias = Outcome | Shadowed
"""How a push ended: by its provider's outcome, or held back."""


class OutcomeKind(StrEnum):
    """The kinds of outcomes, as counters and last outcomes name them."""

    DELIVERED = "delivered"
    TOKEN_GONE = "token-gone"
    RETRY_LATER = "retry-later"
    REFUSED = "refused"
    EXPIRED = "expired"
    """No push process delivered the push in time."""
    SHADOWED = "shadowed"
    """Nothing left: `push.mode` is shadow."""
    UNKNOWN = "unknown"
    """Written by a newer version of the relay."""

    @classmethod
    def of(cls, outcome: PushEnd) -> Self:
        """Return the kind of an outcome."""
        match outcome:
            case Delivered():
                return cls.DELIVERED
            case TokenGone():
                return cls.TOKEN_GONE
            case RetryLater():
                return cls.RETRY_LATER
            case Refused():
                return cls.REFUSED
            case Shadowed():  # pragma: no branch -- mypy proves that there is no other
                return cls.SHADOWED


_KINDS: Final = {kind.value: kind for kind in OutcomeKind}


@dataclass(frozen=True, slots=True)
class LastOutcome:
    """What became of the last push of a registration.

    The database, the API and `relay explain` have it as one line: the kind, and after a colon and a space the reason,
    if there is one. `read` and `line` are the only code that knows this form.
    """

    kind: OutcomeKind
    reason: str = ""
    """For people; of UNKNOWN the whole line."""

    @staticmethod
    def of(outcome: PushEnd) -> "LastOutcome":
        """Return what a registration keeps of an outcome."""
        if isinstance(outcome, Delivered):
            return DELIVERED
        return LastOutcome(OutcomeKind.of(outcome), "" if isinstance(outcome, Shadowed) else outcome.reason)

    @classmethod
    def expired(cls, before: Self | None, age: timedelta) -> Self:
        """Return what a registration keeps of a push that expired at this age, after the last outcome `before`."""
        if before is not None and before.kind is OutcomeKind.EXPIRED:
            return before
        history = "no push process took it" if before is None else f"before: {before.line}"
        return cls(OutcomeKind.EXPIRED, f"not delivered for {age.total_seconds() / 3600:g} h; {history}")

    @classmethod
    def read(cls, line: str) -> Self | None:
        """Return the outcome that a line stands for; None for an empty one: no push has had an outcome yet."""
        if not line:
            return None
        name, _, reason = line.partition(": ")
        kind = _KINDS.get(name, OutcomeKind.UNKNOWN)
        return cls(kind, line if kind is OutcomeKind.UNKNOWN else reason)

    @property
    def line(self) -> str:
        """The line that `read` reads."""
        if self.kind is OutcomeKind.UNKNOWN:
            return self.reason
        return f"{self.kind}: {self.reason}" if self.reason else self.kind.value


DELIVERED: Final = LastOutcome(OutcomeKind.DELIVERED)
"""What a registration keeps of nearly every push."""
