"""The wait for verdicts: one look for all requests, and an answer to each whatever happens."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from relay.domain.errors import RowUnreadable, StoreUnavailable
from relay.domain.model import RegistrationId, RegistrationView
from relay.domain.ports.wakeups import Topic
from relay.registration.errors import Replaced
from relay.registration.verdicts import Verdict, VerdictWaiter
from relay.store.wakeups import LocalWakeups
from tests.contract.samples import NOW, new_mailbox, new_registration
from tests.fakes.registrations import MemoryRegistrationStore

pytestmark = pytest.mark.looptime

MANY = 40


class Looks(MemoryRegistrationStore):
    """A store that counts how often it was asked for many registrations, and may break at that."""

    def __init__(self) -> None:
        super().__init__(LocalWakeups())
        self.looks = 0
        self.fault: Exception | None = None
        self.unreadable: set[RegistrationId] = set()

    async def look_at(
        self, ids: Collection[RegistrationId], seen: Collection[RegistrationId]
    ) -> Mapping[RegistrationId, RegistrationView | None]:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return await super().look_at([id_ for id_ in ids if id_ not in self.unreadable], seen)

    async def view(self, registration_id: RegistrationId) -> RegistrationView | None:
        if registration_id in self.unreadable:
            raise RowUnreadable(registration_id, "state: no such state")
        return await super().view(registration_id)


async def made(number: int) -> tuple[Looks, VerdictWaiter, list[RegistrationId]]:
    """Return a store with so many candidates that wait, and what waits for their verdicts."""
    store, ids = Looks(), list[RegistrationId]()
    for each in range(number):
        owner, phone = new_mailbox(f"user{each}"), new_registration(f"user{each}")
        await store.create(owner, phone, b"sealed")
        ids.append(phone.id)
    return store, VerdictWaiter(store, store.wakeups), ids


async def test_all_requests_that_wait_share_their_looks_however_many_verdicts_come() -> None:
    store, verdicts, ids = await made(MANY)
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(verdicts.wait(id_)) for id_ in ids]
        await asyncio.sleep(0.5)
        for id_ in ids:
            store.accept(id_, NOW)
            await asyncio.sleep(0.001)

    assert [wait.result()[0] for wait in waits] == [Verdict.ACCEPTED] * MANY
    assert store.looks <= MANY * 0.001 / 0.02 + 2


async def test_the_looks_end_with_the_last_wait_and_begin_again_with_the_next_one() -> None:
    store, verdicts, (first, second) = await made(2)
    for id_ in (first, second):
        wait = asyncio.ensure_future(verdicts.wait(id_))
        await asyncio.sleep(0.1)
        store.refuse(id_, NOW)
        assert (await wait)[0] is Verdict.REFUSED
        looks = store.looks
        await asyncio.sleep(10)
        assert store.looks == looks


async def test_a_registration_that_is_gone_ends_its_own_wait_only() -> None:
    store, verdicts, (gone, other) = await made(2)
    waits = [asyncio.ensure_future(verdicts.wait(id_)) for id_ in (gone, other)]
    await asyncio.sleep(0.1)
    await store.remove(gone, NOW)
    store.wakeups.wake(Topic.VERDICTS)

    with pytest.raises(Replaced):
        await waits[0]
    assert (await waits[1])[0] is Verdict.PENDING


async def test_a_request_that_is_given_up_leaves_the_others_waiting() -> None:
    store, verdicts, (given_up, other) = await made(2)
    waits = [asyncio.ensure_future(verdicts.wait(id_)) for id_ in (given_up, other)]
    await asyncio.sleep(0.1)
    waits[0].cancel()
    store.accept(other, NOW)

    assert (await waits[1])[0] is Verdict.ACCEPTED


async def test_a_row_that_cannot_be_read_is_reported_at_the_end_of_the_wait() -> None:
    store, verdicts, (bad,) = await made(1)

    store.unreadable.add(bad)
    with pytest.raises(RowUnreadable):
        await verdicts.wait(bad)


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), ZeroDivisionError()])
async def test_a_fault_of_the_looks_reaches_every_request(fault: Exception) -> None:
    store, verdicts, ids = await made(2)
    store.fault = fault
    waits = [asyncio.ensure_future(verdicts.wait(id_)) for id_ in ids]

    for wait in waits:
        with pytest.raises(type(fault)):
            await wait
