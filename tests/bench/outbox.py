"""Measure the outbox: changes a second, single and grouped, and pushes claimed and settled a second.

A change is one mailbox's commit: the new key of a collection, and the mark of its one registration, two rows. On
SQLite and on a PostgreSQL of its own, both as the relay opens them, durable, on the loop that the relay runs on, with
its settings of the garbage collector. Mailboxes change in random order.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

import sqlalchemy as sa
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eas_watcher.machine.memory import Change, Collection, Progress, WatchState
from eas_watcher.machine.seen import SeenIds
from eas_watcher.names import CollectionClass, CollectionId, DeviceId, MailboxId, ServerId, SyncKey
from relay.domain.model import CommitEntry, Environment, Mode, Platform, RegistrationState
from relay.domain.outcome import Delivered
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Settlement
from relay.process.gc_tuning import freeze_heap
from relay.store import migrate
from relay.store.engine import Database, open_database
from relay.store.outbox import SqlOutboxStore
from relay.store.shards import SqlShardStore
from relay.store.tables import mailbox, registration
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from relay.watch.committer import LARGEST
from tests.bench.site import figure
from tests.postgres import running_postgres
from tests.transactions import transaction

PLACES: Final = 100
"""Pushes per claim: the most that a dispatcher holds."""
BEGAN: Final = datetime(2026, 11, 24, 8, tzinfo=UTC)
SHARDS: Final = 256


@asynccontextmanager
async def databases(folder: Path) -> AsyncIterator[list[tuple[str, Database]]]:
    """Open both databases, migrated."""
    with running_postgres(durable=True) as server:
        url = server.url(await server.create())
        async with open_database(f"sqlite:///{folder / 'relay.sqlite3'}") as sqlite, open_database(url) as postgres:
            for engine in (sqlite, postgres):
                await migrate.upgrade(engine)
            yield [("sqlite", sqlite), ("postgres", postgres)]


async def fill(engine: Database, mailboxes: int) -> int:
    """Insert mailboxes with one active registration each, lease their shards; return the epoch."""
    owners = [
        {
            "id": f"mb-{n}",
            "server": "main",
            "user": f"user{n}@example.com",
            "device_id": DeviceId(f"{n:032x}"),
            "shard": n % SHARDS,
            "state": WatchState.WATCHING.value,
            "since": BEGAN,
        }
        for n in range(mailboxes)
    ]
    phones = [
        {
            "id": f"reg-{n}",
            "mailbox_id": f"mb-{n}",
            "secret_hash": b"h" * 32,
            "app": "com.example.mail",
            "platform": Platform.APNS.value,
            "environment": Environment.PRODUCTION.value,
            "device_token": f"{n:064x}",
            "token_since": BEGAN,
            "classes": [CollectionClass.EMAIL.value],
            "mode": Mode.ALERT.value,
            "locale": "en",
            "state": RegistrationState.ACTIVE.value,
            "created_at": BEGAN,
        }
        for n in range(mailboxes)
    ]
    async with transaction(engine) as connection:
        await connection.execute(sa.insert(mailbox), owners)
        await connection.execute(sa.insert(registration), phones)
    shards = SqlShardStore(engine, "bench", lambda: BEGAN)
    await shards.join("bench", 3600.0, take_over=True)
    return (await shards.take("bench", range(SHARDS)))[0]


def entry(number: int, epoch: int, key: int) -> CommitEntry:
    """Make the commit of one new mail."""
    newest, seen = BEGAN + timedelta(seconds=key), SeenIds.of(ServerId(f"5:{key - n}") for n in range(3))
    collection = Collection(CollectionId("5"), CollectionClass.EMAIL, SyncKey(f"key-{key}"), 1, newest, seen)
    progress = Progress(collections=(collection,), changes=(Change(CollectionClass.EMAIL, 1),))
    return CommitEntry(MailboxId(f"mb-{number}"), number % SHARDS, epoch, progress)


async def commit(engine: Database, order: list[int], epoch: int, size: int, key: int) -> float:
    """Commit one change for each mailbox of `order`, `size` per transaction; return changes per second.

    Two full groups are written at a time, as the group committer does.
    """
    store, clock = SqlWatchStore(engine, LocalWakeups()), asyncio.get_running_loop().time
    entries = [entry(number, epoch, key) for number in order]
    groups = iter([entries[start : start + size] for start in range(0, len(order), size)])

    async def write() -> None:
        for number, group in enumerate(groups):
            fenced = await store.commit(group, BEGAN + timedelta(seconds=key, milliseconds=number))
            if fenced:
                raise SystemExit(f"{len(fenced)} changes were fenced off")

    began = clock()
    async with asyncio.TaskGroup() as writers:
        for _ in range(1 if size < LARGEST else 2):
            writers.create_task(write())
    return len(order) / (clock() - began)


async def push(engine: Database, expected: int, key: int) -> float:
    """Claim and settle all marks that are due, as a dispatcher does; return pushes per second."""
    store, clock = SqlOutboxStore(engine, LocalWakeups(), Pacing(coalesce=2.0)), asyncio.get_running_loop().time
    now = BEGAN + timedelta(seconds=key + 5)  # after the interval that began with the round before
    began, settled = clock(), 0
    while pushes := (await store.claim(Platform.APNS, PLACES, "bench", now + timedelta(minutes=1), now)).pushes:
        await store.settle([Settlement(each, Delivered()) for each in pushes], now)
        settled += len(pushes)
    seconds = clock() - began
    if settled != expected:
        raise SystemExit(f"{settled} pushes were settled instead of {expected}")
    return settled / seconds


async def measure(mailboxes: int, single: int) -> None:
    """Print the figures of both databases."""
    random = Random(1)
    with tempfile.TemporaryDirectory() as folder:
        async with databases(Path(folder)) as engines:
            for name, engine in engines:
                epoch = await fill(engine, mailboxes)
                order = list(range(mailboxes))
                random.shuffle(order)
                freeze_heap()
                await commit(engine, order, epoch, LARGEST, 10)  # every collection and mark is there from here on
                await push(engine, mailboxes, 10)
                figure(f"outbox.{name}.single_per_s", await commit(engine, order[:single], epoch, 1, 20), "1/s")
                await push(engine, single, 20)
                figure(f"outbox.{name}.grouped_per_s", await commit(engine, order, epoch, LARGEST, 30), "1/s")
                figure(f"outbox.{name}.pushes_per_s", await push(engine, mailboxes, 30), "1/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=10_000)
    parser.add_argument("--single", type=int, default=1000, help="changes committed one by one")
    chosen = parser.parse_args()
    uvloop.run(measure(chosen.mailboxes, chosen.single))
