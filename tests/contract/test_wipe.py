"""Test what is left of a wiped mailbox: one last push per phone, then nothing."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.machine.memory import Condition, Partnership, Progress, WatchState
from eas_watcher.names import CollectionId, PolicyKey, ProtocolVersion, SyncKey
from eas_watcher.reasons import Reason
from relay.domain.model import (
    DuePush,
    Ending,
    Mark,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationState,
    WatchRecord,
)
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.reasons import Cause
from relay.domain.tries import TryLimits, account_key
from relay.store import migrate, wipes
from relay.store.engine import Database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import candidate, mailbox
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.outbox_sites import OutboxSite
from tests.contract.samples import (
    BY_CLEO,
    LATER,
    MAIL,
    NEW_MAIL,
    NOW,
    activate,
    candidate_of,
    entry,
    new_mailbox,
    new_registration,
    own_all,
    register,
)
from tests.transactions import transaction

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
WIPED = Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE), attention=True)


async def wipe(watches: SqlWatchStore) -> None:
    await watches.commit([entry(await own_all(watches), WIPED)], NOW)


async def wipe_and_forget(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    """Wipe the mailbox of a phone that was told at once; nothing is left of the mailbox."""
    phone = await activate(registrations, watches)
    await watches.commit([entry(await own_all(watches), replace(WIPED, attention=False))], NOW)
    await registrations.withdraw(phone.id)
    assert await watches.forget(phone.mailbox_id)


async def due(outbox: SqlOutboxStore) -> list[DuePush]:
    return [*(await outbox.claim(Platform.APNS, 10, "push-1", LATER + MINUTE, LATER)).pushes]


async def state_of(registrations: SqlRegistrationStore, registration: Registration) -> RegistrationState | None:
    view = await registrations.view(registration.id)
    return None if view is None else view.registration.state


async def recorded(watches: SqlWatchStore) -> WatchRecord:
    record = await watches.record(new_mailbox().id, LATER)
    assert record is not None
    return record


async def test_every_phone_gets_one_push_about_the_wipe_and_no_other(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    phone, tablet = await activate(registrations, watches), await activate(registrations, watches, device="tablet")
    epoch = await own_all(watches)
    hierarchy = (Folder(MAIL.id, CollectionId("0"), 2),)
    await watches.commit([entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,), hierarchy=hierarchy))], NOW)

    await watches.commit([entry(epoch, WIPED)], NOW)
    await registrations.mark(phone.id, Mark.TEST, NOW)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], NOW)

    assert {(push.registration_id, push.mark, push.cause) for push in await due(outbox)} == {
        (phone.id, Mark.ATTENTION, Cause.WIPED),
        (tablet.id, Mark.ATTENTION, Cause.WIPED),
    }
    assert await state_of(registrations, phone) is RegistrationState.WIPED
    memory = (await recorded(watches)).memory
    assert (memory.collections, memory.hierarchy) == ((), None)


@pytest.mark.parametrize(
    ("condition", "cause"),
    [
        (Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401), Cause.CREDENTIAL),
        (Condition(WatchState.WAITING, Reason.HTTP_401_DOUBTFUL), Cause.CREDENTIAL),
        (Condition(WatchState.WAITING, Reason.UNREACHABLE), None),
        (None, None),
    ],
)
async def test_an_attention_carries_its_cause_to_the_push(
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    outbox: SqlOutboxStore,
    condition: Condition | None,
    cause: Cause | None,
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)

    await watches.commit([entry(epoch, Progress(condition=condition, attention=True, changes=(NEW_MAIL,)))], NOW)

    assert {(push.mark, push.cause) for push in await due(outbox)} == {(Mark.ATTENTION, cause), (Mark.EMAIL, None)}


async def test_a_wipe_takes_the_place_of_an_earlier_cause_that_still_waits(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    refused = Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401)
    await watches.commit([entry(epoch, Progress(condition=refused, attention=True))], NOW)

    await watches.commit([entry(epoch, WIPED)], NOW)

    assert [(push.mark, push.cause) for push in await due(outbox)] == [(Mark.ATTENTION, Cause.WIPED)]


async def test_only_a_phone_that_could_be_pushed_to_gets_the_push_about_the_wipe(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: Database
) -> None:
    phone = await activate(registrations, watches)
    waiting = await register(registrations, device="waiting")
    gone = await activate(registrations, watches, device="gone")
    await watches.commit([entry(await own_all(watches), Progress(changes=(NEW_MAIL,)))], NOW)
    for push in await due(outbox):
        if push.registration_id == gone.id:
            await outbox.settle([Settlement(push, TokenGone("410"))], NOW)
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"new"), NOW)

    await wipe(watches)

    for each in (phone, waiting, gone):
        assert await state_of(registrations, each) is RegistrationState.WIPED
    assert [push.registration_id for push in await due(outbox)] == [phone.id]
    async with transaction(engine) as connection:
        assert (await connection.execute(sa.select(candidate.c.registration_id))).all() == []


@pytest.mark.parametrize("outcome", [Delivered(), TokenGone("410")])
async def test_a_registration_ends_in_a_tombstone_after_its_last_push(site: OutboxSite, outcome: Outcome) -> None:
    phone = await site.activate()
    await site.commit(WIPED)

    assert await site.registrations.sweep(LATER) == {}
    await site.settle(await site.claim(LATER), outcome, LATER)

    assert await site.marks() == {}
    assert await site.registrations.sweep(LATER) == {Ending.WIPED: 1}
    assert await site.registrations.view(phone.id) is None
    tombstone = await site.registrations.tombstone(phone.id)
    assert tombstone is not None
    assert (tombstone.secret_hash, tombstone.ending) == (phone.secret_hash, Ending.WIPED)
    assert await site.watches.forget(phone.mailbox_id)


@pytest.mark.parametrize("outcome", [RetryLater("503"), Refused("BadDeviceToken", "correct it")])
async def test_a_registration_whose_last_push_fails_for_a_day_ends_in_a_tombstone(
    site: OutboxSite, outcome: Outcome
) -> None:
    phone = await site.activate()
    await site.commit(WIPED)
    pushes = await site.claim(LATER)

    await site.settle(pushes, outcome, NOW + DAY - MINUTE, next_try_at=LATER)
    assert await site.outbox.next_due(Platform.APNS) == LATER
    assert (await site.registered(phone)).state is RegistrationState.WIPED

    await site.settle(pushes, outcome, NOW + DAY, next_try_at=LATER)
    assert await site.registrations.sweep(NOW + DAY) == {Ending.WIPED: 1}
    assert await site.registrations.view(phone.id) is None


async def test_an_earlier_attention_that_was_under_way_does_not_take_the_place_of_the_last_push(
    site: OutboxSite,
) -> None:
    await site.activate()
    await site.commit(Progress(attention=True))
    under_way = await site.claim()

    await site.commit(WIPED)
    await site.settle(under_way, Delivered(), LATER)

    assert await site.registrations.sweep(LATER) == {}
    assert [push.mark for push in await site.claim(LATER + MINUTE)] == [Mark.ATTENTION]


async def test_a_wiped_registration_cannot_be_removed_before_its_phone_was_told(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    phone = await activate(registrations, watches)
    await wipe(watches)

    await registrations.remove(phone.id, LATER)

    assert [push.registration_id for push in await due(outbox)] == [phone.id]
    assert await registrations.tombstone(phone.id) is None


async def test_a_push_that_was_under_way_during_the_wipe_does_not_take_the_last_one_away(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    under_way = await site.claim()

    await site.commit(WIPED)
    await site.settle(under_way, Delivered(), LATER)

    assert [push.mark for push in await site.claim(LATER)] == [Mark.ATTENTION]


async def test_a_wiped_registration_cannot_bring_a_credential_back(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await activate(registrations, watches)
    await wipe(watches)

    await registrations.change(phone.id, RegistrationChange(device_token="new", sealed_candidate=b"new"), LATER)
    await watches.accept(candidate_of(phone, b"new"), LATER)

    record = await recorded(watches)
    assert (record.sealed_credential, record.candidates, record.mailbox.state) == (None, (), WatchState.WIPED)


async def test_a_registration_after_the_wipe_starts_from_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: Database
) -> None:
    old = await activate(registrations, watches)
    known = Partnership(ProtocolVersion.V14_1, PolicyKey("1"), SyncKey("h"), informed=True, horizon=NOW)
    await watches.commit([entry(await own_all(watches), Progress(known))], NOW)
    await wipe(watches)
    assert await wipes.allow(engine, "ann@example.com", None, BY_CLEO)

    new = await activate(registrations, watches, device="new")

    record = await recorded(watches)
    assert (record.mailbox.state, record.mailbox.reason) == (WatchState.STARTING, None)
    assert (record.sealed_credential, record.memory.partnership) == (b"sealed", Partnership())
    await watches.commit([entry(await own_all(watches), Progress(changes=(NEW_MAIL,)))], LATER)
    assert {(push.registration_id, push.mark) for push in await due(outbox)} == {
        (old.id, Mark.ATTENTION),
        (new.id, Mark.EMAIL),
    }


@pytest.mark.parametrize("spelling", ["ann@example.com", "EXAMPLE\\Ann"])
async def test_nobody_registers_for_a_wiped_account_before_an_administrator_allows_it(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, spelling: str
) -> None:
    await wipe_and_forget(registrations, watches)
    mailbox = replace(new_mailbox("again"), user=spelling)
    phone = new_registration("again")
    await registrations.create(mailbox, phone, b"cached")

    await watches.accept(candidate_of(phone, b"cached"), LATER)

    assert await state_of(registrations, phone) is RegistrationState.WIPED
    record = await watches.record(mailbox.id, LATER)
    assert record is not None
    assert (record.sealed_credential, record.candidates) == (None, ())
    (allowed,) = await wipes.allow(engine, "ANN", None, BY_CLEO)
    assert (allowed.server, allowed.user, allowed.wiped_at) == ("office", "ann@example.com", NOW)
    assert await wipes.wiped_accounts(engine) == []
    second = new_registration("again", "tablet")
    await registrations.create(mailbox, second, b"new")
    await watches.accept(candidate_of(second, b"new"), LATER)
    assert await state_of(registrations, second) is RegistrationState.ACTIVE


@pytest.mark.parametrize(
    ("directory", "state"), [("company", RegistrationState.WIPED), ("other", RegistrationState.ACTIVE)]
)
async def test_a_wiped_account_does_not_come_back_by_another_server_of_its_directory(
    registrations: SqlRegistrationStore,
    engine: Database,
    wakeups: LocalWakeups,
    directory: str,
    state: RegistrationState,
) -> None:
    limits = {"office": TryLimits(directory="company"), "branch": TryLimits(directory=directory)}
    watches = SqlWatchStore(engine, wakeups, limits)
    await wipe_and_forget(registrations, watches)
    phone = new_registration("again")
    await registrations.create(replace(new_mailbox("again"), server="branch", user="Ann@example.com"), phone, b"cached")

    await watches.accept(candidate_of(phone, b"cached"), LATER)

    assert await state_of(registrations, phone) is state


async def test_whoever_has_the_password_registers_for_a_wiped_account_where_that_is_set(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, wakeups: LocalWakeups
) -> None:
    await wipe_and_forget(registrations, watches)
    phone = await activate(registrations, SqlWatchStore(engine, wakeups, guards_wipes=False))

    assert await state_of(registrations, phone) is RegistrationState.ACTIVE
    assert await wipes.wiped_accounts(engine) == []


async def test_a_wipe_stops_no_registration_of_another_user_or_of_another_device_that_is_active(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    spelling = replace(new_mailbox("other"), user="EXAMPLE\\ann")
    other = new_registration("other")
    await registrations.create(spelling, other, b"sealed")
    await watches.accept(candidate_of(other), NOW)
    await activate(registrations, watches)
    await wipe(watches)

    await registrations.change(other.id, RegistrationChange(sealed_candidate=b"new"), LATER)
    await watches.accept(candidate_of(other, b"new"), LATER)
    ben = await activate(registrations, watches, "ben")

    assert await state_of(registrations, other) is RegistrationState.ACTIVE
    assert await state_of(registrations, ben) is RegistrationState.ACTIVE
    assert await wipes.allow(engine, "ann", "branch", BY_CLEO) == []
    assert [each.user for each in await wipes.wiped_accounts(engine)] == ["ann@example.com"]


async def test_an_account_that_is_wiped_twice_is_noted_once(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    await activate(registrations, watches)
    await wipe(watches)
    await watches.commit([entry(await own_all(watches), WIPED)], LATER)

    assert [each.wiped_at for each in await wipes.wiped_accounts(engine)] == [NOW]


async def test_a_refused_candidate_leaves_a_wiped_mailbox_wiped(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await wipe(watches)
    later = new_registration(device="later")
    await registrations.create(new_mailbox(), later, b"wrong")

    await watches.refuse(candidate_of(later, b"wrong"), LATER)

    assert (await recorded(watches)).mailbox.state is WatchState.WIPED


@pytest.mark.parametrize(("reason", "account_only"), [(Reason.REMOTE_WIPE, False), (Reason.ACCOUNT_ONLY_WIPE, True)])
async def test_a_wipe_that_was_begun_is_known_after_a_restart(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, reason: Reason, *, account_only: bool
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    assert (await recorded(watches)).memory.wipe is None

    await watches.commit([entry(epoch, Progress(condition=Condition(WatchState.WIPING, reason)))], NOW)

    record = await recorded(watches)
    assert record.memory.wipe is account_only
    assert record.sealed_credential is not None
    await watches.commit([entry(epoch, Progress(condition=Condition(WatchState.WIPED, reason)))], NOW)
    assert (await recorded(watches)).memory.wipe is None


async def test_an_upgrade_notes_the_accounts_that_were_wiped_before(before: Database) -> None:
    bare = {"device_id": "D", "shard": 7, "since": NOW}
    rows = [("1", "Ann@example.com", "wiped"), ("2", "ben@example.com", "watching"), ("3", "EXAMPLE\\ann", "wiping")]
    async with transaction(before) as connection:
        for id_, user, state in rows:
            named = {"id": id_, "server": "office", "user": user, "state": state}
            await connection.execute(sa.insert(mailbox).values({**bare, **named}))

    await migrate.upgrade(before)

    [found] = await wipes.wiped_accounts(before)
    assert (found.server, found.wiped_at) == ("office", NOW)
    assert account_key(found.user) == "ann"
