"""Own what a gateway's answer means: a value with one remedy each, matched exhaustively."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TypeAlias


class Reach(IntEnum):
    """Name how far a push came that was not taken: what its end proves of the way to its provider."""

    HERE = 0
    """It was not sent."""
    UNANSWERED = 1
    """It was sent, or tried to be; the provider said nothing to it."""
    ANSWERED = 2
    """The provider spoke of this one push: it serves."""
    JUDGED = 3
    """The provider knew us and looked at the device token: the channel works."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The provider took the push."""

    provider_id: str = ""
    lowered: bool = False
    """Whether it went with less priority than its mode asks for, since its phone was woken often enough of late."""


@dataclass(frozen=True, slots=True)
class TokenGone:
    """The provider says the app left the device: the registration is no longer pushed to."""

    reason: str
    gone_since: datetime | None = None
    """Since when, aware UTC (APNs 410 only). A token registered later is still good."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Nothing is wrong with the push itself: try again, after `after` seconds if the provider named a time."""

    reason: str
    after: float | None = None
    remedy: str = ""
    """What an operator can do if it lasts; empty when there is nothing to do but wait."""
    provider: bool = False
    """Whether it concerns the provider as a whole (out of reach, overloaded, silent) and not just this push."""
    reach: Reach = Reach.UNANSWERED


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will not take this push until somebody changes something: keep it, do not hammer, tell whom."""

    reason: str
    remedy: str
    channel: bool = False
    """Whether the fault lies with the whole channel (key, certificate, project) and not with this one token."""
    reach: Reach = Reach.ANSWERED


Outcome: TypeAlias = Delivered | TokenGone | RetryLater | Refused
