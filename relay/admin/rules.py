"""Whether an order about a mailbox or a registration makes sense now, and what follows from it. Pure."""

from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.admin.values import Done, NotDone, Order
from relay.domain.model import Mailbox, RegistrationState, RegistrationView
from relay.domain.reasons import Recheck, row_of

_WIPED: Final = "the device was wiped: `relay wipes allow` lets its user register again"
_CONFIRMING: Final = frozenset({Reason.HTTP_401, Reason.HTTP_401_MANY, Reason.HTTP_401_DOUBTFUL})
"""Reasons of a credential that was refused, and is tried again at moments that keep the account from being locked."""


def obstacle(order: Order, mailbox: Mailbox) -> NotDone | None:
    """Return why an order about a mailbox, as people see it, makes no sense now; None: it does."""
    if order is Order.FORGET:
        return None
    if mailbox.state in {WatchState.WIPING, WatchState.WIPED}:
        return NotDone(_WIPED)
    paused = mailbox.state is WatchState.PAUSED
    match order:
        case Order.PAUSE:
            return NotDone(f"it is paused already, since {mailbox.since:%Y-%m-%d %H:%M} UTC") if paused else None
        case Order.RESUME:
            return None if paused else NotDone("it is not paused")
        case Order.RETRY:  # pragma: no branch  -- mypy proves that there is no other
            return _no_retry(mailbox)


def _no_retry(mailbox: Mailbox) -> NotDone | None:
    """Return why the wait of a mailbox is not ended; a refused credential is never tried more often [promise 4]."""
    if mailbox.reason is Reason.MAINTENANCE:
        return NotDone("its server is in maintenance: end that with `relay maintenance NAME off`")
    if mailbox.state in _NO_WAIT:
        return NotDone(_NO_WAIT[mailbox.state])
    if mailbox.reason in _CONFIRMING:
        again = "" if mailbox.next_try_at is None else f"; the next is at {mailbox.next_try_at:%Y-%m-%d %H:%M} UTC"
        return NotDone(f"its credential was refused, and more tries could lock the account{again}")
    if mailbox.reason is not None and row_of(mailbox.state, mailbox.reason).recheck is Recheck.NEW_CREDENTIAL:
        return NotDone(_NO_WAIT[WatchState.CREDENTIAL_REFUSED])
    return None


_NO_WAIT: Final = {
    WatchState.PAUSED: "it is paused: resume it instead",
    WatchState.CREDENTIAL_REFUSED: "its credential was refused: only a new one is tried, which the user enters",
    WatchState.VERIFYING: "its credential waits for its one try, which comes as soon as the mail server answers",
    WatchState.WATCHING: "it does not wait: it is watched",
    WatchState.STARTING: "it does not wait: it starts in its turn",
}


def follows(order: Order) -> Done:
    """Return what follows from an order."""
    return _FOLLOWS[order]


_FOLLOWS: Final = {
    Order.RETRY: Done("its wait is over: the relay asks the mail server now, in its turn"),
    Order.PAUSE: Done("paused: the relay asks the mail server nothing about it, and its phones get no pushes"),
    Order.RESUME: Done("resumed: it starts again in its turn, and what waits is pushed"),
    Order.FORGET: Done("its registrations are gone; the rest goes as soon as its watch has stopped"),
}


def no_test(view: RegistrationView) -> NotDone | None:
    """Return why a registration gets no test push now; None: it does."""
    if view.mailbox.state is WatchState.PAUSED:
        return NotDone("its mailbox is paused, so its phones get no pushes: resume it first")
    if view.registration.state is not RegistrationState.ACTIVE:
        return NotDone(f"it is {view.registration.state.value}, and only active registrations get pushes")
    return None


def no_push_retry(view: RegistrationView, waiting: int) -> NotDone | None:
    """Return why the pushes of a registration are not tried at once; None: they are."""
    if (test := no_test(view)) is not None:
        return test
    if waiting == 0 and view.registration.quarantine is None:
        return NotDone("nothing of it waits")
    return None
