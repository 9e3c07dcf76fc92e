"""The values that the contract suites store, and short ways to an active registration."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Collection, Progress
from eas_watcher.machine.seen import SeenIds
from eas_watcher.names import CollectionClass, CollectionId, DeviceId, MailboxId, ServerId, SyncKey
from relay.admin.audit import AuditKey, Stamp
from relay.domain.model import (
    Candidate,
    CommitEntry,
    Environment,
    Mode,
    NewMailbox,
    Platform,
    Registration,
    RegistrationId,
    RegistrationState,
)
from relay.domain.ports.registration import RegistrationStore
from relay.domain.ports.watch import WatchStore
from relay.store.engine import Database
from relay.store.shards import SqlShardStore
from relay.store.tables import mailbox, outbox
from relay.store.tables import shard as shard_table
from relay.store.watches import SqlWatchStore
from tests.transactions import OpenTransaction, transaction

NOW = datetime(2026, 11, 24, 8, 30, 15, 250_000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
SHARD = 7
AUDIT_KEY = AuditKey(b"k" * 32)
BY_CLEO = Stamp("cleo", "cli", NOW, (AUDIT_KEY,))
DAY = 86400.0  # seconds
MAIL = Collection(
    CollectionId("5"), CollectionClass.EMAIL, SyncKey("key-1"), 1, NOW, SeenIds.of([ServerId("5:1"), ServerId("5:2")])
)
NEW_MAIL = Change(CollectionClass.EMAIL, 2)


def new_mailbox(name: str = "ann", shard: int = SHARD) -> NewMailbox:
    return NewMailbox(MailboxId(f"mb-{name}"), "office", f"{name}@example.com", DeviceId("D" * 32), shard)


def new_registration(name: str = "ann", device: str = "phone", **changes: object) -> Registration:
    sample = Registration(
        id=RegistrationId(f"reg-{name}-{device}"),
        mailbox_id=MailboxId(f"mb-{name}"),
        secret_hash=b"h" * 32,
        app="mail",
        platform=Platform.APNS,
        environment=Environment.PRODUCTION,
        device_token=f"token-{name}-{device}",
        token_since=NOW,
        classes=frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR}),
        mode=Mode.ALERT,
        locale="de",
        state=RegistrationState.VERIFYING,
        created_at=NOW,
    )
    return replace(sample, **changes)  # type: ignore[arg-type]


def candidate_of(registration: Registration, sealed: bytes = b"sealed") -> Candidate:
    return Candidate(registration.id, registration.mailbox_id, sealed)


async def register(
    store: RegistrationStore, name: str = "ann", device: str = "phone", shard: int = SHARD, **changes: object
) -> Registration:
    """Register an install whose credential the mail server has not accepted yet."""
    registration = new_registration(name, device, **changes)
    await store.create(new_mailbox(name, shard), registration, b"sealed")
    return registration


async def activate(
    store: RegistrationStore,
    watches: WatchStore,
    name: str = "ann",
    device: str = "phone",
    shard: int = SHARD,
    **changes: object,
) -> Registration:
    """Register an install and accept its credential."""
    registration = await register(store, name, device, shard, **changes)
    await watches.accept(candidate_of(registration), NOW)
    return registration


def shards_of(watches: SqlWatchStore) -> SqlShardStore:
    """Return the shards of the database of other watches."""
    return SqlShardStore(watches._database, "1.0", lambda: NOW)


async def lease_all(watches: SqlWatchStore, node: str = "node-1") -> Mapping[int, int]:
    """Take every shard for a day; return their epochs."""
    shards = shards_of(watches)
    await shards.join(node, DAY, take_over=True)
    return await shards.take(node, range(256))


async def own_all(watches: WatchStore, node: str = "node-1") -> int:
    """Take every shard; return the epoch they all have then. In memory there are none."""
    if not isinstance(watches, SqlWatchStore):
        return 1
    epochs = await lease_all(watches, node)
    assert set(epochs) == set(range(256))
    return epochs[SHARD]


async def leases(watches: WatchStore, shards: Iterable[int]) -> Mapping[int, int]:
    """Return the epochs of some shards. In memory there are none."""
    wanted = set(shards)
    if not isinstance(watches, SqlWatchStore):
        return dict.fromkeys(wanted, 1)
    async with transaction(watches._database) as connection:
        rows = await connection.execute(sa.select(shard_table.c.number, shard_table.c.epoch))
        return {row.number: row.epoch for row in rows if row.number in wanted}


def entry(epoch: int, progress: Progress, name: str = "ann", shard: int = SHARD) -> CommitEntry:
    return CommitEntry(MailboxId(f"mb-{name}"), shard, epoch, progress)


async def marks(engine: Database) -> dict[tuple[str, str], sa.Row[*tuple[object, ...]]]:
    """Read the whole outbox by (registration, mark)."""
    query = sa.select(outbox.c.count.label("changes"), *(c for c in outbox.c if c.name != "count"))
    async with transaction(engine) as connection:
        return {(row.registration_id, row.mark): row for row in await connection.execute(query)}


async def overwrite(engine: Database, id_: MailboxId, **columns: str) -> None:
    """Write columns of a mailbox as another version of the relay might have."""
    async with transaction(engine) as connection:
        await unchecked(connection)
        await connection.execute(sa.update(mailbox).where(mailbox.c.id == id_).values(columns))


async def unchecked(connection: OpenTransaction) -> None:
    """Take away the checks of columns, as a newer version does that knows more names, or a damaged disk."""
    if connection.dialect.name == "sqlite":
        names = await connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
        for name in names.all():
            await connection.execute(sa.text(f"DROP TRIGGER {name}"))
        await connection.execute(sa.text("PRAGMA ignore_check_constraints = ON"))  # of the one connection that writes
        return
    checks = "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c' AND conname LIKE 'ck_%'"
    for table, name in await connection.rows(sa.text(checks)):
        await connection.execute(sa.text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
