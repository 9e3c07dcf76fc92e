"""Test that a mailbox is found by whatever an operator knows of it, with all that explains it."""

from datetime import timedelta

import pytest

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.reasons import Reason
from relay.domain.explanation import MailboxExplanation, WaitingMark
from relay.domain.model import Mark, Platform, RegistrationChange
from relay.domain.outcome import Delivered, RetryLater
from relay.domain.ports.outbox import Settlement
from relay.process.clock import now
from relay.store.engine import Database
from relay.store.explanation import SqlExplanationStore
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, MAIL, NEW_MAIL, NOW, activate, entry, overwrite, own_all, register


async def find(engine: Database, name: str) -> list[MailboxExplanation]:
    found = (await SqlExplanationStore(engine, lambda: LATER).find(name)).mailboxes
    assert all(isinstance(each, MailboxExplanation) for each in found)
    return [each for each in found if isinstance(each, MailboxExplanation)]


@pytest.mark.parametrize(
    "name", ["mb-ann", "reg-ann-phone", "reg-ann-tablet", "ann@example.com", "ANN@example.com", "NN@ex"]
)
async def test_a_mailbox_is_found_by_every_name_of_it(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, name: str
) -> None:
    await activate(registrations, watches)
    await activate(registrations, watches, device="tablet")
    await activate(registrations, watches, "ben")

    (case,) = await find(engine, name)

    assert case.mailbox.id == "mb-ann"
    assert [known.registration.id for known in case.registrations] == ["reg-ann-phone", "reg-ann-tablet"]


@pytest.mark.parametrize("name", ["", "eve", "%", "reg-ann", "a_n"])
async def test_nothing_else_is_found(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, name: str
) -> None:
    await activate(registrations, watches)

    assert await find(engine, name) == []


async def test_several_users_with_a_part_of_a_name_are_listed(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await activate(registrations, watches, "joanna")

    found = await SqlExplanationStore(engine, lambda: LATER).find("ann")

    assert [each.user for each in found.similar] == ["ann@example.com", "joanna@example.com"]
    assert found.mailboxes == ()


async def test_a_case_holds_what_happened_last_and_what_waits(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    phone = await activate(registrations, watches)
    epoch = await own_all(watches)
    away = Condition(WatchState.WAITING, Reason.UNREACHABLE, 60.0, "no connection")
    await watches.commit([entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,), condition=away))], NOW)
    await watches.note_pings({phone.mailbox_id: (NOW, 480.0)})
    await registrations.mark(phone.id, Mark.TEST, NOW)
    email, test = sorted(
        (await outbox.claim(Platform.APNS, 2, "push-1", LATER, NOW)).pushes, key=lambda push: push.mark is Mark.TEST
    )
    await outbox.settle([Settlement(email, RetryLater("503"), LATER), Settlement(test, Delivered())], NOW)
    await outbox.claim(Platform.APNS, 1, "push-1", LATER + timedelta(seconds=9), LATER)

    (case,) = await find(engine, phone.id)

    mailbox = case.mailbox
    assert (mailbox.state, mailbox.reason, mailbox.detail) == (WatchState.WAITING, "unreachable", "no connection")
    assert (mailbox.last_ping_at, mailbox.heartbeat, mailbox.last_change_at) == (NOW, 480.0, NOW)
    assert case.owner == "node-1"
    assert case.owned_until is not None
    leased_at = NOW if engine.dialect.name == "sqlite" else now()  # the clock of PostgreSQL, on this host
    assert abs(case.owned_until - leased_at - timedelta(days=1)) < timedelta(minutes=1)
    (known,) = case.registrations
    assert known.registration.last_push_at == NOW
    assert known.marks == (WaitingMark(Mark.EMAIL, 2, NOW, LATER, 1, claimed=True),)
    assert (known.candidate_pending, known.candidate_refused) == (False, False)


async def test_a_reason_that_a_newer_version_wrote_is_shown_as_unknown_with_its_text(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    ann = await activate(registrations, watches)
    await overwrite(engine, ann.mailbox_id, state="blocked", reason="eas-999", detail="the moon is full")

    (case,) = await find(engine, ann.id)

    assert (case.mailbox.state, case.mailbox.reason) == (WatchState.BLOCKED, Reason.UNKNOWN)
    assert case.mailbox.detail == ("eas-999, a reason that this version of the relay does not know: the moon is full")


async def test_a_mailbox_without_an_owner_and_a_waiting_candidate_are_reported(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    ben = await register(registrations, "ben")
    await registrations.change(ben.id, RegistrationChange(sealed_candidate=b"new"), NOW)

    (case,) = await find(engine, "mb-ben")

    assert (case.owner, case.owned_until) == (None, None)
    assert [known.candidate_pending for known in case.registrations] == [True]
