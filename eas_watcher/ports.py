"""Own what a watch needs from outside: a transport to the server and a journal that keeps its progress."""

from datetime import datetime
from typing import Protocol

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Progress
from eas_watcher.names import MailboxId


class Transport(Protocol):
    """Carry one request to the server and the whole answer back."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any HTTP answer; raise Unreachable when none arrived whole in time, ProtocolViolation when it is none.

        A request is sent at most once: nothing is repeated, no redirect is followed, no cookie is kept.
        """


class Journal(Protocol):
    """Keep the progress of watches."""

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        """Return when `progress` is durable, whole; raise Fenced when another process owns the mailbox now."""

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Note that a Ping of `heartbeat` seconds is held from now; need not be durable."""


class Now(Protocol):
    """Tell the time."""

    def __call__(self) -> datetime:
        """Return now as an aware UTC datetime."""


class Fenced(Exception):
    """Tell that another process owns this mailbox: stop watching it, commit nothing more."""
