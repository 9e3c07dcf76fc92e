"""The path of marks to phones over a real database and real HTTP/2 with TLS, with a clock that the test moves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import Environment, Platform, Registration, RegistrationChange, RegistrationState
from relay.domain.outcome import LastOutcome, OutcomeKind
from relay.domain.pacing import Pacing
from relay.domain.ports.wakeups import Topic
from relay.push.dispatch import Dispatcher
from relay.sandbox.apns import ApnsSimulator
from relay.sandbox.scripts import Answer
from relay.store.engine import open_database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate, entry, leases, own_all
from tests.integration.push_world import APP, apns
from tests.migrating import write_new_sqlite
from tests.waiting import SOON, until

TOKEN = "4a" * 32


@dataclass
class World:
    """A running dispatcher between its store and a simulated APNs."""

    simulator: ApnsSimulator
    dispatcher: Dispatcher
    registrations: SqlRegistrationStore
    watches: SqlWatchStore
    outbox: SqlOutboxStore
    wakeups: LocalWakeups
    now: datetime = NOW
    epoch: int = 0
    phones: list[Registration] = field(default_factory=list)

    def forward(self, seconds: float) -> None:
        """Move the clock forward, and wake the dispatcher."""
        self.now += timedelta(seconds=seconds)
        self.wakeups.wake(Topic.OUTBOX_APNS)

    async def register(self, name: str) -> Registration:
        token = f"{len(self.phones):064x}" if self.phones else TOKEN
        self.phones.append(await activate(self.registrations, self.watches, name, app=APP, device_token=token))
        return self.phones[-1]

    async def change(self, name: str, count: int = 1) -> None:
        change = Progress(changes=(Change(CollectionClass.EMAIL, count),))
        await self.watches.commit([entry(self.epoch, change, name)], self.now)

    async def view(self, registration: Registration) -> Registration:
        view = await self.registrations.view(registration.id)
        assert view is not None
        return view.registration

    async def settled(self) -> None:
        """Wait until no mark is left."""

        async def empty() -> bool:
            return await self.outbox.next_due(Platform.APNS) is None

        await until(empty)

    async def shown(self, registration: Registration, fact: Callable[[Registration], bool]) -> None:
        """Wait until a registration is in a state."""

        async def look() -> bool:
            return fact(await self.view(registration))

        await until(look)

    @property
    def counts(self) -> list[int]:
        return [json.loads(push.body)["relay"]["count"] for push in self.simulator.received if push.status == 200]


@asynccontextmanager
async def open_world(folder: Path, pacing: Pacing) -> AsyncIterator[World]:
    url = await write_new_sqlite(folder / "relay.sqlite3")
    async with open_database(url) as engine, apns(folder) as (simulator, sender):
        wakeups = LocalWakeups()
        outbox = SqlOutboxStore(engine, wakeups, pacing)
        watches = SqlWatchStore(engine, wakeups)
        registrations = SqlRegistrationStore(engine, wakeups)
        worlds: list[World] = []
        dispatcher = Dispatcher(outbox, Platform.APNS, sender, wakeups, lambda: worlds[0].now, Random(1), "the-test")
        worlds.append(World(simulator, dispatcher, registrations, watches, outbox, wakeups))
        worlds[0].epoch = await own_all(watches)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(dispatcher.run())
            yield worlds[0]
            run.cancel()


async def test_the_first_change_rings_and_those_soon_after_are_one_push(tmp_path: Path) -> None:
    async with open_world(tmp_path, Pacing(coalesce=2.0)) as world:
        await world.register("ann")
        await world.change("ann")
        await world.simulator.wait(1, SOON)
        await world.settled()

        for _ in range(5):
            await world.change("ann")
        world.forward(1.9)
        await asyncio.sleep(0.2)
        assert world.counts == [1]

        world.forward(0.2)
        await world.settled()
        assert world.counts == [1, 5]


async def test_a_token_of_the_wrong_environment_is_kept_and_heals_when_the_app_corrects_it(tmp_path: Path) -> None:
    async with open_world(tmp_path, Pacing()) as world:
        ann = await world.register("ann")
        ben = await world.register("ben")
        world.simulator.fail(Answer(400, "BadDeviceToken"))
        await world.change("ann")
        await until(lambda: world.dispatcher.stats.outcomes[OutcomeKind.REFUSED] == 1)
        await world.shown(ann, lambda own: own.quarantine is not None)

        await world.change("ann")  # no reason to try again
        await world.change("ben")
        await world.simulator.wait(2, SOON)
        assert (await world.view(ben)).quarantine is None
        assert len(world.simulator.received) == 2

        await world.registrations.change(ann.id, RegistrationChange(environment=Environment.SANDBOX), world.now)
        await world.settled()
        assert world.counts == [1, 2]
        assert (await world.view(ann)).last_outcome == LastOutcome(OutcomeKind.DELIVERED)


async def test_a_re_check_after_an_hour_heals_by_itself(tmp_path: Path) -> None:
    async with open_world(tmp_path, Pacing()) as world:
        ann = await world.register("ann")
        world.simulator.fail(Answer(400, "DeviceTokenNotForTopic"))
        await world.change("ann")
        await world.shown(ann, lambda own: own.quarantine is not None)

        world.forward(2 * 3600.0)
        await world.settled()

        assert world.counts == [1]
        assert (await world.view(ann)).quarantine is None


async def test_only_a_410_not_older_than_the_token_ends_a_registration_and_its_watch(tmp_path: Path) -> None:
    async with open_world(tmp_path, Pacing()) as world:
        ann = await world.register("ann")
        world.simulator.gone(TOKEN, NOW - timedelta(days=1))
        await world.change("ann")
        await until(lambda: world.dispatcher.stats.outcomes[OutcomeKind.TOKEN_GONE] == 1)
        await world.shown(ann, lambda own: own.last_outcome is not None)
        assert (await world.view(ann)).state is RegistrationState.ACTIVE
        await world.watches.take_dirty(await leases(world.watches, range(256)), world.now)

        world.simulator.gone(TOKEN, NOW + timedelta(minutes=1))
        world.forward(3600.0)
        await world.shown(ann, lambda own: own.state is RegistrationState.TOKEN_GONE)

        (record,) = await world.watches.take_dirty(await leases(world.watches, range(256)), world.now)
        assert record.memory.classes == frozenset()


async def test_an_outage_is_shown_and_its_end_brings_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(tmp_path, Pacing()) as world:
        names = [f"user{number}" for number in range(30)]
        for name in names:
            await world.register(name)
        world.simulator.fail_handshakes()
        change = Progress(changes=(Change(CollectionClass.EMAIL, 1),))
        await world.watches.commit([entry(world.epoch, change, name) for name in names], world.now)
        await until(lambda: world.dispatcher.stats.outage is not None)
        assert world.counts == []

        world.simulator.heal()
        world.forward(60.0)
        world.dispatcher.hurry()
        await world.settled()

        assert world.dispatcher.stats.outage is None
        assert sorted(world.counts) == [1] * 30
        assert caplog.messages.count("push provider away") == 1
