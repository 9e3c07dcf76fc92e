"""Own how the steps of a watch are logged: names only, for values may hold what must not be logged."""

import logging

from eas_watcher.names import MailboxId
from eas_watcher.states import Answered, Event, Failed, State

log = logging.getLogger(__name__)


def trace(mailbox: MailboxId, before: State, event: Event, after: State) -> None:
    """Log one step at DEBUG."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug(
            "watch stepped",
            extra={
                "mailbox": mailbox,
                "state": type(before).__name__,
                "came": _name(event),
                "next_state": type(after).__name__,
            },
        )


def _name(event: Event) -> str:
    match event:
        case Answered(reply, _, held):
            return f"{type(reply).__name__} after {held:.1f} s"
        case Failed(error):
            return f"{type(error).__name__}: {error}"
        case _:
            return type(event).__name__
