"""How roles wake one another after a commit."""

from enum import StrEnum
from typing import Protocol

from relay.domain.model import Platform


class Topic(StrEnum):
    """What has changed in the store, so that another role must read it."""

    MAILBOXES = "mailboxes"
    """api -> watch: mailboxes are dirty."""
    VERDICTS = "verdicts"
    """watch -> api: a candidate was accepted or refused."""
    SHARDS = "shards"
    """watch -> watch: shards are free or taken, or a process has joined."""
    OUTBOX_APNS = "outbox-apns"
    """watch, api -> push: marks for APNs were set or may be claimed again; the next two likewise."""
    OUTBOX_FCM = "outbox-fcm"
    OUTBOX_WEBPUSH = "outbox-webpush"

    @classmethod
    def outbox(cls, platform: Platform) -> "Topic":
        """Return the topic of one platform's marks; only the dispatcher of that platform listens to it."""
        return cls(f"outbox-{platform.value}")


class Waiter(Protocol):
    """Waits for one topic; remembers a wake-up between two waits, so that none is missed."""

    async def wait(self, timeout_s: float) -> None:
        """Return when the topic was woken since the last return, or after `timeout_s` seconds."""


class Wakeups(Protocol):
    """Wake-ups between roles; they may be lost, so every wait has a time limit."""

    def wake(self, topic: Topic) -> None:
        """Wake the waiters of this process; the store calls it after each commit (PostgreSQL wakes other processes)."""

    def waiter(self, topic: Topic) -> Waiter:
        """Start to wait for one topic."""
