"""Which orders make sense in which state of a mailbox."""

from dataclasses import replace

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.reasons import Reason
from relay.admin.rules import follows, no_push_retry, no_test, obstacle
from relay.admin.values import NotDone, Order
from relay.domain.model import Mailbox, Quarantine, RegistrationState, RegistrationView
from tests.contract.samples import LATER, NOW, new_registration

MAILBOX = Mailbox(
    *(MailboxId("m"), "office", "ann", DeviceId("D"), 7, WatchState.WATCHING, None, "", NOW),
    *(None, None, None, None),
)
PHONE = new_registration(state=RegistrationState.ACTIVE)


def why(order: Order, state: WatchState, reason: Reason | None = None) -> str:
    found = obstacle(order, replace(MAILBOX, state=state, reason=reason))
    return "" if found is None else found.why


@pytest.mark.parametrize("state", WatchState)
def test_every_mailbox_can_be_forgotten(state: WatchState) -> None:
    assert why(Order.FORGET, state) == ""


@pytest.mark.parametrize("order", [Order.PAUSE, Order.RESUME, Order.RETRY])
@pytest.mark.parametrize("state", [WatchState.WIPING, WatchState.WIPED])
def test_a_wiped_mailbox_is_only_forgotten(order: Order, state: WatchState) -> None:
    assert "relay wipes allow" in why(order, state)


def test_a_mailbox_is_paused_once_and_resumed_once() -> None:
    assert why(Order.PAUSE, WatchState.WATCHING) == ""
    assert "paused already, since 2026-11-24 08:30 UTC" in why(Order.PAUSE, WatchState.PAUSED)
    assert why(Order.RESUME, WatchState.PAUSED) == ""
    assert why(Order.RESUME, WatchState.WATCHING) == "it is not paused"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (WatchState.WAITING, Reason.UNREACHABLE),
        (WatchState.WAITING, None),
        (WatchState.BLOCKED, Reason.HTTP_403),
        (WatchState.BLOCKED, Reason.SERVER_UNKNOWN),
    ],
)
def test_a_wait_is_ended(state: WatchState, reason: Reason | None) -> None:
    assert why(Order.RETRY, state, reason) == ""


@pytest.mark.parametrize(
    ("state", "reason", "text"),
    [
        (WatchState.PAUSED, None, "resume it instead"),
        (WatchState.WAITING, Reason.MAINTENANCE, "relay maintenance NAME off"),
        (WatchState.WAITING, Reason.HTTP_401, "could lock the account"),
        (WatchState.WAITING, Reason.HTTP_401_MANY, "could lock the account"),
        (WatchState.WAITING, Reason.HTTP_401_DOUBTFUL, "could lock the account"),
        (WatchState.BLOCKED, Reason.CERTIFICATE_EXPIRED, "only a new one is tried"),
        (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, "only a new one is tried"),
        (WatchState.VERIFYING, None, "its one try"),
        (WatchState.WATCHING, None, "it is watched"),
        (WatchState.STARTING, None, "in its turn"),
    ],
)
def test_a_retry_that_helps_nobody_or_harms_is_refused(state: WatchState, reason: Reason | None, text: str) -> None:
    assert text in why(Order.RETRY, state, reason)


def test_a_refused_credential_says_when_its_next_try_is() -> None:
    waits = replace(MAILBOX, state=WatchState.WAITING, reason=Reason.HTTP_401, next_try_at=LATER)

    found = obstacle(Order.RETRY, waits)

    assert isinstance(found, NotDone)
    assert "the next is at 2026-11-24 08:31 UTC" in found.why


@pytest.mark.parametrize("order", Order)
def test_every_order_says_what_follows(order: Order) -> None:
    assert follows(order).text


def view(state: RegistrationState = RegistrationState.ACTIVE, mailbox: Mailbox = MAILBOX) -> RegistrationView:
    return RegistrationView(replace(PHONE, state=state), mailbox, candidate_pending=False, candidate_refused=False)


def test_only_an_active_registration_of_a_mailbox_that_is_not_paused_is_tested() -> None:
    assert no_test(view()) is None
    assert "token-gone" in getattr(no_test(view(RegistrationState.TOKEN_GONE)), "why", "")
    assert "paused" in getattr(no_test(view(mailbox=replace(MAILBOX, state=WatchState.PAUSED))), "why", "")


def test_pushes_are_retried_if_there_are_any_or_the_device_token_waits() -> None:
    quarantined = replace(view(), registration=replace(PHONE, quarantine=Quarantine(NOW, "Bad", "x", LATER)))

    assert no_push_retry(view(), 1) is None
    assert no_push_retry(quarantined, 0) is None
    assert getattr(no_push_retry(view(), 0), "why", "") == "nothing of it waits"
    assert no_push_retry(view(RegistrationState.WIPED), 1) is not None
