"""Test that the store in memory, on which the API is tested, does what the SQL store does: any calls, same answers."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.errors import MailboxExists
from relay.domain.model import Candidate, Environment, Mark, Mode, RegistrationChange, RegistrationId
from relay.domain.ports.registration import RegistrationStore
from relay.domain.retention import Retention
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, new_mailbox, new_registration
from tests.fakes.registrations import MemoryRegistrationStore

SHORT = Retention(timedelta(minutes=30), timedelta(minutes=20), None, None, None)
NAMES = ("ann", "ben")
DEVICES = ("phone", "pad")
STEPS = 100


def some_change(random: Random) -> RegistrationChange:
    return RegistrationChange(
        device_token=random.choice((None, "another-token")),
        environment=random.choice((None, *Environment)),
        classes=random.choice((None, frozenset({CollectionClass.NOTES}))),
        mode=random.choice((None, *Mode)),
        locale=random.choice((None, "fr")),
        proves=random.choice((False, True)),
        sealed_candidate=random.choice((None, b"sealed again")),
    )


class Pair:
    """Do the same to both stores, and compare what they say."""

    def __init__(self, memory: MemoryRegistrationStore, sql: SqlRegistrationStore, watches: SqlWatchStore) -> None:
        self.memory = memory
        self.stores: tuple[RegistrationStore, RegistrationStore] = (memory, sql)
        self.watches = watches
        self.done: list[str] = []

    async def both(self, call: Callable[[RegistrationStore], Awaitable[object]]) -> None:
        said: list[object] = []
        for store in self.stores:
            try:
                said.append(await call(store))
            except MailboxExists:
                said.append(MailboxExists)
        assert said[0] == said[1], self.done

    async def step(self, random: Random, number: int) -> None:
        name, device = random.choice(NAMES), random.choice(DEVICES)
        id_ = RegistrationId(f"reg-{name}-{device}")
        now = NOW + timedelta(minutes=number)
        what = random.choice(
            (
                "create",
                "rival",
                "change",
                "change",
                "accept",
                "refuse",
                "remove",
                "mark",
                "test",
                "expire",
                "tombstone",
            )
        )
        self.done.append(f"{what} {id_}")
        calls: dict[str, Callable[[RegistrationStore], Awaitable[object]]] = {
            "remove": lambda store: store.remove(id_, now),
            "mark": lambda store: store.mark(id_, Mark.TEST, now, f"test-{number}"),
            "test": lambda store: store.may_test(id_, now, timedelta(minutes=3)),
            "expire": lambda store: store.sweep(now),
            "tombstone": lambda store: store.tombstone(id_),
        }
        match what:
            case "create" if id_ not in self.memory.registrations:
                token = random.choice(("one-token", f"token-{device}"))
                registration = new_registration(
                    name, device, created_at=now, device_token=token, must_prove=random.random() < 0.3
                )
                await self.both(lambda store: store.create(new_mailbox(name), registration, b"sealed"))
            case "rival":
                mailbox = replace(new_mailbox(name), id=MailboxId("mb-rival"))
                registration = new_registration(name, "rival", mailbox_id=mailbox.id)
                if await self.memory.mailbox_of(mailbox.server, mailbox.user) is not None:
                    await self.both(lambda store: store.create(mailbox, registration, b"sealed"))
            case "change":
                change = some_change(random)
                await self.both(lambda store: store.change(id_, change, now))
            case "accept" | "refuse" if self.memory.candidates:
                id_ = random.choice(sorted(self.memory.candidates))
                candidate = Candidate(id_, self.memory.registrations[id_].mailbox_id, self.memory.candidates[id_])
                getattr(self.memory, what)(id_, now)
                await getattr(self.watches, what)(candidate, now)
            case _ if what in calls:
                await self.both(calls[what])
            case _:
                self.done.pop()

    async def compare(self) -> None:
        for name in NAMES:
            user = new_mailbox(name).user
            await self.both(lambda store, user=user: store.mailbox_of("office", user))  # type: ignore[misc]
            for device in DEVICES:
                id_ = RegistrationId(f"reg-{name}-{device}")
                await self.both(lambda store, id_=id_: store.view(id_))  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_any_calls_get_the_same_answers(engine: Database, watches: SqlWatchStore, seed: int) -> None:
    random = Random(seed)
    registrations = SqlRegistrationStore(engine, LocalWakeups(), retention=SHORT)
    pair = Pair(MemoryRegistrationStore(LocalWakeups(), SHORT), registrations, watches)

    for number in range(STEPS):
        await pair.step(random, number)
        await pair.compare()

    assert {step.split()[0] for step in pair.done} >= {"create", "rival", "accept", "refuse", "change", "remove"}
