"""Test the leases while their mailboxes are slow to start, and the fleet while a lease is lost."""

import asyncio
import gc
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import CredentialVoid
from eas_watcher.machine.memory import Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.machine.state import RATE, Policy
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.context import WatchContext
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from relay.domain.model import SHARDS, WatchRecord
from relay.domain.ports.shards import Division
from relay.domain.ports.wakeups import Topic
from relay.security.sealing import SealingPrivateKey, generate
from relay.watch.accounts import Accounts, Connection, EasServer
from relay.watch.discovery import Discovery
from relay.watch.leases import LEASE, RENEW, Leases
from relay.watch.mailboxes import HeldMailboxes, Mailboxes
from tests.fakes.shards import ANOTHER, SlowShards
from tests.fakes.watches import NoWatches
from tests.unit.relay.watch.test_verification import MAILBOX, NOW

pytestmark = pytest.mark.looptime

SHARD = MAILBOX.shard
CREDENTIAL = BasicCredential("ann@example.com", "secret")


class HeldForEver(HoldsInTask):
    """A server that answers nothing, and counts the requests that it holds."""

    def __init__(self) -> None:
        self.held = 0
        self.asked = 0
        self.urls: list[str] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.urls.append(request.url)
        self.held += 1
        self.asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.held -= 1
        raise AssertionError


class Store(NoWatches):
    """Grants one shard with its mailboxes; another node may take it."""

    def __init__(self, *records: WatchRecord) -> None:
        self.kept = list(records)
        self.dirty: list[WatchRecord] = []
        self.shards = SlowShards()
        self.wakeups = self.shards.wakeups
        self.record_takes = 0.0
        self.dirty_takes = 0.0

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        return [record for record in self.kept if record.mailbox.shard in leases]

    async def sealed_anew(self, shards: Collection[int]) -> frozenset[int]:
        return frozenset(shards)

    async def seal_anew(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Collection[int]) -> None:
        raise AssertionError("all seals are as they should be")

    async def take_dirty(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        await asyncio.sleep(self.dirty_takes)
        taken, self.dirty = self.dirty, []
        return taken

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        await asyncio.sleep(self.record_takes)
        return next(record for record in self.kept if record.mailbox.id == mailbox_id)


@dataclass
class SlowJournal:
    seconds: float
    commits: list[MailboxId] = field(default_factory=list)
    last: Progress | None = None

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        await asyncio.sleep(self.seconds)
        self.commits.append(mailbox)
        self.last = progress

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        pass


@asynccontextmanager
async def running(folder: Path, store: Store, journal: SlowJournal, server: HeldForEver) -> AsyncIterator[Mailboxes]:
    key = SealingPrivateKey.load(folder / "key.pem")
    accounts = Accounts(key, {"main": EasServer("https://mail.example.com/eas", server, Policy())})
    leases = Leases(store.shards, store.wakeups, "node", take_over=False)
    context = WatchContext(journal, Random(1), Admissions(8, Random(1), lambda: NOW))
    mailboxes = Mailboxes(store, store.wakeups, accounts, HeldMailboxes(leases), leases, context)
    task = asyncio.get_running_loop().create_task(mailboxes.run())
    yield mailboxes
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert store.shards.left or store.shards.away


@pytest.fixture
def sealed(tmp_path: Path) -> bytes:
    (tmp_path / "key.pem").write_bytes(generate()[0])
    return SealingPrivateKey.load(tmp_path / "key.pem").public_key().seal(MAILBOX, CREDENTIAL)


def record_of(sealed: bytes) -> WatchRecord:
    return WatchRecord(replace(MAILBOX, state=WatchState.STARTING), sealed, Memory(), (), 1)


async def test_leases_are_renewed_however_long_the_mailboxes_take_to_start(tmp_path: Path, sealed: bytes) -> None:
    unknown = replace(MAILBOX, server="gone")
    many = [replace(record_of(sealed), mailbox=replace(unknown, id=MailboxId(f"m{i}"))) for i in range(100)]
    store, journal = Store(*many), SlowJournal(1.0)

    async with running(tmp_path, store, journal, HeldForEver()) as mailboxes:
        await asyncio.sleep(LEASE + 2 * RENEW)

        assert mailboxes.leased
        assert len(store.shards.beats) >= 5
        await asyncio.sleep(100)
        assert len(journal.commits) == len(many)


async def test_no_watch_starts_when_its_lease_was_lost_while_it_was_read(tmp_path: Path, sealed: bytes) -> None:
    record = record_of(sealed)
    store, server = Store(record), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server):
        await asyncio.sleep(1)
        assert server.held == 1

        both = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})
        store.dirty = [replace(record, memory=replace(record.memory, classes=both))]
        store.record_takes = 2 * RENEW
        store.shards.steal(SHARD)
        store.wakeups.wake(Topic.MAILBOXES)
        await asyncio.sleep(60)

        assert (server.held, server.asked) == (0, 1)


async def test_a_lease_that_comes_back_starts_the_watches_again(tmp_path: Path, sealed: bytes) -> None:
    store, server = Store(record_of(sealed)), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server) as mailboxes:
        await asyncio.sleep(1)
        store.shards.steal(SHARD)
        await asyncio.sleep(RENEW + 1)
        assert (server.held, mailboxes.shards) == (0, SHARDS - 1)

        await store.shards.leave(ANOTHER)
        await asyncio.sleep(RENEW + 1)

        assert (server.held, server.asked, mailboxes.shards) == (1, 2, SHARDS)


async def test_a_shard_is_given_away_when_none_of_its_requests_is_held_any_more(tmp_path: Path, sealed: bytes) -> None:
    store, server = Store(record_of(sealed)), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server) as mailboxes:
        await asyncio.sleep(1)
        assert (server.held, mailboxes.shards) == (1, SHARDS)

        await mailboxes.give(SHARD)

        assert (server.held, mailboxes.shards) == (0, SHARDS - 1)
        store.dirty = [record_of(sealed)]
        store.wakeups.wake(Topic.MAILBOXES)
        await asyncio.sleep(1)
        assert server.asked == 1


class OneWriter(Store):
    """A database that does one thing at a time, and reads a shard's mailboxes in a tenth of a second."""

    def __init__(self, *records: WatchRecord) -> None:
        super().__init__(*records)
        self.shards = self.queue = QueuedShards()
        self.wakeups = self.shards.wakeups

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        async with self.queue.turn:
            await asyncio.sleep(0.1 * len(leases))
        return [record for record in self.kept if record.mailbox.shard in leases]


class QueuedShards(SlowShards):
    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def beat(self, node: str, lease: float, *, leaving: bool) -> Division | None:
        async with self.turn:
            return await super().beat(node, lease, leaving=leaving)


async def test_leases_are_renewed_however_long_one_writer_reads_the_mailboxes(tmp_path: Path, sealed: bytes) -> None:
    store, server = OneWriter(record_of(sealed)), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server) as mailboxes:
        await asyncio.sleep(0.1 * SHARDS + 1)
        assert (server.held, server.asked, mailboxes.shards) == (1, 1, SHARDS)


async def test_a_shard_is_given_away_when_no_flags_of_its_mailboxes_are_cleared_any_more(
    tmp_path: Path, sealed: bytes
) -> None:
    store = Store(record_of(sealed))

    async with running(tmp_path, store, SlowJournal(0.0), HeldForEver()) as mailboxes:
        await asyncio.sleep(1)
        store.dirty_takes = 2.0
        store.wakeups.wake(Topic.MAILBOXES)
        await asyncio.sleep(1)
        began_at = asyncio.get_running_loop().time()

        await mailboxes.give(SHARD)

        assert asyncio.get_running_loop().time() - began_at == pytest.approx(1.0)


async def test_a_process_that_stops_hands_its_mailboxes_over(tmp_path: Path, sealed: bytes) -> None:
    store, server = Store(record_of(sealed)), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server) as mailboxes:
        await asyncio.sleep(1)
        await store.shards.join("next", LEASE, take_over=False)
        drained = asyncio.get_running_loop().create_task(mailboxes.drain())
        while not drained.done():
            free = [shard for shard, owner in store.shards.owners.items() if owner is None]
            await store.shards.beat("next", LEASE, leaving=False)
            await store.shards.take("next", free)
            await asyncio.sleep(0.01)

        assert (server.held, mailboxes.shards, mailboxes.nodes) == (0, 0, 2)
        assert not store.shards.of("node")


async def test_a_database_that_takes_no_writes_ends_the_watches_and_its_error_is_logged(
    tmp_path: Path, sealed: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store, server = Store(record_of(sealed)), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server) as mailboxes:
        await asyncio.sleep(RENEW)
        assert (mailboxes.leased, server.held) == (True, 1)
        store.shards.away, store.shards.detail = True, "database or disk is full"
        await asyncio.sleep(LEASE + 2 * RENEW)

        assert (mailboxes.leased, server.held) == (False, 0)
        said = {vars(line)["detail"] for line in caplog.records if line.message.startswith("leases not renewed")}
        assert said == {"database or disk is full"}


@pytest.mark.parametrize(
    ("state", "reason", "asked"),
    [
        (WatchState.WAITING, Reason.HTTP_401, 2),
        (WatchState.WAITING, Reason.HTTP_401_DOUBTFUL, 2),
        (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, 2),
        (WatchState.WAITING, Reason.SERVER_BUSY, 1),
        (WatchState.WIPED, Reason.REMOTE_WIPE, 1),
    ],
)
async def test_a_new_credential_does_not_wait_for_refusals_of_the_old_one(
    tmp_path: Path, sealed: bytes, state: WatchState, reason: Reason, asked: int
) -> None:
    record = record_of(sealed)
    store, server = Store(record), HeldForEver()
    public = SealingPrivateKey.load(tmp_path / "key.pem").public_key()

    async with running(tmp_path, store, SlowJournal(0.0), server):
        await asyncio.sleep(1)
        mailbox = replace(record.mailbox, state=state, reason=reason)
        sealed = public.seal(MAILBOX, BasicCredential("ann@example.com", "new"))
        store.kept = store.dirty = [WatchRecord(mailbox, sealed, Memory(refusals=2, retry_in=900.0), (), 1)]
        store.wakeups.wake(Topic.MAILBOXES)
        await asyncio.sleep(1)

        assert server.asked == asked


class Refusing(HeldForEver):
    """A server whose login has certainly ended for every user."""

    async def send(self, _: HttpRequest) -> HttpReply:
        self.asked += 1
        raise CredentialVoid("gone", Reason.OAUTH_INVALID_GRANT)


async def test_a_record_read_before_the_watch_ended_does_not_start_it_again(tmp_path: Path, sealed: bytes) -> None:
    before = record_of(sealed)
    store, server = Store(before), Refusing()

    async with running(tmp_path, store, SlowJournal(0.0), server):
        await asyncio.sleep(1)
        assert server.asked == 1
        ended = replace(MAILBOX, state=WatchState.CREDENTIAL_REFUSED, reason=Reason.HTTP_401)
        store.kept, store.dirty = [replace(before, mailbox=ended, memory=Memory(refusals=3))], [before]
        store.wakeups.wake(Topic.MAILBOXES)
        await asyncio.sleep(3600)

        assert server.asked == 1


async def test_no_credential_goes_to_a_host_that_is_not_allowed_any_more(tmp_path: Path, sealed: bytes) -> None:
    gone = Partnership(url="https://gone.example.com/Microsoft-Server-ActiveSync")
    store, server = Store(replace(record_of(sealed), memory=Memory(gone))), HeldForEver()

    async with running(tmp_path, store, SlowJournal(0.0), server):
        await asyncio.sleep(1)
        assert server.urls == ["https://mail.example.com/eas"]


async def test_a_discovered_mailbox_at_a_host_that_is_now_forbidden_is_blocked(tmp_path: Path, sealed: bytes) -> None:
    gone = Partnership(url="https://gone.example.com/Microsoft-Server-ActiveSync")
    server = HeldForEver()
    eas = EasServer(
        "",
        server,
        Policy(discovered=True),
        discovery=Discovery(server, frozenset(), Admissions(8, Random(1), lambda: NOW), RATE),
    )
    accounts = Accounts(SealingPrivateKey.load(tmp_path / "key.pem"), {"main": eas})
    opened = accounts.open(MAILBOX, sealed)
    assert isinstance(opened, Connection)

    placed, _ = opened.place(Memory(gone))

    assert isinstance(placed, Condition)
    assert (placed.state, placed.reason) == (WatchState.BLOCKED, Reason.HOST_NOT_ALLOWED)


async def test_a_wipe_that_cannot_be_acknowledged_any_more_is_completed(tmp_path: Path, sealed: bytes) -> None:
    unknown = replace(MAILBOX, server="gone", state=WatchState.WIPING, reason=Reason.REMOTE_WIPE)
    store, journal = Store(WatchRecord(unknown, sealed, Memory(wipe=False), (), 1)), SlowJournal(0.0)

    async with running(tmp_path, store, journal, HeldForEver()):
        await asyncio.sleep(1)

        assert journal.last == Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE), attention=True)


class Handing(Store):
    """A store that does not keep the records that it hands out."""

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        records, self.kept = self.kept, []
        return records


@pytest.mark.usefixtures("sealed")
async def test_what_a_watch_was_started_from_is_not_kept(tmp_path: Path) -> None:
    name = MailboxId("the only one")
    key = SealingPrivateKey.load(tmp_path / "key.pem").public_key()
    mailbox = replace(MAILBOX, id=name)
    record = replace(record_of(key.seal(mailbox, CREDENTIAL)), mailbox=mailbox)
    store, server = Handing(record), HeldForEver()
    del record

    async with running(tmp_path, store, SlowJournal(0.0), server):
        await asyncio.sleep(1)
        assert server.held == 1

        kept = [each for each in gc.get_objects() if isinstance(each, WatchRecord)]
        assert [each for each in kept if each.mailbox.id == name] == []


async def test_a_credential_that_was_sealed_again_leaves_its_watch_alone(tmp_path: Path, sealed: bytes) -> None:
    record = record_of(sealed)
    store, server = Store(record), HeldForEver()
    public = SealingPrivateKey.load(tmp_path / "key.pem").public_key()

    async with running(tmp_path, store, SlowJournal(0.0), server):
        await asyncio.sleep(1)
        for password, asked in (("secret", 1), ("new", 2)):
            sealed = public.seal(MAILBOX, BasicCredential("ann@example.com", password))
            store.kept = [replace(record, sealed_credential=sealed)]
            store.dirty = [*store.kept]
            store.wakeups.wake(Topic.MAILBOXES)
            await asyncio.sleep(1)

            assert (server.held, server.asked) == (1, asked)
