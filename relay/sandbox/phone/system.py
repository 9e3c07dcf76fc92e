"""What a phone shows after which pushes at which times: provider, power saving, budgets and banners, without I/O.

Times are seconds of the phone's own clock. The rules are those that Apple and Google document; where they name no
number (they promise none), the number here is said to be ours.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from relay.domain.model import Mode, Platform
from relay.sandbox.phone.push import Push

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
BACKGROUND: Final = 3
"""Background pushes an hour; Apple asks for no more than two or three, and may throttle more [Apple: Pushing
background updates to your App]. That the rest comes once the hour has room again is ours."""
WINDOW: Final = HOUR
"""Seconds between two maintenance windows of Doze; ours: Android makes them rarer the longer it dozes
[Android: Optimize for Doze and App Standby]."""
FCM_KEYS: Final = 4
"""Collapse keys of which FCM keeps a message for a phone [Google: Non-collapsible and collapsible messages]."""
FCM_MOST: Final = 100
"""Messages without a collapse key that FCM keeps; one more, and all are discarded [ibid.]."""


class Bucket(StrEnum):
    """The App Standby Bucket of an Android app [Android: Power management restrictions]."""

    ACTIVE = "active"
    FREQUENT = "frequent"
    RARE = "rare"


HIGH: Final = {Bucket.FREQUENT: 10, Bucket.RARE: 5}
"""Messages of high priority a day, up to Android 12; more are treated as of normal priority [ibid.]. Later versions
lower those of apps that show nothing for them, and name no number."""


class What(StrEnum):
    """What happened."""

    BANNER = "banner"
    """The user sees a new banner, with a sound."""
    REPLACED = "replaced"
    """A banner stands in place of an older one."""
    WOKE = "woke"
    """The app runs in the background, and the user sees nothing."""
    HELD = "held"
    """The push waits; `why` says for what."""
    SUPERSEDED = "superseded"
    """A waiting push was replaced by a newer one, and never arrives."""
    EXPIRED = "expired"
    """A waiting push ran out, and never arrives."""
    DISCARDED = "discarded"
    """The provider gave up a waiting push since it had too many."""
    FOREIGN = "foreign"
    """A push for a registration that the app does not have: it shows nothing."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a push."""

    at: float
    what: What
    push: Push
    why: str = ""


@dataclass(frozen=True, slots=True)
class Banner:
    """What stands on the screen."""

    tag: str
    title: str
    body: str


class Budget:
    """At most so many uses in a sliding window of time."""

    def __init__(self, limit: int, window: float) -> None:
        """Set up unused."""
        self._limit = limit
        self._window = window
        self._used: deque[float] = deque(maxlen=limit)

    def free_at(self, now: float) -> float:
        """Return when there is room: `now`, or later."""
        if len(self._used) < self._limit:
            return now
        return max(now, self._used[0] + self._window)

    def use(self, now: float) -> None:
        """Count one use."""
        self._used.append(now)


@dataclass(slots=True)
class Waiting:
    """A push that the provider or the system keeps."""

    push: Push
    expires: float


@dataclass(slots=True)
class Phone:
    """One phone with one app; call its methods with times that never go back."""

    platform: Platform
    registration: str = ""
    """The registration that the app has; empty: none, e.g. after a logout."""
    mode: Mode = Mode.ALERT
    bucket: Bucket = Bucket.ACTIVE
    keeps_one: bool = False
    """Whether APNs keeps only the newest push of the app for a phone that is off, which is all that Apple's archived
    guide promises [Apple: Local and Remote Notification Programming Guide, Quality of Service]; else the newest of each
    collapse id."""
    on: bool = True
    dozing: bool = False
    missed: bool = False
    """Whether FCM discarded all messages, so that the app gets onDeletedMessages and syncs."""
    now: float = 0.0
    waiting: list[Waiting] = field(default_factory=list)
    banners: dict[str, Banner] = field(default_factory=dict)
    background: Budget = field(default_factory=lambda: Budget(BACKGROUND, HOUR))
    window: float = 0.0
    """The next maintenance window while it dozes."""
    high: dict[Bucket, Budget] = field(
        default_factory=lambda: {bucket: Budget(limit, DAY) for bucket, limit in HIGH.items()}
    )

    def receive(self, push: Push, at: float) -> list[Happening]:
        """Take a push that the provider accepted."""
        happened = self.advance(at)
        older = [each for each in self.waiting if self._replaces(push, each.push)]
        happened += self._drop(older, What.SUPERSEDED)
        waiting = Waiting(push, at + push.lifetime)
        self.waiting.append(waiting)
        happened += self.advance(at, arrived=waiting)
        if waiting in self.waiting:
            happened.append(Happening(at, What.HELD, push, self._obstacle(push)))
            happened += self._make_room()
        return happened

    def advance(self, at: float, arrived: Waiting | None = None) -> list[Happening]:
        """Let time pass until `at`; `arrived` came just now, so that a phone in reach gets it whatever its lifetime."""
        happened: list[Happening] = []
        while due := [(self._when(each.push), order, each) for order, each in enumerate(self.waiting)]:
            when, _, first = min(due, key=lambda entry: entry[:2])
            if when > at:
                break
            self.now = when
            if first.expires <= when and first is not arrived:
                happened += self._drop([first], What.EXPIRED)
            else:
                self.waiting.remove(first)
                happened.append(self._deliver(first.push))
        self.now = at
        while self.dozing and self.window <= at:
            self.window += WINDOW
        expired = [each for each in self.waiting if each.expires <= at]
        return happened + self._drop(expired, What.EXPIRED)

    def turn_off(self, at: float) -> list[Happening]:
        """Turn the phone off, or take it out of the network."""
        happened = self.advance(at)
        self.on = False
        return happened

    def turn_on(self, at: float) -> list[Happening]:
        """Turn the phone on: the provider delivers what it kept."""
        happened = self.advance(at)
        self.on = True
        return happened + self.advance(at)

    def doze(self, at: float) -> list[Happening]:
        """Lie still, unplugged, with the screen off: Android dozes."""
        happened = self.advance(at)
        self.dozing, self.window = True, at + WINDOW
        return happened

    def wake(self, at: float) -> list[Happening]:
        """Be picked up: Doze ends, and what waited arrives."""
        happened = self.advance(at)
        self.dozing = False
        return happened + self.advance(at)

    def open_app(self, at: float) -> list[Happening]:
        """Let the user open the app: what waited arrives, and the app takes its banners away."""
        happened = self.wake(at)
        self.banners.clear()
        self.missed = False
        return happened

    def forget(self, at: float) -> None:
        """Remove the app: its banners go, and nothing that waits for its device token arrives."""
        self.now = at
        self.waiting.clear()
        self.banners.clear()

    def _replaces(self, push: Push, older: Push) -> bool:
        if self.keeps_one and self.platform is Platform.APNS and not self.on:
            return True
        return push.collapse is not None and push.collapse == older.collapse

    def _when(self, push: Push) -> float:
        """Return the earliest time from now on at which the phone gets a push; inf: not before it is turned on."""
        if not self.on:
            return float("inf")
        if self.platform is Platform.APNS and not push.loud:
            return self.background.free_at(self.now)
        if self.platform is Platform.FCM and self.dozing and not self._breaks_doze(push):
            return self.window
        return self.now

    def _breaks_doze(self, push: Push) -> bool:
        quota = self.high.get(self.bucket)
        return push.loud and (quota is None or quota.free_at(self.now) <= self.now)

    def _obstacle(self, push: Push) -> str:
        if not self.on:
            return "the phone is off"
        if self.platform is Platform.APNS:
            return f"more than {BACKGROUND} background pushes within an hour"
        return "the phone dozes and its quota of high priority is used up" if push.loud else "the phone dozes"

    def _deliver(self, push: Push) -> Happening:
        """Give a push to the system and the app."""
        if self.platform is Platform.APNS and not push.loud:
            self.background.use(self.now)
        if self.platform is Platform.FCM and push.loud and (quota := self.high.get(self.bucket)) is not None:
            quota.use(self.now)
        if push.registration != self.registration and self.platform is not Platform.APNS:
            return Happening(self.now, What.FOREIGN, push, "the app has no such registration")
        if not self._shows(push):
            return Happening(self.now, What.WOKE, push)
        what = What.REPLACED if push.tag in self.banners else What.BANNER
        self.banners[push.tag] = Banner(push.tag, *text_of(push))
        return Happening(self.now, what, push)

    def _shows(self, push: Push) -> bool:
        """Return whether there is a banner: iOS shows every alert, elsewhere the app decides by kind and mode."""
        if self.platform is Platform.APNS:
            return push.loud
        if push.kind == "new-items":
            return push.certain and self.mode is Mode.ALERT
        return push.kind in {"attention", "test"}

    def _make_room(self) -> list[Happening]:
        """Let FCM give up what it does not keep for a phone that it does not reach."""
        if self.platform is not Platform.FCM or self.on:
            return []
        plain = [each for each in self.waiting if each.push.collapse is None]
        if len(plain) > FCM_MOST:
            self.missed = True
            return self._drop(list(self.waiting), What.DISCARDED)
        keyed = [each for each in self.waiting if each.push.collapse is not None]
        return self._drop(keyed[:-FCM_KEYS], What.DISCARDED)

    def _drop(self, waiting: list[Waiting], what: What) -> list[Happening]:
        """Take pushes out of what waits, and say why; one that expired says when."""
        for each in waiting:
            self.waiting.remove(each)
        ends = [each.expires if what is What.EXPIRED else self.now for each in waiting]
        return [Happening(min(end, self.now), what, each.push) for end, each in zip(ends, waiting, strict=True)]


TEXTS: Final = {"attention": "Attention needed", "test": "Test"}
CLASSES: Final = {
    "email": "New mail",
    "calendar": "Calendar",
    "contacts": "Contacts",
    "tasks": "Tasks",
    "notes": "Notes",
}


def text_of(push: Push) -> tuple[str, str]:
    """Return title and body of a banner: those of the push, or those that an app makes of the data."""
    if push.title or push.body:
        return push.title, push.body
    return CLASSES.get(push.cls, TEXTS.get(push.kind, "Notification")), ""
