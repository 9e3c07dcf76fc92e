"""Promise 3 under kills: push processes are killed again and again while 10,000 changes are pushed."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Final

import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.model import CommitEntry
from relay.process.clock import now
from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess, open_relay
from relay.store.engine import Database, open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import outbox
from relay.store.wakeups import PostgresWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import activate, lease_all
from tests.ports import free_ports
from tests.site import PASSWORD, Site
from tests.soak.ledger import Ledger
from tests.transactions import transaction
from tests.waiting import until

CHANGES: Final = 10_000
TOLERATED: Final = CHANGES // 100
"""The most repetitions: pushes that were sent and whose process was killed before it noted that."""

PROCESSES: Final = 3
MAILBOXES: Final = 2_000
CLASSES: Final = tuple(CollectionClass)
KILLS: Final = 15
SPAN: Final = 75.0  # seconds over which the changes are spread
LEASE: Final = 240.0  # seconds until the claims of a killed process have run out and its pushes are sent
SHARD: Final = 7

ROUNDS: Final = 8
PER_ROUND: Final = CHANGES // ROUNDS
ROUND_SPAN: Final = 15.0  # seconds over which the mails of a round are spread: a busy machine keeps up with that rate
CLIENTS: Final = 16  # registrations at a time


def token_of(number: int) -> str:
    return f"{number:064x}"


async def test_three_push_processes_on_postgresql(site: Site, database: str) -> None:
    random, ledger, apns = Random(20261124), Ledger(), site.sandbox.apns
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_database(database))
        wakeups = PostgresWakeups(database, random)
        telling = asyncio.ensure_future(wakeups.run())
        stack.callback(telling.cancel)
        watches = SqlWatchStore(engine, wakeups)
        await register_in(SqlRegistrationStore(engine, wakeups), watches)
        epochs = await lease_all(watches, "the test")
        async with asyncio.TaskGroup() as tasks:
            over = asyncio.Event()
            ports = free_ports(PROCESSES)
            killed = [tasks.create_task(keep_alive(site, database, port, over, Random(port))) for port in ports]
            await change_all(watches, epochs[SHARD], ledger, random)
            await until(lambda: not ledger.unpaid(apns.received), LEASE)
            # The process that was killed last may have sent all pushes that it held, and noted none.
            await emptied(engine)
            over.set()

    assert ledger.changes == CHANGES
    assert sum(task.result() for task in killed) >= KILLS // 2  # a busy machine starts them slowly
    assert ledger.repeats(apns.received) <= TOLERATED


async def test_one_process_on_sqlite(site: Site) -> None:
    random, ledger, sandbox = Random(20261124), Ledger(), site.sandbox
    for number in range(PER_ROUND):
        sandbox.eas.add_mailbox(user_of(number), PASSWORD)
    async with site.relay():
        await register_all(site)
        await site.held(PER_ROUND)

    for _ in range(ROUNDS):
        deadly = random.uniform(0.2, ROUND_SPAN)
        async with site.relay() as relay:
            await site.held(PER_ROUND)
            delivery = asyncio.ensure_future(deliver_to_all(site, ledger, random))
            await asyncio.sleep(deadly)
            relay.kill()
            await relay.process.wait()
        async with site.relay():
            await delivery
            await until(lambda: not ledger.unpaid(sandbox.apns.received), LEASE)

    assert ledger.changes == CHANGES
    assert ledger.repeats(sandbox.apns.received) <= TOLERATED
    assert sandbox.eas.records.overlaps == {}


# --- PostgreSQL: the test is the watch role


async def emptied(engine: Database) -> None:
    """Wait until no mark is left."""
    left = sa.select(sa.func.count()).select_from(outbox)
    async with asyncio.timeout(LEASE):
        while True:
            async with transaction(engine) as connection:
                if not await connection.scalar(left):
                    return
            await asyncio.sleep(0.5)


async def register_in(store: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    for number in range(MAILBOXES):
        await activate(
            store,
            watches,
            f"user{number}",
            app=APP,
            device_token=token_of(number),
            classes=frozenset(CLASSES),
            shard=SHARD,
        )


async def change_all(watches: SqlWatchStore, epoch: int, ledger: Ledger, random: Random) -> None:
    """Commit one change of each class for each mailbox, in small groups and any order."""
    changes = [(number, cls) for number in range(MAILBOXES) for cls in CLASSES]
    random.shuffle(changes)
    begun_at = asyncio.get_running_loop().time()
    step = 10
    for start in range(0, len(changes), step):
        group = changes[start : start + step]
        moment = time.perf_counter_ns()
        for number, cls in group:
            ledger.owe(token_of(number), cls.value, moment)
        batch = [
            CommitEntry(MailboxId(f"mb-user{number}"), SHARD, epoch, Progress(changes=(Change(cls, 1),)))
            for number, cls in group
        ]
        assert not await watches.commit(batch, now())
        due_at = begun_at + SPAN * (start + step) / len(changes)
        await asyncio.sleep(max(0.0, due_at - asyncio.get_running_loop().time()))


async def keep_alive(site: Site, database: str, port: int, over: asyncio.Event, random: Random) -> int:
    """Run a push process, kill it, run it again; return how often it was killed."""
    environ = {"RELAY__DATABASE__URL": database, "RELAY__OPS__PORT": str(port), "RELAY__LOG__LEVEL": "warning"}
    kills = 0
    while not over.is_set():
        async with open_relay(site.sandbox.toml, port, role="push", environ=environ) as relay:
            alive = random.uniform(0.5, SPAN * PROCESSES / KILLS) if kills < KILLS // PROCESSES else LEASE
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), alive)
            if not over.is_set():
                await killed(relay)
                kills += 1
    return kills


async def killed(relay: RelayProcess) -> None:
    relay.kill()
    await relay.process.wait()


# --- SQLite: the mail server is simulated, and the whole relay is one process


def user_of(number: int) -> str:
    return f"user{number}@example.com"


async def register_all(site: Site) -> None:
    numbers = iter(range(PER_ROUND))

    async def client() -> None:
        for number in numbers:
            device = {"platform": "apns", "token": token_of(number), "app": APP}
            status, answer = await site.register(user_of(number), device=device)
            assert status in {201, 202}, answer

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())


async def deliver_to_all(site: Site, ledger: Ledger, random: Random) -> None:
    """Deliver one mail to each mailbox, in any order."""
    numbers = list(range(PER_ROUND))
    random.shuffle(numbers)
    for number in numbers:
        ledger.owe(token_of(number), "email", time.perf_counter_ns())
        site.deliver(user_of(number))
        await asyncio.sleep(ROUND_SPAN / PER_ROUND)
