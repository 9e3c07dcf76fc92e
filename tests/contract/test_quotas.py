"""How many registrations a mailbox has, for how long one waits to be accepted, and how often it may be tested."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.names import MailboxId
from relay.domain.errors import MailboxFull
from relay.domain.model import MOST_REGISTRATIONS, Ending, Registration, RegistrationId
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import mailbox
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate, candidate_of, leases, new_mailbox, register
from tests.transactions import transaction

DAY = timedelta(days=1)
PAUSE = timedelta(seconds=10)


async def fill(store: SqlRegistrationStore, watches: SqlWatchStore, number: int) -> list[Registration]:
    return [await activate(store, watches, "ann", f"phone-{n}") for n in range(number)]


async def test_a_mailbox_takes_no_more_registrations_than_it_may_have(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await fill(registrations, watches, MOST_REGISTRATIONS)

    with pytest.raises(MailboxFull):
        await register(registrations, "ann", "one-more")
    await register(registrations, "ben", "phone")

    assert await registrations.view(RegistrationId("reg-ann-one-more")) is None


async def test_a_device_that_registers_again_takes_no_room(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phones = await fill(registrations, watches, MOST_REGISTRATIONS)

    again = await register(registrations, "ann", "again", device_token=phones[0].device_token)

    assert await registrations.view(again.id) is not None


async def test_registrations_that_came_to_nothing_make_room_the_oldest_first(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    refused = [
        await register(registrations, "ann", f"wrong-{n}", created_at=NOW + n * PAUSE)
        for n in range(MOST_REGISTRATIONS)
    ]
    for each in refused[:2]:
        await watches.refuse(candidate_of(each), NOW)

    for n in range(2):
        await register(registrations, "ann", f"new-{n}", created_at=NOW + DAY)
        assert await registrations.view(refused[n].id) is None
    with pytest.raises(MailboxFull):
        await register(registrations, "ann", "new-3")


async def test_what_no_server_accepted_ends(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    ann = await activate(registrations, watches)
    old = await register(registrations, "ann", "old")
    young = await register(registrations, "ben", "young", created_at=NOW + DAY)
    async with transaction(engine) as connection:
        await connection.execute(sa.update(mailbox).values(dirty=False))

    assert await registrations.sweep(NOW + DAY + timedelta(hours=1)) == {Ending.EXPIRED: 1}

    assert await registrations.view(old.id) is None
    assert await registrations.view(ann.id) is not None
    assert await registrations.view(young.id) is not None
    async with transaction(engine) as connection:
        assert set(await connection.scalars(sa.select(mailbox.c.id).where(mailbox.c.dirty))) == {"mb-ann"}
    assert await registrations.sweep(NOW + DAY + timedelta(hours=1)) == {}


async def test_a_registration_that_was_accepted_once_does_not_end_when_it_waits_again(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    ann = await activate(registrations, watches)
    async with transaction(engine) as connection:
        await connection.execute(sa.text("UPDATE registration SET state = 'verifying'"))

    assert await registrations.sweep(NOW + 2 * DAY) == {}
    assert await registrations.view(ann.id) is not None


async def test_a_mailbox_that_nobody_registered_is_forgotten(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    ghost = await register(registrations)
    async with transaction(engine) as connection:
        await connection.execute(sa.text("DELETE FROM registration"))
        await connection.execute(sa.update(mailbox).values(dirty=False))

    await registrations.sweep(NOW + 2 * DAY)

    (record,) = await watches.take_dirty(await leases(watches, [new_mailbox().shard]), NOW)
    assert (record.mailbox.id, record.registrations) == (ghost.mailbox_id, 0)
    assert await watches.forget(MailboxId(ghost.mailbox_id))


async def test_a_test_push_is_allowed_once_in_a_while(registrations: SqlRegistrationStore) -> None:
    ann, ben = await register(registrations), await register(registrations, "ben")

    allowed = [
        await registrations.may_test(ann.id, NOW + at * timedelta(seconds=1), PAUSE) for at in (0, 1, 9, 10, 11, 25)
    ]

    assert allowed == [True, False, False, True, False, True]
    assert await registrations.may_test(ben.id, NOW, PAUSE)
    assert not await registrations.may_test(RegistrationId("missing"), NOW, PAUSE)


async def test_a_clock_that_was_wrong_holds_no_test_push_back(registrations: SqlRegistrationStore) -> None:
    ann = await register(registrations)
    await registrations.may_test(ann.id, NOW + DAY, PAUSE)

    assert await registrations.may_test(ann.id, NOW, PAUSE)
