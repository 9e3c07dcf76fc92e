"""Test what a verdict on a candidate does to its registration and its mailbox."""

import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.model import (
    Mailbox,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
    WatchRecord,
)
from relay.domain.ports.wakeups import Topic
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import registration as table
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, MAIL, NOW, SHARD, activate, candidate_of, entry, leases, own_all, register
from tests.transactions import transaction

ANN = MailboxId("mb-ann")


async def recorded(watches: SqlWatchStore) -> WatchRecord:
    record = await watches.record(ANN, LATER)
    assert record is not None
    return record


async def viewed(registrations: SqlRegistrationStore, device: str = "phone") -> RegistrationView:
    view = await registrations.view(RegistrationId(f"reg-ann-{device}"))
    assert view is not None
    return view


async def test_an_accepted_candidate_becomes_the_credential(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups
) -> None:
    registration = await register(registrations)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    mailboxes, verdicts = wakeups.waiter(Topic.MAILBOXES), wakeups.waiter(Topic.VERDICTS)

    await watches.accept(candidate_of(registration), LATER)

    record = await recorded(watches)
    assert record.sealed_credential == b"sealed"
    assert record.candidates == ()
    assert (record.mailbox.state, record.mailbox.since) == (WatchState.STARTING, LATER)
    view = await viewed(registrations)
    assert view.registration.state is RegistrationState.ACTIVE
    assert not view.candidate_pending
    assert [record.mailbox.id for record in await watches.take_dirty(await leases(watches, [SHARD]), NOW)] == [ANN]
    assert mailboxes.woken
    assert verdicts.woken


async def test_accepting_starts_all_refusals_from_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await activate(registrations, watches)
    epoch = await own_all(watches)
    refused = Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, detail="wrong password")
    await watches.commit([entry(epoch, Progress(condition=refused, refusals=3))], NOW)
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"wrong"), NOW)
    await watches.refuse(candidate_of(registration, b"wrong"), NOW)
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"right"), NOW)

    await watches.accept(candidate_of(registration, b"right"), LATER)

    record = await recorded(watches)
    mailbox = record.mailbox
    assert record.memory.refusals == 0
    assert (mailbox.state, mailbox.reason, mailbox.detail) == (WatchState.STARTING, None, "")
    assert not (await viewed(registrations)).candidate_refused


async def test_accepting_ends_the_wait_for_another_look_at_a_refused_password(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    mailbox = await accepted_while(registrations, watches, Progress(condition=waiting(Reason.HTTP_401), refusals=2))

    assert (mailbox.state, mailbox.next_try_at) == (WatchState.WAITING, None)


async def test_accepting_does_not_cut_short_a_wait_that_the_server_asked_for(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    mailbox = await accepted_while(registrations, watches, Progress(condition=waiting(Reason.SERVER_BUSY)))

    assert (mailbox.state, mailbox.reason) == (WatchState.WAITING, Reason.SERVER_BUSY)
    assert mailbox.next_try_at is not None
    assert mailbox.since == NOW


def waiting(reason: Reason) -> Condition:
    return Condition(WatchState.WAITING, reason, retry_in=900.0)


async def accepted_while(registrations: SqlRegistrationStore, watches: SqlWatchStore, progress: Progress) -> Mailbox:
    registration = await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, progress)], NOW)
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"new"), NOW)
    await watches.accept(candidate_of(registration, b"new"), LATER)
    return (await recorded(watches)).mailbox


async def test_accepting_keeps_what_the_watch_remembers(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(collections=(MAIL,)))], NOW)
    tablet = await register(registrations, device="tablet")

    await watches.accept(candidate_of(tablet), LATER)

    assert (await recorded(watches)).memory.collections == (MAIL,)


async def test_the_check_of_a_replaced_candidate_leaves_the_new_one_waiting(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await register(registrations)
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"new"), NOW)

    await watches.accept(candidate_of(registration, b"sealed"), LATER)
    await watches.refuse(candidate_of(registration, b"sealed"), LATER)

    record = await recorded(watches)
    assert record.sealed_credential is None
    assert [candidate.sealed for candidate in record.candidates] == [b"new"]
    assert record.mailbox.state is WatchState.VERIFYING
    view = await viewed(registrations)
    assert view.registration.state is RegistrationState.VERIFYING
    assert view.candidate_pending


async def test_refusing_the_first_candidate_refuses_registration_and_mailbox(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups
) -> None:
    registration = await register(registrations)
    verdicts = wakeups.waiter(Topic.VERDICTS)

    await watches.refuse(candidate_of(registration), LATER)

    view = await viewed(registrations)
    assert view.registration.state is RegistrationState.REFUSED
    assert not view.candidate_pending
    assert not view.candidate_refused
    assert (view.mailbox.state, view.mailbox.since) == (WatchState.CREDENTIAL_REFUSED, LATER)
    assert verdicts.woken


async def test_refusing_a_newcomer_leaves_the_mailbox_and_its_other_registrations_alone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, device="phone")
    tablet = await register(registrations, device="tablet")

    await watches.refuse(candidate_of(tablet), LATER)

    assert (await viewed(registrations, "tablet")).registration.state is RegistrationState.REFUSED
    view = await viewed(registrations, "phone")
    assert view.registration.state is RegistrationState.ACTIVE
    assert view.mailbox.state is WatchState.STARTING
    assert (await recorded(watches)).sealed_credential == b"sealed"


async def test_refusing_a_new_password_leaves_an_active_registration_on_the_old_one(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await activate(registrations, watches)
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"wrong"), NOW)

    await watches.refuse(candidate_of(registration, b"wrong"), LATER)

    view = await viewed(registrations)
    assert view.registration.state is RegistrationState.ACTIVE
    assert view.candidate_refused
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"other"), NOW)
    assert not (await viewed(registrations)).candidate_refused


async def test_a_token_that_is_gone_is_not_revived_by_a_good_password(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    registration = await activate(registrations, watches)
    async with transaction(engine) as connection:
        await connection.execute(sa.update(table).values(state=RegistrationState.TOKEN_GONE.value))
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"new"), NOW)

    await watches.accept(candidate_of(registration, b"new"), LATER)

    assert (await viewed(registrations)).registration.state is RegistrationState.TOKEN_GONE
    assert (await recorded(watches)).sealed_credential == b"new"


async def test_verdicts_on_what_was_removed_change_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await register(registrations)
    await registrations.remove(registration.id, NOW)
    await watches.forget(ANN)

    await watches.accept(candidate_of(registration), LATER)
    await watches.refuse(candidate_of(registration), LATER)

    assert await watches.record(ANN, LATER) is None


async def test_a_wiped_mailbox_keeps_no_credential_that_is_proved_afterwards(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await activate(registrations, watches)
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"proved too late"), NOW)
    wiped = Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE))
    await watches.commit([entry(await own_all(watches), wiped)], NOW)

    await watches.accept(candidate_of(phone, b"proved too late"), LATER)

    record = await recorded(watches)
    assert (record.sealed_credential, record.mailbox.state) == (None, WatchState.WIPED)
    assert record.candidates == ()


async def test_a_discovered_mailbox_is_kept_with_its_url_and_keeps_it(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await register(registrations)

    await watches.accept(candidate_of(phone), NOW, "https://mail2.example.com/eas")
    assert (await recorded(watches)).memory.partnership.url == "https://mail2.example.com/eas"

    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"new"), NOW)
    await watches.accept(candidate_of(phone, b"new"), LATER)
    assert (await recorded(watches)).memory.partnership.url == "https://mail2.example.com/eas"
