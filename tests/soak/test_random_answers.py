"""50,000 pushes through a random mixture of the failures of Apple, Google and the lines to them."""

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
import sqlalchemy as sa

from eas_watcher.http2.keepalive import KeepaliveTimings
from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.model import CommitEntry, Platform, RegistrationId, RegistrationState, Role
from relay.domain.ports.outbox import PushSender
from relay.process.clock import now
from relay.process.trimming import Malloc
from relay.push.apns.sender import ApnsSender
from relay.push.dispatch import Dispatcher
from relay.push.egress.auditing import audit
from relay.push.egress.log import Limits, open_egress_log
from relay.push.fcm.sender import FcmSender
from relay.sandbox.installation import APP
from relay.sandbox.scripts import Received
from relay.settings import load
from relay.store import migrate
from relay.store.engine import Database, open_database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import outbox, registration
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.bench.site import memory_kb
from tests.contract.samples import activate, lease_all
from tests.ports import free_ports
from tests.soak import hurried
from tests.soak.ledger import Ledger
from tests.transactions import transaction

PUSHES: Final = 50_000
CLASSES: Final = tuple(CollectionClass)
PLATFORMS: Final = (Platform.APNS, Platform.FCM)
PHONES: Final = 250  # of each platform
ROUNDS: Final = 22
CHANGES: Final = ROUNDS * PHONES * len(PLATFORMS) * len(CLASSES)
"""More phones than pushes: a tenth of the phones lose their tokens during the test."""
WARM: Final = ROUNDS // 2  # rounds after which memory must not grow any more
SHARD: Final = 7
SPEED: Final = 10.0  # seconds that pass in each second
PUSH_LIMIT: Final = 60.0  # hurried seconds
ROUND_LIMIT: Final = 900.0  # hurried seconds
START: Final = 60.0  # seconds for the simulators to come up
GROWTH_KB: Final = 8_192  # of resident memory in the second half: allocators are not exact
OBJECTS: Final = 2_000  # of Python objects that may be added in the second half

APNS: Final[list[dict[str, Any]]] = [
    {"kind": "answer", "status": 410, "reason": "Unregistered", "share": 0.0005},
    {"kind": "answer", "status": 400, "reason": "BadDeviceToken", "share": 0.0005},
    {"kind": "answer", "status": 403, "reason": "ExpiredProviderToken", "share": 0.001},
    {"kind": "answer", "status": 429, "reason": "TooManyRequests", "share": 0.002},
    {"kind": "answer", "status": 500, "reason": "InternalServerError", "share": 0.003},
    {"kind": "answer", "status": 503, "reason": "ServiceUnavailable", "share": 0.003},
    {"kind": "answer", "status": 503, "reason": "Shutdown", "retry_after": "2", "share": 0.0005},
    {"kind": "reset", "share": 0.003},
    {"kind": "reset", "error_code": 2, "share": 0.002},
    {"kind": "close", "share": 0.0005},
    {"kind": "goaway", "share": 0.0005},
    {"kind": "goaway", "graceful": True, "share": 0.0005},
    {"kind": "delay", "seconds": 0.2, "share": 0.01},
    {"kind": "stall", "share": 0.0001},
    {"kind": "freeze", "share": 0.0001},
]
FCM: Final[list[dict[str, Any]]] = [
    {"kind": "answer", "status": 404, "reason": "UNREGISTERED", "share": 0.0005},
    {"kind": "answer", "status": 403, "reason": "SENDER_ID_MISMATCH", "share": 0.0005},
    {"kind": "answer", "status": 400, "reason": "INVALID_ARGUMENT", "field": "message.token", "share": 0.0005},
    {"kind": "answer", "status": 401, "reason": "ACCESS_TOKEN_EXPIRED", "share": 0.002},
    {"kind": "answer", "status": 429, "reason": "QUOTA_EXCEEDED", "retry_after": "5", "share": 0.0003},
    {"kind": "answer", "status": 500, "reason": "INTERNAL", "share": 0.003},
    {"kind": "answer", "status": 503, "reason": "UNAVAILABLE", "share": 0.003},
    {"kind": "answer", "status": 503, "reason": "UNAVAILABLE", "retry_after": "2", "share": 0.0005},
    {"kind": "answer", "status": 403, "reason": "SERVICE_DISABLED", "share": 0.0001},
    {"kind": "page", "status": 502, "share": 0.003},
    {"kind": "page", "status": 200, "share": 0.0001},
    {"kind": "cut", "share": 0.003},
    {"kind": "close", "share": 0.003},
    {"kind": "delay", "seconds": 0.2, "share": 0.01},
    {"kind": "stall", "share": 0.0001},
]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Switch logging off: pytest keeps every record, which would look like a leak of the relay."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_every_push_is_delivered_or_explained_and_nothing_grows(tmp_path: Path) -> None:
    with simulators(tmp_path / "sandbox") as google_and_apple:
        hurried.run(SPEED, soak(tmp_path, google_and_apple))


async def soak(folder: Path, simulators: "Simulators") -> None:
    clock = hurried.clock_of(SPEED, now())
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_database(f"sqlite:///{folder / 'relay.sqlite3'}"))
        await migrate.upgrade(engine)
        wakeups = LocalWakeups()
        watches = SqlWatchStore(engine, wakeups)
        await register_all(SqlRegistrationStore(engine, wakeups), watches)
        epochs = await lease_all(watches, "the test")
        egress = stack.enter_context(open_egress_log(folder / "egress", now, Limits(16_000_000)))
        senders = await open_senders(simulators, egress, stack)
        store = SqlOutboxStore(engine, wakeups)
        dispatchers = [
            # A longer lease than in production: there is no other process to take over, and a slow machine is no crash.
            Dispatcher(store, platform, sender, wakeups, clock, Random(1), "the test", lease=60.0 * SPEED)
            for platform, sender in senders.items()
        ]
        running = [asyncio.ensure_future(dispatcher.run()) for dispatcher in dispatchers]
        sizes: list[Size] = []
        for _ in range(ROUNDS):
            await change_all(watches, epochs[SHARD], ledger, clock)
            await drained(engine)
            sizes.append(Size.now())
            alive = [task for task in running if not task.done()]
            assert len(alive) == len(running)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        left, excused = await account(engine)
    received = simulators.received()

    assert ledger.changes == CHANGES
    assert len(received) >= PUSHES
    assert {token for token, _ in ledger.unpaid(received)} <= excused
    assert {token for token, _ in left} <= excused
    assert len(excused) < PHONES * len(PLATFORMS) // 2
    assert (
        ledger.repeats(received) <= PUSHES // 20
    )  # pushes that were cut off or timed out after the simulator accepted them
    statuses = Counter(each.status for each in received)
    assert statuses[200] > PUSHES * 3 // 4
    assert statuses.keys() >= {0, 200, 400, 401, 403, 404, 410, 429, 500, 502, 503}
    warm, end = sizes[WARM - 1], sizes[-1]
    assert (end.kinds - warm.kinds).total() < OBJECTS, (end.kinds - warm.kinds).most_common(20)
    assert end.kb - warm.kb < GROWTH_KB, [size.kb for size in sizes]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    found = audit(sorted((folder / "egress").glob("*.jsonl")))
    assert found.faults == []
    assert found.seen.lines >= len(received)  # the egress log has each try before it is made


# --- the two providers, in a process of their own


@dataclass(frozen=True)
class Simulators:
    folder: Path
    control: str

    def post(self, path: str, body: object) -> None:
        request = urllib.request.Request(f"{self.control}{path}", json.dumps(body).encode(), method="POST")  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310  # loopback

    def received(self) -> list[Received]:
        """Return all pushes that came, with their bodies as bytes."""
        found: list[Received] = []
        for provider in ("apns", "fcm"):
            with urllib.request.urlopen(f"{self.control}/push/{provider}/received") as answer:  # noqa: S310
                entries = json.load(answer)["received"]
            found += [Received(**entry | {"body": entry["body"].encode()}) for entry in entries]
        return found


@contextmanager
def simulators(folder: Path) -> Iterator[Simulators]:
    names = ("eas", "apns", "fcm", "control", "api", "ops")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    arguments = [part for name, port in ports.items() for part in (f"--{name}", str(port))]
    process = subprocess.Popen(
        [sys.executable, "-m", "relay", "sandbox", *arguments, "--folder", str(folder), "--level", "warning"],
        stdout=subprocess.DEVNULL,
    )
    try:
        found = Simulators(folder, f"http://127.0.0.1:{ports['control']}")
        until = time.monotonic() + START
        while True:
            try:
                found.post("/push/apns/mix", {"seed": 1, "failures": APNS})
                found.post("/push/fcm/mix", {"seed": 2, "failures": FCM})
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait()


async def open_senders(simulators: Simulators, egress: Any, stack: AsyncExitStack) -> dict[Platform, PushSender]:
    """Make both senders as the relay does, with longer time limits for a busy machine."""
    settings = load(
        simulators.folder / "relay.toml", {"RELAY__DATABASE__URL": "postgresql://relay@localhost/relay"}, Role.PUSH
    )
    assert settings.apns is not None
    assert settings.fcm is not None
    apns = replace(settings.apns, time_limit=PUSH_LIMIT)
    fcm = replace(settings.fcm, time_limit=PUSH_LIMIT)
    timings = KeepaliveTimings(*(seconds * SPEED for seconds in (10.0, 2.0, 3.0, 0.5)))
    return {
        Platform.APNS: await stack.enter_async_context(ApnsSender(apns, egress, now, Random(1), timings=timings)),
        Platform.FCM: await stack.enter_async_context(FcmSender(fcm, now, Random(1), egress)),
    }


# --- phones, changes, and their ends


def token_of(platform: Platform, number: int) -> str:
    return f"{PLATFORMS.index(platform) * PHONES + number:064x}"


async def register_all(store: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    for platform in PLATFORMS:
        for number in range(PHONES):
            await activate(
                store,
                watches,
                f"{platform.value}{number}",
                id=RegistrationId(f"{PLATFORMS.index(platform) * PHONES + number:024}"),
                app=APP,
                platform=platform,
                device_token=token_of(platform, number),
                classes=frozenset(CLASSES),
                shard=SHARD,
            )


async def change_all(watches: SqlWatchStore, epoch: int, ledger: Ledger, clock: Any) -> None:
    """Commit one change of each class for each mailbox."""
    changes = tuple(Change(cls, 1) for cls in CLASSES)
    for platform in PLATFORMS:
        for first in range(0, PHONES, 50):
            moment = time.perf_counter_ns()
            for number in range(first, first + 50):
                for cls in CLASSES:
                    ledger.owe(token_of(platform, number), cls.value, moment)
            batch = [
                CommitEntry(MailboxId(f"mb-{platform.value}{number}"), SHARD, epoch, Progress(changes=changes))
                for number in range(first, first + 50)
            ]
            assert not await watches.commit(batch, clock())


async def drained(engine: Database) -> None:
    """Wait until no marks are left except those of tokens in quarantine."""
    query = sa.select(sa.func.count()).select_from(outbox.join(registration)).where(registration.c.recheck_at.is_(None))
    async with asyncio.timeout(ROUND_LIMIT):
        while True:
            async with transaction(engine) as connection:
                if not await connection.scalar(query):
                    return
            await asyncio.sleep(1.0)


async def account(engine: Database) -> tuple[set[tuple[str, str]], set[str]]:
    """Return (device token, mark) of the marks that are left, and the device tokens that explain one."""
    async with transaction(engine) as connection:
        marks = sa.select(registration.c.device_token, outbox.c.mark).select_from(outbox.join(registration))
        left = {(row.device_token, row.mark) for row in await connection.execute(marks)}
        ended = registration.c.state == RegistrationState.TOKEN_GONE.value
        explained = sa.select(registration.c.device_token, registration.c.last_outcome)
        rows = (await connection.execute(explained.where(ended | registration.c.recheck_at.is_not(None)))).all()
    assert all(row.last_outcome for row in rows)
    return left, {row.device_token for row in rows}


@dataclass(frozen=True)
class Size:
    kb: int
    kinds: Counter[str]

    @classmethod
    def now(cls) -> "Size":
        gc.collect()
        if (malloc := Malloc.found()) is not None:
            malloc.trim()  # as the relay does: what its allocator keeps free is no growth
        return cls(memory_kb(os.getpid()), Counter(type(each).__qualname__ for each in gc.get_objects()))
