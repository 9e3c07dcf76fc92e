"""Test that nothing stays for ever: what ends after its time, what does not, and that its credential goes with it."""

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.model import Ending, Registration, RegistrationChange, RegistrationState
from relay.domain.retention import Retention
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import mailbox, registration
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate, candidate_of, entry, own_all, register
from tests.transactions import transaction

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
KEPT = Retention(token_gone=30 * DAY, refused=20 * DAY, untouched=180 * DAY)
FOR_EVER = Retention(token_gone=None, refused=None, untouched=None)


def store(engine: Database, retention: Retention = KEPT) -> SqlRegistrationStore:
    return SqlRegistrationStore(engine, LocalWakeups(), retention=retention)


async def turn(engine: Database, phone: Registration, state: RegistrationState) -> None:
    async with transaction(engine) as connection:
        mine = sa.update(registration).where(registration.c.id == phone.id)
        await connection.execute(mine.values(state=state.value))


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (RegistrationState.TOKEN_GONE, 30 * DAY),
        (RegistrationState.REFUSED, 20 * DAY),
        (RegistrationState.VERIFYING, 20 * DAY),
        (RegistrationState.PROVING, 20 * DAY),
    ],
)
async def test_a_registration_of_no_use_ends_after_its_time_and_the_last_one_takes_the_credential_with_it(
    engine: Database, watches: SqlWatchStore, state: RegistrationState, kept: timedelta
) -> None:
    registrations = store(engine)
    phone = await activate(registrations, watches)
    other = await activate(registrations, watches, device="tablet")
    await registrations.saw(phone.id, NOW)
    await turn(engine, phone, state)
    began = NOW + 7 * DAY

    assert await registrations.sweep(began) == {}
    assert await registrations.sweep(began + kept) == {}
    assert await registrations.sweep(began + kept + SECOND) == {Ending.EXPIRED: 1}

    assert await registrations.view(phone.id) is None
    tombstone = await registrations.tombstone(phone.id)
    assert tombstone is not None
    assert tombstone.ending is Ending.EXPIRED
    assert not await watches.forget(MailboxId(phone.mailbox_id))  # the tablet still names it
    await turn(engine, other, state)
    later = began + kept + DAY
    await registrations.sweep(later)
    assert await registrations.sweep(later + kept + SECOND) == {Ending.EXPIRED: 1}
    async with transaction(engine) as connection:
        assert await connection.scalar(sa.select(mailbox.c.dirty)) is True
    assert await watches.forget(MailboxId(phone.mailbox_id))
    async with transaction(engine) as connection:
        assert (await connection.execute(sa.select(mailbox.c.sealed_credential))).all() == []


async def test_a_registration_that_is_of_use_again_begins_its_time_anew(
    engine: Database, watches: SqlWatchStore
) -> None:
    registrations = store(engine)
    phone = await activate(registrations, watches)
    await turn(engine, phone, RegistrationState.TOKEN_GONE)
    await registrations.sweep(NOW)
    await registrations.change(phone.id, RegistrationChange(device_token="new"), NOW + 29 * DAY)
    await registrations.sweep(NOW + 29 * DAY)
    await turn(engine, phone, RegistrationState.TOKEN_GONE)

    assert await registrations.sweep(NOW + 31 * DAY) == {}
    assert await registrations.sweep(NOW + 61 * DAY) == {}
    assert await registrations.sweep(NOW + 61 * DAY + SECOND) == {Ending.EXPIRED: 1}


async def test_registrations_of_a_mailbox_whose_credential_is_refused_end_after_their_time(
    engine: Database, watches: SqlWatchStore
) -> None:
    registrations = store(engine)
    phone, ben = await activate(registrations, watches), await activate(registrations, watches, "ben")
    refused = Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401)
    await watches.commit([entry(await own_all(watches), Progress(condition=refused))], NOW)

    assert await registrations.sweep(NOW + 20 * DAY) == {}
    assert await registrations.sweep(NOW + 20 * DAY + SECOND) == {Ending.EXPIRED: 1}
    assert await registrations.view(phone.id) is None
    assert await registrations.view(ben.id) is not None


async def test_a_new_credential_for_a_mailbox_that_was_refused_for_long_has_its_try(
    engine: Database, watches: SqlWatchStore
) -> None:
    registrations = store(engine)
    phone, other = await activate(registrations, watches), await activate(registrations, watches, device="tablet")
    refused = Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401)
    await watches.commit([entry(await own_all(watches), Progress(condition=refused))], NOW)
    late = NOW + 20 * DAY
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"new"), late)
    new = await register(registrations, device="new", created_at=late)

    assert await registrations.sweep(late + SECOND) == {Ending.EXPIRED: 1}
    await watches.accept(candidate_of(phone, b"new"), late + DAY / 2)
    assert await registrations.sweep(late + DAY / 2) == {}

    kept = await registrations.look_at([phone.id, other.id, new.id], [])
    assert kept.keys() == {phone.id, new.id}


@pytest.mark.parametrize("sign", ["none", "seen", "delivered"])
async def test_an_untouched_registration_ends_after_its_time(
    engine: Database, watches: SqlWatchStore, sign: str
) -> None:
    registrations = store(engine)
    phone = await activate(registrations, watches)
    touched = NOW + 100 * DAY
    if sign == "seen":
        await registrations.saw(phone.id, touched)
    if sign == "delivered":
        async with transaction(engine) as connection:
            await connection.execute(sa.update(registration).values(last_push_at=touched))
    last: datetime = NOW if sign == "none" else touched

    assert await registrations.sweep(last + 180 * DAY) == {}
    assert await registrations.sweep(last + 180 * DAY + SECOND) == {Ending.EXPIRED: 1}


async def test_what_is_kept_for_ever_does_not_end(engine: Database, watches: SqlWatchStore) -> None:
    registrations = store(engine, FOR_EVER)
    phones = [await activate(registrations, watches, device=name) for name in ("a", "b", "c")]
    for phone, state in zip(
        phones, (RegistrationState.TOKEN_GONE, RegistrationState.REFUSED, RegistrationState.ACTIVE), strict=True
    ):
        await turn(engine, phone, state)
    await registrations.sweep(NOW)

    assert await registrations.sweep(NOW + 10_000 * DAY) == {}


async def test_a_view_tells_when_the_app_was_seen(engine: Database, watches: SqlWatchStore) -> None:
    registrations = store(engine)
    phone = await activate(registrations, watches)
    waiting = await register(registrations, "ben")
    before = await registrations.view(phone.id)
    await registrations.saw(phone.id, NOW + DAY)
    view = await registrations.view(phone.id)

    assert before is not None
    assert view is not None
    assert (before.seen_at, view.seen_at) == (None, NOW + DAY)
    await watches.refuse(candidate_of(waiting), NOW)
    assert await registrations.sweep(NOW + DAY + SECOND) == {Ending.EXPIRED: 1}


async def test_more_rows_than_one_slice_are_noted_in_one_sweep(engine: Database, watches: SqlWatchStore) -> None:
    registrations = store(engine)
    phones = [await activate(registrations, watches, device=name) for name in "abcde"]
    for phone in phones:
        await turn(engine, phone, RegistrationState.TOKEN_GONE)

    await registrations.sweep(NOW, at_once=2)

    assert await registrations.sweep(NOW + 31 * DAY, at_once=2) == {Ending.EXPIRED: 5}
