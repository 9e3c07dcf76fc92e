"""What a watch needs from outside: a transport to the server, a journal of its progress, and the time."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeAlias

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Progress
from eas_watcher.names import MailboxId

Done: TypeAlias = "Callable[[HttpReply | Exception], None]"
"""Called with the answer to a held request, or with what was raised instead: an EasError, or a fault of the relay."""


class HeldRequest(Protocol):
    """A request whose answer has not come."""

    async def give_up(self) -> None:
        """Close it, without a call of its `Done`; return when the server holds it no longer, as far as can be known."""


class Transport(Protocol):
    """Sends one request to the server and returns the whole answer."""

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any HTTP answer.

        Raises Unreachable when none arrives whole in time, ProtocolViolation for a malformed one.
        A request is sent at most once: the transport repeats nothing, follows no redirect and keeps no cookie.
        """

    async def hold(self, request: HttpRequest, done: Done) -> HeldRequest:
        """Send a request whose answer comes late; return once it is sent.

        Raises what `send` raises for a request that cannot be sent. `done` is called once, by the event loop, after
        this returned, with what `send` would return or raise. While the request is held no task waits for it.
        """


class Journal(Protocol):
    """Keeps the progress of watches."""

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        """Return when all of `progress` is durable; raise Fenced when another process owns the mailbox now."""

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Note that a Ping of `heartbeat` seconds is held from now on; the note need not be durable."""


class Tries(Protocol):
    """Counts how often the credentials of accounts are shown, so that no directory locks a user out."""

    async def spend(self, mailbox: MailboxId) -> float | None:
        """Return None when a credential that was refused may be shown again; else how many seconds it must wait.

        Raises Fenced when another process owns the mailbox now.
        """


class Now(Protocol):
    """A clock."""

    def __call__(self) -> datetime:
        """Return now as an aware UTC datetime."""


class Fenced(Exception):
    """Another process owns this mailbox: stop its watch and commit nothing more."""
