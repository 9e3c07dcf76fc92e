"""Test that nothing which was removed after a backup rings again once the backup is restored."""

from datetime import timedelta

import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.reasons import Reason
from relay.domain.model import Ending, Mark, Platform, Registration, RegistrationChange, RegistrationState
from relay.store.engine import Database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.restoring import distrust
from relay.store.tables import candidate
from relay.store.watches import SqlWatchStore
from tests.contract.samples import BY_CLEO, LATER, NEW_MAIL, NOW, activate, candidate_of, entry, own_all, register
from tests.transactions import transaction

DAY = timedelta(days=1)


async def ringing(watches: SqlWatchStore, outbox: SqlOutboxStore) -> set[str]:
    """Return the registrations that get a push when mail arrives, and what waits for them."""
    await watches.commit([entry(await own_all(watches), Progress(changes=(NEW_MAIL,)))], LATER)
    found = await outbox.claim(Platform.APNS, 10, "push-1", LATER + DAY, LATER + timedelta(minutes=1))
    return {push.registration_id for push in found.pushes}


async def state_of(registrations: SqlRegistrationStore, phone: Registration) -> RegistrationState:
    view = await registrations.view(phone.id)
    assert view is not None
    return view.registration.state


async def test_after_a_restore_a_registration_rings_only_once_its_app_sent_its_token(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    removed_since = await activate(registrations, watches)
    here = await activate(registrations, watches, device="tablet")
    await watches.commit([entry(await own_all(watches), Progress(changes=(NEW_MAIL,)))], NOW)

    assert await distrust(engine, BY_CLEO) == 2

    assert await ringing(watches, outbox) == set()
    await registrations.change(here.id, RegistrationChange(device_token=here.device_token), LATER)
    assert await state_of(registrations, here) is RegistrationState.ACTIVE
    assert await ringing(watches, outbox) == {here.id}
    await registrations.sweep(LATER)
    assert await registrations.sweep(LATER + 31 * DAY) == {Ending.EXPIRED: 1}
    assert await registrations.view(removed_since.id) is None


async def test_a_restored_candidate_makes_nothing_active(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    waiting = await register(registrations)

    assert await distrust(engine, BY_CLEO) == 0
    await watches.accept(candidate_of(waiting), LATER)

    assert await state_of(registrations, waiting) is RegistrationState.VERIFYING
    async with transaction(engine) as connection:
        assert (await connection.execute(sa.select(candidate))).all() == []


async def test_a_wiped_registration_still_gets_its_last_push_after_a_restore(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    phone = await activate(registrations, watches)
    wiped = Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE), attention=True)
    await watches.commit([entry(await own_all(watches), wiped)], NOW)

    assert await distrust(engine, BY_CLEO) == 0

    (push,) = (await outbox.claim(Platform.APNS, 10, "push-1", LATER + DAY, LATER)).pushes
    assert (push.registration_id, push.mark) == (phone.id, Mark.ATTENTION)
