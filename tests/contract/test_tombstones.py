"""Test what is left of registrations that ended: for how long their apps learn how."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from relay.domain.model import Ending, Registration, RegistrationChange, RegistrationId, Tombstone
from relay.domain.retention import Retention
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import tombstone
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate, candidate_of, new_mailbox, new_registration, register
from tests.transactions import transaction

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


async def left_of(registrations: SqlRegistrationStore, registration: Registration) -> Ending | None:
    found = await registrations.tombstone(registration.id)
    assert found is None or found == Tombstone(registration.secret_hash, found.ending)
    return None if found is None else found.ending


async def test_a_registration_that_is_there_or_never_was_has_no_tombstone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await activate(registrations, watches)

    assert await left_of(registrations, phone) is None
    assert await registrations.tombstone(RegistrationId("unknown")) is None


async def test_a_removed_registration_leaves_a_tombstone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await activate(registrations, watches)

    await registrations.remove(phone.id, NOW)
    await registrations.remove(phone.id, NOW + DAY)

    assert await registrations.view(phone.id) is None
    assert await left_of(registrations, phone) is Ending.REMOVED


async def test_a_registration_whose_secret_nobody_has_leaves_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await register(registrations)
    await watches.refuse(candidate_of(phone), NOW)

    await registrations.withdraw(phone.id)

    assert await registrations.view(phone.id) is None
    assert await left_of(registrations, phone) is None


async def test_a_registration_is_not_withdrawn_under_a_newer_credential(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await register(registrations)
    await watches.refuse(candidate_of(phone), NOW)
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"the right one"), NOW)

    await registrations.withdraw(phone.id)

    view = await registrations.view(phone.id)
    assert view is not None
    assert view.candidate_pending


async def test_a_registration_that_waits_and_is_replaced_leaves_a_tombstone(
    registrations: SqlRegistrationStore,
) -> None:
    unchecked, latest = (new_registration("ann", device, device_token="same") for device in ("a", "b"))
    await registrations.create(new_mailbox(), unchecked, b"sealed")

    await registrations.create(new_mailbox(), latest, b"sealed")

    assert await left_of(registrations, unchecked) is Ending.REPLACED
    assert await left_of(registrations, latest) is None


async def test_what_no_server_accepted_leaves_a_tombstone_for_a_day(registrations: SqlRegistrationStore) -> None:
    phone = await register(registrations)
    later = NOW + DAY + SECOND

    assert await registrations.sweep(later) == {Ending.EXPIRED: 1}

    assert await left_of(registrations, phone) is Ending.EXPIRED
    await registrations.sweep(later + DAY)
    assert await left_of(registrations, phone) is Ending.EXPIRED
    await registrations.sweep(later + DAY + SECOND)
    assert await left_of(registrations, phone) is None


@pytest.mark.parametrize("days", [0.25, 7, 30])
async def test_a_tombstone_goes_after_its_time(engine: Database, watches: SqlWatchStore, days: float) -> None:
    keep = timedelta(days=days)
    registrations = SqlRegistrationStore(engine, LocalWakeups(), retention=Retention(keep))
    phone, stranger = await activate(registrations, watches), await register(registrations, "ben")
    await registrations.remove(phone.id, NOW)
    await registrations.remove(stranger.id, NOW)

    await registrations.sweep(NOW + keep)
    assert await left_of(registrations, phone) is Ending.REMOVED
    assert (await left_of(registrations, stranger) is None) is (keep > DAY)
    await registrations.sweep(NOW + keep + SECOND)
    assert await left_of(registrations, phone) is None


async def test_a_tombstone_of_a_clock_that_was_ahead_goes_after_its_time(
    engine: Database, watches: SqlWatchStore
) -> None:
    keep = timedelta(days=30)
    registrations = SqlRegistrationStore(engine, LocalWakeups(), retention=Retention(keep))
    phone = await activate(registrations, watches)
    await registrations.remove(phone.id, NOW + 365 * DAY)

    await registrations.sweep(NOW)
    await registrations.sweep(NOW + keep)
    assert await left_of(registrations, phone) is Ending.REMOVED
    await registrations.sweep(NOW + keep + SECOND)
    assert await left_of(registrations, phone) is None


async def test_an_id_that_ends_twice_has_the_later_tombstone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await activate(registrations, watches)
    await registrations.remove(phone.id, NOW)
    again = await activate(registrations, watches)
    assert again.id == phone.id

    await registrations.remove(again.id, NOW + 20 * DAY)

    await registrations.sweep(NOW + 40 * DAY)
    assert await left_of(registrations, again) is Ending.REMOVED


async def test_an_ending_that_only_a_newer_version_knows_counts_as_expired(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    phone = await activate(registrations, watches)
    await registrations.remove(phone.id, NOW)
    async with transaction(engine) as connection:
        await connection.execute(sa.update(tombstone).values(ending="moved"))

    assert await left_of(registrations, phone) is Ending.EXPIRED


async def test_more_registrations_than_one_slice_end_in_one_sweep(registrations: SqlRegistrationStore) -> None:
    for number in range(5):
        await register(registrations, f"user{number}")

    assert await registrations.sweep(NOW + 2 * DAY, at_once=2) == {Ending.EXPIRED: 5}
