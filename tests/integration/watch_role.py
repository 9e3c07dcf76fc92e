"""A whole watch role for tests: a real store on SQLite, a real fleet over TLS, and a simulated mail server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.context import FleetStats, WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.http import open_transport
from relay.domain.errors import StoreUnavailable
from relay.domain.handover import NOBODY
from relay.domain.model import (
    SHARDS,
    Environment,
    Mailbox,
    Mode,
    NewMailbox,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
    WatchRecord,
)
from relay.domain.ports.outbox import Handover
from relay.domain.ports.shards import Division
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from relay.security.credentials import StoredCredential
from relay.security.sealing import SealingPrivateKey, derive_device_id, generate
from relay.store.engine import Database, open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.shards import SqlShardStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from relay.watch.accounts import Accounts, EasServer
from relay.watch.committer import GroupCommitter, StoreJournal
from relay.watch.leases import Leases
from relay.watch.mailboxes import HeldMailboxes, Mailboxes
from relay.watch.oauth_grants import Grants
from tests.migrating import write_new_sqlite
from tests.waiting import until

ANN: Final = "ann@example.com"
PASSWORD: Final = "correct horse"
MAILBOX: Final = MailboxId("mailbox-of-ann")
EMAIL: Final = frozenset({CollectionClass.EMAIL})
SHARD: Final = 7


class WatchStore(SqlWatchStore):
    """The real store, which a test can make unavailable."""

    away_for_records = False
    read = 0
    """How often a single mailbox was asked for."""

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        self.read += 1
        return await super().record(mailbox_id, now)

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        if self.away_for_records:
            self.away_for_records = False
            raise StoreUnavailable
        return await super().records(leases, now)


class ShardStore(SqlShardStore):
    """The real shards, which a test can make unavailable, or give to another process."""

    away = False

    async def beat(self, node: str, lease: float, *, leaving: bool) -> Division | None:
        if self.away:
            raise StoreUnavailable
        return await super().beat(node, lease, leaving=leaving)

    async def steal(self) -> None:
        """Let another process have all shards, which ends all others."""
        await self.join("another", 3600.0, take_over=True)
        await self.take("another", range(SHARDS))


@dataclass
class WatchRole:
    """The parts that a test looks at."""

    store: WatchStore
    shards: ShardStore
    registrations: SqlRegistrationStore
    mailboxes: Mailboxes
    held: HeldMailboxes
    fleet: Fleet
    journal: StoreJournal
    committer: GroupCommitter
    eas: EasSimulator
    key: SealingPrivateKey
    database: Database
    stats: FleetStats = field(default_factory=FleetStats)

    async def register(
        self,
        name: str,
        password: str = PASSWORD,
        classes: frozenset[CollectionClass] = EMAIL,
        server: str = "main",
        key: SealingPrivateKey | None = None,
        user: str = ANN,
        credential: StoredCredential | None = None,
    ) -> RegistrationId:
        """Register as the api role does; the default credential is user and password."""
        public = (key or self.key).public_key()
        mailbox = NewMailbox(MAILBOX, server, user, derive_device_id(public, server, user), SHARD)
        registration = Registration(
            id=RegistrationId(name),
            mailbox_id=MAILBOX,
            secret_hash=b"h" * 32,
            app="com.example.mail",
            platform=Platform.APNS,
            environment=Environment.PRODUCTION,
            device_token=sha256(name.encode()).hexdigest(),
            token_since=now(),
            classes=classes,
            mode=Mode.ALERT,
            locale="en",
            state=RegistrationState.VERIFYING,
            created_at=now(),
        )
        sealed = public.seal(mailbox, credential or BasicCredential(user, password))
        await self.registrations.create(mailbox, registration, sealed)
        return registration.id

    async def change_password(self, id_: RegistrationId, password: str) -> None:
        await self.change_credential(id_, BasicCredential(ANN, password))

    async def change_credential(self, id_: RegistrationId, credential: StoredCredential) -> None:
        sealed = self.key.public_key().seal((await self.view(id_)).mailbox, credential)
        await self.registrations.change(id_, RegistrationChange(sealed_candidate=sealed), now())

    async def view(self, id_: RegistrationId) -> RegistrationView:
        view = await self.registrations.view(id_)
        assert view is not None
        return view

    async def judged(self, id_: RegistrationId) -> RegistrationView:
        """Wait until a candidate is accepted or refused."""
        return await self.seen(id_, lambda view: not view.candidate_pending)

    async def blocked(self, id_: RegistrationId) -> Mailbox:
        """Wait until a mailbox is blocked."""
        return (await self.seen(id_, lambda view: view.mailbox.state is WatchState.BLOCKED)).mailbox

    async def seen(self, id_: RegistrationId, fact: Callable[[RegistrationView], bool]) -> RegistrationView:
        """Wait until a fact is true of a registration; return the registration as it is then."""
        views: list[RegistrationView] = []

        async def look() -> bool:
            views.append(await self.view(id_))
            return fact(views[-1])

        await until(look)
        return views[-1]

    def requests(self, command: str) -> int:
        return self.eas.records.requests[command]


@asynccontextmanager
async def open_watch_role(
    folder: Path,
    more: Callable[[Transport, EasSimulator], Mapping[str, EasServer]] = lambda _, __: {},
    key: bytes | None = None,
    wakeups: LocalWakeups | None = None,
    handover: Handover = NOBODY,
) -> AsyncIterator[WatchRole]:
    """Run a watch role until the block ends; its server is "main", and `more` adds or replaces servers.

    `key` is the sealing key of a role that was there before; `wakeups` and `handover` reach the dispatchers of the same
    process.
    """
    ca = ThrowAwayCa()
    random = Random(1)
    key_file = folder / "sealing.pem"
    key_file.write_bytes(key or generate()[0])
    sealing = SealingPrivateKey.load(key_file)
    database = folder / "relay.sqlite3"
    if not database.exists():
        await write_new_sqlite(database)
    async with AsyncExitStack() as stack:
        eas = await stack.enter_async_context(open_eas_simulator(tls=ca.server_context()))
        eas.add_mailbox(ANN, PASSWORD)
        engine = await stack.enter_async_context(open_database(f"sqlite:///{database}"))
        transport = await stack.enter_async_context(open_transport(ca.client_context()))
        wakeups = wakeups or LocalWakeups()
        store = WatchStore(engine, wakeups, handover=handover)
        server = EasServer(eas.url, transport, Policy())
        grants = Grants(sealing, store, random)
        stack.push_async_callback(grants.stop)
        accounts = Accounts(sealing, {"main": server, **more(transport, eas)}, grants)
        shards = ShardStore(engine, "1.0", now)
        leases = Leases(shards, wakeups, "this node", take_over=True)
        held = HeldMailboxes(leases)
        committer = GroupCommitter(store, now)
        journal = StoreJournal(committer, store, held.lease_of, now, random)
        stats = FleetStats()
        context = WatchContext(journal, random, Admissions(8, random, now), stats, tries=journal)
        mailboxes = Mailboxes(store, wakeups, accounts, held, leases, context)
        grants.listen(mailboxes.resealed)
        role = WatchRole(
            store,
            shards,
            SqlRegistrationStore(engine, wakeups),
            mailboxes,
            held,
            mailboxes._fleet,
            journal,
            committer,
            eas,
            sealing,
            engine,
            stats,
        )
        loop = asyncio.get_running_loop()
        writer = loop.create_task(committer.run())
        running = loop.create_task(mailboxes.run())
        try:
            yield role
            assert not running.done(), running.exception()
        finally:
            for task in (running, writer):
                task.cancel()
                await asyncio.wait([task])
        assert not eas.records.overlaps
        assert not eas.complaints
