"""The whole watcher against the simulated server, over TLS: what reaches the journal is what arrived."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random

import pytest
import trustme

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.fleet import Fleet
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.names import CollectionClass, CollectionId, DeviceId, MailboxId, ProtocolVersion
from eas_watcher.progress import Change, Collection, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.runner import Surroundings
from eas_watcher.states import Policy
from eas_watcher.transport.http import open_transport
from eas_watcher.wire import Account
from relay.sandbox.clock import now
from relay.sandbox.eas import (
    AnswerHttp,
    AnswerStatus,
    Cut,
    EasRules,
    EasSimulator,
    FailurePlan,
    Garble,
    open_eas_simulator,
)

ANN = "ann@example.com"
MAILBOX = MailboxId("00112233445566ff")
LIMIT = 20.0  # seconds until a test that waits gives up


@dataclass
class MemoryJournal:
    """Keeps what is committed, as a store would."""

    partnership: Partnership = field(default_factory=Partnership)
    collections: dict[CollectionId, Collection] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    refusals: int = 0

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        assert mailbox == MAILBOX
        self.partnership = progress.partnership or self.partnership
        self.collections |= {collection.id: collection for collection in progress.collections}
        for dropped in progress.dropped:
            del self.collections[dropped]
        self.changes += progress.changes
        if progress.condition is not None:
            self.conditions.append(progress.condition)
        if progress.refusals is not None:
            self.refusals = progress.refusals

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        pass

    def memory(self) -> Memory:
        return Memory(self.partnership, tuple(self.collections.values()), accepted=True, refusals=self.refusals)


@dataclass
class Watching:
    """One watched mailbox, the server it is on, and what was committed."""

    simulator: EasSimulator
    journal: MemoryJournal
    fleet: Fleet
    start: Callable[[], None]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_held(self) -> None:
        await self.until(lambda: self.simulator.held == 1)

    async def until_pinged_again(self, pings: int) -> None:
        await self.until(lambda: self.simulator.records.requests["Ping"] > pings and self.simulator.held == 1)

    @property
    def pings(self) -> int:
        return self.simulator.records.requests["Ping"]


@asynccontextmanager
async def watching(
    policy: Policy | None = None, rules: EasRules | None = None, password: str = "secret"
) -> AsyncIterator[Watching]:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    broken: list[MailboxId] = []
    async with open_eas_simulator(tls=served, rules=rules) as simulator, open_transport(trusting) as transport:
        simulator.add_mailbox(ANN, "secret")
        journal = MemoryJournal()
        fleet = Fleet(Surroundings(journal, Random(1), now, asyncio.Semaphore(4)), broken.append)
        account = Account(MAILBOX, simulator.url, ANN, DeviceId("D0011223344"), BasicCredential(ANN, password))
        start = lambda: fleet.start(account, transport, journal.memory(), policy or Policy())  # noqa: E731
        try:
            start()
            yield Watching(simulator, journal, fleet, start)
        finally:
            await fleet.stop_all()
        assert not broken
        assert simulator.overlaps(ANN) == 0
        assert not simulator.complaints


@pytest.mark.parametrize("version", list(ProtocolVersion))
async def test_a_delivered_mail_is_one_committed_change(version: ProtocolVersion) -> None:
    async with watching(Policy(versions=(version,))) as watched:
        await watched.until_held()
        watched.simulator.deliver(ANN)
        await watched.until(lambda: bool(watched.journal.changes))
        await watched.until_held()

        assert watched.journal.changes == [Change(CollectionClass.EMAIL, 1)]
        assert watched.journal.conditions[-1].state is WatchState.WATCHING
