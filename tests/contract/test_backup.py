"""Test that a backup has all that the database has, and that a database takes it whole or not at all."""

import asyncio
import errno
import gzip
import os
import resource
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

import pytest
import sqlalchemy as sa

from relay.admin.audit import Stamp, What, verify
from relay.backup import transfer
from relay.backup.files import lines
from relay.backup.transfer import Made, Restored
from relay.domain.errors import (
    BackupInvalid,
    DatabaseBusy,
    DatabaseFilled,
    DatabaseInUse,
    DatabaseMoved,
    DatabaseNewer,
    DatabaseRefuses,
    RowsUnreadable,
)
from relay.settings.values import DatabaseSettings
from relay.store import acts, migrate, restoring
from relay.store.acts import latest
from relay.store.copying import LeftOut, read_lines, shapes, write_lines
from relay.store.engine import Database, embedded_lock, open_database
from relay.store.migrate import Leaving
from relay.store.privileges import grant
from relay.store.tables import mailbox, maintenance, metadata, wipe
from tests.contract.conftest import MigratedDatabases
from tests.contract.samples import AUDIT_KEY, BY_CLEO, LATER, NOW
from tests.migrating import migrate_to, write_new_sqlite
from tests.postgres import PostgresServer
from tests.transactions import transaction
from tests.waiting import SOON

AGES: Final = timedelta(days=365)
TURNS: Final = 10  # of the loop, in some of which a cancelled task wakes up
HALF: Final = 0.1 + 0.2
"""A number whose last digit a rounding would lose."""
ROWS: Final[dict[str, dict[str, Any]]] = {
    "mailbox": {
        "id": "mb-ann",
        "server": "office",
        "user": "ann@example.com",
        "device_id": "D" * 32,
        "shard": 7,
        "sealed_credential": bytes(range(256)),
        "accepted": True,
        "version": 161,
        "policy_key": "12345",
        "hierarchy_key": "3",
        "informed": True,
        "acknowledged": 1,
        "url": "https://mail.example.com",
        "horizon": NOW,
        "state": "watching",
        "reason": "",
        "detail": "ä\u2028\U0001f600\t\"'\\",
        "since": NOW,
        "next_try_at": LATER,
        "refusals": 2,
        "candidate_refusals": 1,
        "candidate_refused_at": NOW,
        "last_ping_at": NOW,
        "heartbeat": HALF,
        "last_change_at": NOW,
        "dirty": True,
        "user_key": "ann",
        "paused_at": NOW,
        "retry": True,
        "forgotten": False,
    },
    "collection": {
        "mailbox_id": "mb-ann",
        "collection_id": "5",
        "class": "email",
        "sync_key": "key-7",
        "tries": 1,
        "newest": NOW,
        "seen": ["5:1", "ü"],
        "sub": True,
        "changed_at": NOW,
    },
    "hierarchy": {"mailbox_id": "mb-ann", "folders": [["5", "0", 2], ["6", "5", 12]]},
    "registration": {
        "id": "reg-ann",
        "mailbox_id": "mb-ann",
        "secret_hash": b"h" * 32,
        "app": "mail",
        "platform": "apns",
        "environment": "production",
        "device_token": "4a" * 32,
        "token_hash": "th",
        "token_since": NOW,
        "classes": ["email"],
        "subfolders": sa.null(),  # not the null of JSON
        "mode": "alert",
        "locale": "de",
        "state": "active",
        "candidate_refused": False,
        "created_at": NOW,
        "proved_at": NOW,
        "tested_at": NOW,
        "last_push_at": NOW,
        "last_outcome": "delivered",
        "pushed": {"email": "2026-11-24T08:30:15.250000+00:00"},
        "must_prove": True,
        "challenge_hash": b"\0\1",
        "challenged_at": NOW,
        "quarantined_at": NOW,
        "quarantine_reason": "BadDeviceToken",
        "quarantine_remedy": "wait",
        "rechecks": 3,
        "recheck_at": LATER,
        "refused_at": NOW,
        "credential_proof": b"proof",
        "idle_since": NOW,
        "seen_at": NOW,
    },
    "tombstone": {"registration_id": "reg-ben", "secret_hash": b"b" * 32, "ending": "deleted", "until": LATER + AGES},
    "wipe": {"server": "office", "account": "cleo", "user": "cleo@example.com", "wiped_at": NOW},
    "candidate": {"registration_id": "reg-ann", "sealed": b"sealed", "created_at": NOW, "account": "ann"},
    "tries": {
        "server": "office",
        "account": "ann",
        "user": "ann@example.com",
        "spent": 2,
        "strangers": 1,
        "owners": 1,
        "last_at": NOW,
    },
    "outbox": {
        "registration_id": "reg-ann",
        "mark": "email",
        "platform": "apns",
        "count": 10**12,
        "generation": 9,
        "certain": True,
        "first_at": NOW,
        "last_at": LATER,
        "due_at": LATER,
        "attempts": 4,
        "claimed_by": None,
        "claimed_until": None,
        "paced": True,
        "aside": "broken",
        "cause": "",
    },
    "push_test": {
        "id": "test-1",
        "registration_id": "reg-ann",
        "asked_at": NOW,
        "ended_at": LATER,
        "state": "delivered",
        "reason": "",
        "channel": True,
    },
    "challenged": {"device": "device-hash", "number": 3, "since": NOW},
    "shard": {"number": 7, "owner": None, "epoch": 10**11, "lease_until": None},
    "node": {
        "id": "host-1",
        "version": "0.2.0",
        "joined_at": NOW,
        "beat_at": NOW,
        "alive_until": NOW,  # long ago
        "leaving": True,
    },
    "path": {
        "url": "https://mail.example.com",
        "interval": 1680,
        "cut_shortest": HALF,
        "cut_longest": 900.0,
        "capacity": 40,
        "learnt_at": NOW,
    },
    "key_holder": {"node": "node-1", "role": "all", "opens": "aa bb", "seals": "aa", "seen_at": NOW},
    "sealed_anew": {"shard": 7},
    "event": {
        "id": 4711,
        "at": NOW,
        "mailbox_id": "mb-ann",
        "registration_id": "reg-ann",
        "account": "hash",
        "kind": "push",
        "what": "email",
        "through": "apns",
        "result": "delivered",
        "code": "200",
        "count": 2,
    },
    "maintenance": {"server": "office", "since": NOW},
    "canary": {
        "id": 1,
        "registration_id": "reg-ann",
        "device": bytes(range(32)),
        "tried_at": NOW,
        "refused_at": LATER,
        "refusal": "credential-refused",
        "holder": "one",
        "sent_at": NOW,
        "mail_refused_at": LATER,
    },
    "canary_shown": {"platform": "webpush", "noticed_at": NOW, "shown_at": LATER},
}
"""A row of each table; the acts are made as acts are."""


async def fill(engine: Database) -> None:
    """Put the rows into a migrated database, and an act."""
    async with transaction(engine) as connection:
        for name in ("sealed_anew", "shard"):
            await connection.execute(sa.delete(metadata.tables[name]))
        for table in metadata.sorted_tables:
            if table.name in ROWS:
                await connection.execute(sa.insert(table), ROWS[table.name])
    await engine.run(lambda connection: acts.note(connection, BY_CLEO, What.MAINTENANCE_ON, server="office"))


def settings_of(url: str) -> DatabaseSettings:
    parsed = sa.make_url(url)
    return DatabaseSettings(url, file=Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None)


def quiet(doing: str, rows: int, *, whole: bool) -> None:
    """Hear of progress."""


async def back_up(url: str, target: Path, *, leave_out: bool = False, replace: bool = False) -> Made:
    return await transfer.back_up(
        settings_of(url), target, BY_CLEO, "0.2.0", replace=replace, leave_out=leave_out, tell=quiet
    )


async def restore(url: str, source: Path, *, replace: bool = False, keep: bool = True) -> Restored:
    return await transfer.restore(settings_of(url), source, BY_CLEO, replace=replace, keep=keep, tell=quiet)


async def move(source: str, target: str, *, replace: bool = False) -> restoring.Filled:
    return await transfer.move(settings_of(source), settings_of(target), BY_CLEO, "0.2.0", replace=replace, tell=quiet)


def lines_of(connection: sa.Connection) -> dict[str, list[bytes]]:
    return {shape.table: list(read_lines(connection, shape, LeftOut())) for shape in shapes(connection)}


async def content(url: str) -> dict[str, list[bytes]]:
    """Return all rows of a database as lines, by table."""
    async with open_database(url) as engine:
        return await engine.run(lines_of)


def files_of(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


async def revision(url: str) -> tuple[str | None, Leaving]:
    async with open_database(url) as engine:
        return await engine.run(migrate.revision_of)


@pytest.fixture
async def filled(database_url: str) -> AsyncIterator[str]:
    """Yield the URL of a database with a row in each table."""
    async with open_database(database_url) as engine:
        await fill(engine)
    yield database_url
    async with open_database(database_url) as engine:  # other tests use it, too
        await engine.run(restoring.come_back)


@asynccontextmanager
async def empty_database(folder: Path, postgres: PostgresServer | None) -> AsyncIterator[str]:
    if postgres is None:
        yield f"sqlite:///{folder / 'elsewhere' / 'relay.db'}"
        return
    name = await postgres.create()
    yield postgres.url(name)
    await postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
async def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Yield the URL of a database without tables."""
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    async with empty_database(tmp_path, server) as url:
        yield url


async def test_the_samples_have_a_value_in_each_column_of_each_table(filled: str) -> None:
    assert ROWS.keys() | {"act"} == metadata.tables.keys()
    for table, row in ROWS.items():
        assert row.keys() == set(metadata.tables[table].c.keys()), table
    assert all((await content(filled)).values())


async def test_a_restored_backup_has_all_that_was_backed_up_from_either_database_to_either(
    filled: str, elsewhere: str, tmp_path: Path
) -> None:
    made = await back_up(filled, tmp_path / "one.gz")
    before = await content(filled)

    restored = await restore(elsewhere, made.path)

    after = await content(elsewhere)
    for processes in ("node", "key_holder"):
        assert after.pop(processes) == []
        before.pop(processes)
    assert after.pop("shard") == [b"[7,null,100000000001,null]\n"]
    before.pop("shard")
    assert after.pop("act")[:-1] == before.pop("act")
    assert after == before
    assert restored.filled.credentials == 1
    assert restored.filled.silent == 0
    async with open_database(elsewhere) as engine:
        assert not await migrate.pending(engine)
        entries = await latest(engine, 10)
        async with transaction(engine) as connection:
            await connection.execute(sa.insert(metadata.tables["event"]), {"at": NOW, "kind": "push"})
            assert await connection.scalar(sa.select(sa.func.max(metadata.tables["event"].c.id))) == 4712
    assert [entry.what for entry in entries] == ["database.restored", "database.backup", "maintenance.on"]
    assert verify(reversed(entries), {AUDIT_KEY.id: AUDIT_KEY}).faults == ()


async def test_two_backups_of_one_state_differ_in_their_first_line_and_acts_only(filled: str, tmp_path: Path) -> None:
    one = await back_up(filled, tmp_path / "one.gz")
    later = Stamp("cleo", "cli", LATER, (AUDIT_KEY,))
    two = await transfer.back_up(
        settings_of(filled), tmp_path, later, "0.2.0", replace=False, leave_out=False, tell=quiet
    )

    assert two.path.name == "push-relay-20261124T083115Z.backup.gz"
    assert two.path.stat().st_mode & 0o777 == 0o600
    first, second = (gzip.decompress(made.path.read_bytes()).splitlines() for made in (one, two))
    different = [line for line in second if line not in first]
    assert len(different) == 4  # the header, the act of the second backup, the sums of the acts and of all
    assert b'"database.backup"' in different[1]


async def test_after_a_restore_no_registration_rings_before_its_app_was_seen(
    filled: str, elsewhere: str, tmp_path: Path
) -> None:
    made = await back_up(filled, tmp_path / "one.gz")

    restored = await restore(elsewhere, made.path, keep=False)

    assert restored.filled.silent == 1
    async with open_database(elsewhere) as engine, transaction(engine) as connection:
        for table in ("outbox", "candidate"):
            assert await connection.scalar(sa.select(sa.func.count()).select_from(metadata.tables[table])) == 0
        assert await connection.scalar(sa.select(metadata.tables["registration"].c.state)) == "token-gone"
        detail = await connection.scalar(sa.text("SELECT detail FROM act ORDER BY number DESC LIMIT 1"))
    assert "of a backup of 2026-11-24T08:30:15Z, 1 registrations" in detail


async def test_a_backup_made_while_the_relay_runs_lets_no_registration_ring_at_once(
    sqlite_url: str, tmp_path: Path
) -> None:
    with embedded_lock(tmp_path / "relay.db"):
        made = await back_up(sqlite_url, tmp_path / "one.gz")

    with pytest.raises(BackupInvalid, match=r"one.gz: made while the relay ran.*leave --unchanged out"):
        await restore(f"sqlite:///{tmp_path / 'new.db'}", made.path, keep=True)


@pytest.mark.slow
async def test_a_database_with_content_is_replaced_only_when_asked(filled: str, tmp_path: Path) -> None:
    made = await back_up(filled, tmp_path / "one.gz")
    async with open_database(filled) as engine, transaction(engine) as connection:
        await connection.execute(sa.text("UPDATE shard SET epoch = 100000000009"))
        await connection.execute(sa.text("DELETE FROM mailbox"))
        await connection.execute(sa.insert(wipe), {**ROWS["wipe"], "account": "ben", "user": "ben@example.com"})
    before = await content(filled)

    with pytest.raises(DatabaseFilled, match=r"2 rows of wipe.*destroy these with --replace"):
        await restore(filled, made.path)
    assert await content(filled) == before
    await restore(filled, made.path, replace=True)

    after = await content(filled)
    assert after["mailbox"] != []
    assert [b"cleo" in after["wipe"][1], b"ben" in after["wipe"][0]] == [True, True]  # who was wiped since stays so
    assert after["shard"] == [b"[7,null,100000000010,null]\n"]  # no process of before commits under its epoch
    assert b"in place of a log that ended with act 2, " in after["act"][-1]


async def test_nothing_is_restored_while_processes_use_the_database(
    postgres_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    made = await back_up(sqlite_url, tmp_path / "one.gz")
    with embedded_lock(tmp_path / "relay.db"), pytest.raises(DatabaseInUse):
        await restore(sqlite_url, made.path)
    async with open_database(postgres_url) as engine:
        async with transaction(engine) as connection:
            alive = {**ROWS["node"], "alive_until": NOW + 100 * AGES}
            await connection.execute(sa.insert(metadata.tables["node"]), alive)
        with pytest.raises(DatabaseBusy, match="sessions of the database user postgres, watch process host-1: stop"):
            await restore(postgres_url, made.path)
        with pytest.raises(DatabaseBusy):
            await move(postgres_url, f"sqlite:///{tmp_path / 'new.db'}")
        assert not (await engine.run(migrate.revision_of))[1]
    made = await back_up(postgres_url, tmp_path / "two.gz")
    assert made.header.running


def damage(whole: bytes, kind: str) -> bytes:  # noqa: PLR0911 -- one for each kind
    """Return a backup that is not as it was written."""
    text = gzip.decompress(whole)
    match kind:
        case "cut":
            return whole[:-100]
        case "cut text":
            return gzip.compress(text[: text.rindex(b"\n", 0, -1) + 1])
        case "bits":
            return whole[:200] + bytes([whole[200] ^ 16]) + whole[201:]
        case "row gone":
            at = text.index(b'["reg-ben"')
            return gzip.compress(text[:at] + text[text.index(b"\n", at) + 1 :])
        case "value":
            return gzip.compress(text.replace(b"key-7", b"key-8"))
        case "newer format":
            return gzip.compress(text.replace(b'"version":1', b'"version":2', 1))
        case "newer schema":
            return gzip.compress(text.replace(b'"schema":"', b'"schema":"9', 1))
        case "longer":
            return gzip.compress(text + b"{}\n")
        case _:
            return b"PGDMP" + text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("cut", "ends too early: only a part"),
        ("cut text", "ends too early: only a part"),
        ("bits", "changed since it was written"),
        ("row gone", "changed since it was written: the checksum of the table tombstone"),
        ("value", "changed since it was written: the checksum of the table collection"),
        ("newer format", "made by a newer relay"),
        ("newer schema", "made by relay 0.2.0, whose schema 9.* is newer than this version: install"),
        ("longer", "changed since it was written: it goes on"),
        ("other", "no backup of the relay"),
    ],
)
async def test_a_file_that_is_not_as_it_was_written_is_named_and_nothing_is_done(
    sqlite_url: str, tmp_path: Path, kind: str, says: str
) -> None:
    async with open_database(sqlite_url) as engine:
        await fill(engine)
    made = await back_up(sqlite_url, tmp_path / "one.gz")
    (tmp_path / "bad.gz").write_bytes(damage(made.path.read_bytes(), kind))
    before = await content(sqlite_url)

    with pytest.raises(BackupInvalid, match=rf"bad\.gz: {says}"):
        await restore(sqlite_url, tmp_path / "bad.gz", replace=True)

    assert await content(sqlite_url) == before


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("outbox", str(10**12), str(2**63)),
        ("outbox", str(10**12), "[" * 100_000 + "]" * 100_000),
        ("mailbox", '"ann@example.com"', r'"\ud800"'),
        ("mailbox", ".250000+00:00", ".250000"),
        ("mailbox", '"ann@example.com"', "7"),
        ("mailbox", '"ann@example.com",', ""),
    ],
)
async def test_a_row_that_somebody_made_up_is_refused_whatever_it_holds(
    tmp_path: Path, database_url: str, table: str, before: str, after: str
) -> None:
    async with open_database(await write_new_sqlite(tmp_path / "source.db")) as engine:
        await fill(engine)
        lines = await engine.run(lines_of)
        made_up = [line.replace(before.encode(), after.encode(), 1) for line in lines[table]]
        assert made_up != lines[table]
        shape = next(shape for shape in await engine.run(shapes) if shape.table == table)
    async with open_database(database_url) as engine:
        parents = ("mailbox", "registration") if table == "outbox" else ()
        for each in await engine.run(shapes):
            if each.table in parents:
                await engine.run(write_lines, each, lines[each.table])

        with pytest.raises((ValueError, TypeError, DatabaseRefuses)):
            await engine.run(write_lines, shape, made_up)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("revision_before", ["0006", pytest.param("0022", marks=pytest.mark.slow)])
async def test_a_backup_of_an_older_schema_is_brought_to_the_newest_one(
    kind: str, revision_before: str, elsewhere: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres") if kind == "postgres" else None
    async with empty_database(tmp_path / "old", server) as url:
        (tmp_path / "old/elsewhere").mkdir(parents=True)
        async with open_database(url) as engine:
            await migrate_to(engine, revision_before)
            async with transaction(engine) as connection:
                await connection.execute(
                    sa.text(
                        'INSERT INTO mailbox (id, server, "user", device_id, shard, state, since, dirty)'
                        " VALUES ('m', 'office', 'ann@example.com', 'D', 7, 'watching', '2026-11-24 08:30:15', false)"
                    )
                )
                await connection.execute(
                    sa.text(
                        "INSERT INTO collection (mailbox_id, collection_id, class, sync_key, tries, seen)"
                        """ VALUES ('m', '5', 'email', 'key-7', 0, '["5:1"]')"""
                    )
                )
        made = await back_up(url, tmp_path / "old.gz")
    assert made.header.schema == revision_before

    await restore(elsewhere, made.path)

    after = await content(elsewhere)
    assert b'"m","office","ann@example.com","D",7' in after["mailbox"][0]
    assert b'"key-7"' in after["collection"][0]
    async with open_database(elsewhere) as engine:
        assert not await migrate.pending(engine)
        async with transaction(engine) as connection:
            keys = await connection.scalar(sa.text("SELECT user_key FROM mailbox"))
            assert (keys is None) == (revision_before >= "0022")  # migrations after the restore see its rows


async def test_rows_that_cannot_be_read_are_named_and_left_out_only_when_asked(sqlite_url: str, tmp_path: Path) -> None:
    async with open_database(sqlite_url) as engine:
        await fill(engine)
        async with transaction(engine) as connection:
            await connection.execute(sa.text("UPDATE mailbox SET since = 'yesterday'"))

    with pytest.raises(RowsUnreadable, match=r"mailbox mb-ann .*leave them out with `relay backup --leave-out`"):
        await back_up(sqlite_url, tmp_path / "one.gz")
    assert not files_of(tmp_path, "*.gz")
    made = await back_up(sqlite_url, tmp_path / "one.gz", leave_out=True)

    assert sorted(name.partition(" (")[0] for name in made.left_out) == [
        "candidate reg-ann",
        "collection mb-ann/5",
        "hierarchy mb-ann",
        "mailbox mb-ann",
        "outbox reg-ann/email",
        "push_test test-1",
        "registration reg-ann",
    ]
    await restore(f"sqlite:///{tmp_path / 'new.db'}", made.path)
    assert (await content(f"sqlite:///{tmp_path / 'new.db'}"))["tombstone"] != []


async def test_a_fault_of_the_file_is_not_told_as_the_databases(
    sqlite_url: str, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await back_up(sqlite_url, tmp_path / "one.gz")
    files = 0

    def read_once(file: IO[bytes]) -> Iterator[bytes]:
        nonlocal files
        files += 1
        yield from lines(file)
        if files > 1:  # behind the check of the whole file
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(transfer, "lines", read_once)

    with pytest.raises(OSError, match="Input/output error"):
        await restore(elsewhere, made.path)

    assert await content(elsewhere) == {}


async def test_a_full_disk_of_the_backup_leaves_nothing_behind(sqlite_url: str, tmp_path: Path) -> None:
    async with open_database(sqlite_url) as engine, transaction(engine) as connection:
        many = [{**ROWS["tombstone"], "secret_hash": os.urandom(32), "registration_id": f"{n}"} for n in range(3000)]
        await connection.execute(sa.insert(metadata.tables["tombstone"]), many)
    made = await back_up(sqlite_url, tmp_path / "whole.gz")
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (made.path.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            await back_up(sqlite_url, tmp_path / "one.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files_of(tmp_path, "*.gz*") == [made.path]


async def test_a_backup_replaces_no_file_and_leaves_none_behind_if_it_fails(sqlite_url: str, tmp_path: Path) -> None:
    mine = tmp_path / "one.gz"
    mine.write_text("mine")

    with pytest.raises(FileExistsError, match="name another one, or add --replace"):
        await back_up(sqlite_url, tmp_path / "one.gz")
    assert mine.read_text() == "mine"
    made = await back_up(sqlite_url, tmp_path / "one.gz", replace=True)
    assert made.path.read_bytes().startswith(b"\x1f\x8b")
    with pytest.raises(FileNotFoundError):
        await back_up(sqlite_url, tmp_path / "no/one.gz")
    assert not files_of(tmp_path, ".*")


@pytest.mark.slow
async def test_a_backup_sees_one_state_while_the_relay_writes(filled: str, elsewhere: str, tmp_path: Path) -> None:
    """Each commit writes the same number into two tables: in the backup they agree."""
    began, stop = asyncio.Event(), asyncio.Event()

    async def write() -> int:
        number = 0
        async with open_database(filled) as engine:
            while not stop.is_set():
                number += 1
                async with transaction(engine) as connection:
                    await connection.execute(sa.update(mailbox).values(detail=f"{number}"))
                    await connection.execute(sa.update(maintenance).values(server=f"{number}"))
                began.set()
        return number

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(write())
        await asyncio.wait_for(began.wait(), SOON)
        try:
            made = [await back_up(filled, tmp_path / f"{number}.gz") for number in range(3)]
        finally:
            stop.set()
    assert writing.result() > 3

    for each in made:
        await restore(elsewhere, each.path, replace=True, keep=False)
        async with open_database(elsewhere) as engine, transaction(engine) as connection:
            detail = await connection.scalar(sa.text("SELECT detail FROM mailbox"))
            assert detail == await connection.scalar(sa.text("SELECT server FROM maintenance"))


def cancel(work: asyncio.Task[Any]) -> None:
    """Cancel a task from within; a thread that works for it goes on when the task knows."""
    loop = work.get_loop()
    if threading.current_thread() is threading.main_thread():
        loop.call_soon(work.cancel)
        return

    async def cancelled() -> None:
        work.cancel()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(cancelled(), loop).result(SOON)


async def test_a_restore_that_is_stopped_leaves_nothing(sqlite_url: str, elsewhere: str, tmp_path: Path) -> None:
    async with open_database(sqlite_url) as engine, transaction(engine) as connection:
        many = [{**ROWS["tombstone"], "registration_id": f"reg-{number}"} for number in range(3000)]
        await connection.execute(sa.insert(metadata.tables["tombstone"]), many)
    made = await back_up(sqlite_url, tmp_path / "one.gz")
    stopped = asyncio.Event()

    def tell(doing: str, rows: int, *, whole: bool) -> None:
        if doing == "write tombstone" and not whole:
            cancel(work)
            stopped.set()

    async with asyncio.TaskGroup() as tasks:
        settings = settings_of(elsewhere)
        work = tasks.create_task(transfer.restore(settings, made.path, BY_CLEO, replace=False, keep=True, tell=tell))

    assert stopped.is_set()
    assert work.cancelled()
    assert await content(elsewhere) == {}


# --- moves


@pytest.mark.slow
async def test_a_move_takes_all_along_and_the_database_before_is_used_no_more(
    filled: str, elsewhere: str, tmp_path: Path
) -> None:
    before = await content(filled)

    await move(filled, elsewhere)

    after = await content(elsewhere)
    assert after["registration"] == before["registration"]
    assert after["outbox"] == before["outbox"]
    assert b"database.moved" in after["act"][-1]
    assert await revision(filled) == (migrate.revisions()[-1], Leaving.DONE)
    async with open_database(filled) as engine:
        with pytest.raises(DatabaseMoved, match=r"moved to another one: name that one in database\.url"):
            await migrate.pending(engine)
        with pytest.raises(DatabaseMoved):
            await migrate.upgrade(engine)
    with pytest.raises(DatabaseMoved):
        await move(filled, elsewhere, replace=True)  # would bring an old state back
    with pytest.raises(DatabaseMoved):
        await move(filled, f"sqlite:///{tmp_path / 'third.db'}")


@pytest.mark.slow
async def test_a_move_goes_back_and_takes_along_what_came_meanwhile(filled: str, elsewhere: str) -> None:
    await move(filled, elsewhere)
    async with open_database(elsewhere) as engine, transaction(engine) as connection:
        await connection.execute(sa.text("UPDATE collection SET sync_key = 'key-8'"))

    with pytest.raises(DatabaseFilled):
        await move(elsewhere, filled)
    assert await revision(elsewhere) == (migrate.revisions()[-1], Leaving.NO)
    await move(elsewhere, filled, replace=True)

    assert b"key-8" in (await content(filled))["collection"][0]
    assert not (await revision(filled))[1]
    assert (await revision(elsewhere))[1]


@pytest.mark.slow
async def test_a_move_that_was_killed_runs_again_or_is_undone(filled: str, elsewhere: str) -> None:
    async with open_database(filled) as engine:
        await engine.run(restoring.leave)  # kill -9 came behind this

    assert await transfer.undo_move(settings_of(filled))
    assert not await transfer.undo_move(settings_of(filled))
    assert not (await revision(filled))[1]
    async with open_database(filled) as engine:
        await engine.run(restoring.leave)
    await move(filled, elsewhere)

    assert (await content(elsewhere))["registration"] != []
    async with open_database(filled) as engine:  # kill -9 came behind the commit of the other database
        await engine.run(lambda connection: migrate.set_leaving(connection, Leaving.UNDER_WAY))
    with pytest.raises(DatabaseMoved):
        await move(filled, elsewhere, replace=True)


async def test_a_move_that_was_killed_before_it_replaced_anything_runs_again(
    sqlite_url: str, elsewhere: str, tmp_path: Path
) -> None:
    """What the other database holds is from an earlier move there and back, so it is old, and not what was moved."""
    async with open_database(sqlite_url) as engine:
        await fill(engine)
    await move(sqlite_url, elsewhere)
    await move(elsewhere, sqlite_url, replace=True)
    async with open_database(sqlite_url) as engine:
        async with transaction(engine) as connection:
            await connection.execute(sa.text("UPDATE collection SET sync_key = 'key-9'"))
        await engine.run(restoring.leave)  # kill -9 came behind this
    await back_up(sqlite_url, tmp_path / "to-be-safe.gz")  # adds an act

    with pytest.raises(DatabaseFilled):
        await move(sqlite_url, elsewhere)
    await move(sqlite_url, elsewhere, replace=True)

    assert b"key-9" in (await content(elsewhere))["collection"][0]
    assert await revision(sqlite_url) == (migrate.revisions()[-1], Leaving.DONE)


@pytest.mark.parametrize("replace", [False, True])
async def test_a_database_of_a_newer_relay_is_not_replaced_and_the_way_out_is_said(
    sqlite_url: str, elsewhere: str, tmp_path: Path, replace: bool
) -> None:
    made = await back_up(sqlite_url, tmp_path / "one.gz")
    (tmp_path / "elsewhere").mkdir()
    async with open_database(elsewhere) as engine:
        await migrate.upgrade(engine)
        async with transaction(engine) as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    way_out = "move the file away, with relay.db-wal" if "sqlite" in elsewhere else "administrator make an empty one"

    with pytest.raises(DatabaseNewer, match=way_out):
        await restore(elsewhere, made.path, replace=replace)
    with pytest.raises(DatabaseNewer, match=way_out):
        await move(sqlite_url, elsewhere, replace=replace)

    assert not (await revision(sqlite_url))[1]


@pytest.mark.parametrize("moment", ["read mailbox", "write mailbox"])
async def test_a_move_that_is_stopped_leaves_both_databases_as_they_were(
    sqlite_url: str, elsewhere: str, moment: str
) -> None:
    async with open_database(sqlite_url) as engine:
        await fill(engine)
        async with transaction(engine) as connection:
            many = [{**ROWS["tombstone"], "registration_id": f"reg-{number}"} for number in range(3000)]
            await connection.execute(sa.insert(metadata.tables["tombstone"]), many)

    def tell(doing: str, rows: int, *, whole: bool) -> None:
        if doing == moment:
            cancel(work)

    async with asyncio.TaskGroup() as tasks:
        source, target = settings_of(sqlite_url), settings_of(elsewhere)
        work = tasks.create_task(transfer.move(source, target, BY_CLEO, "0.2.0", replace=False, tell=tell))

    assert work.cancelled()
    assert await revision(sqlite_url) == (migrate.revisions()[-1], Leaving.NO)
    assert await content(elsewhere) == {}


async def test_a_move_that_fails_leaves_the_database_in_use(
    sqlite_url: str, postgres: PostgresServer, migrated: MigratedDatabases, tmp_path: Path
) -> None:
    async with open_database(sqlite_url) as engine:
        await fill(engine)
        async with transaction(engine) as connection:  # which PostgreSQL does not take
            await connection.execute(sa.text("UPDATE mailbox SET detail = 'a' || char(0) || 'b'"))
    name = await migrated.copy()

    with pytest.raises(DatabaseRefuses, match=r"rows of the table mailbox: .*0x00"):
        await move(sqlite_url, postgres.url(name))

    assert await revision(sqlite_url) == (migrate.revisions()[-1], Leaving.NO)
    async with open_database(postgres.url(name)) as engine:
        assert await engine.run(restoring.rows_of) == {}
        assert not await migrate.pending(engine)
    await postgres.drop(name)


async def test_a_move_names_what_the_database_user_lacks(sqlite_url: str, postgres: PostgresServer) -> None:
    name = await postgres.create()
    await postgres.create_users("mover")
    await postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)
    with pytest.raises(DatabaseRefuses, match=r"permission denied for schema public.*Check database\.url"):
        await move(sqlite_url, postgres.url(name, "mover"))
    with pytest.raises(DatabaseRefuses, match="does not exist"):
        await move(sqlite_url, postgres.url("nowhere"))

    assert not (await revision(sqlite_url))[1]
    await postgres.drop(name)


async def test_rights_of_the_roles_are_the_same_after_a_restore(
    postgres: PostgresServer, migrated: MigratedDatabases, tmp_path: Path
) -> None:
    await postgres.create_users("relay_api", "relay_watch", "relay_push")
    name = await migrated.copy()
    url = postgres.url(name)
    async with open_database(url) as engine:
        await grant(engine)
    made = await back_up(url, tmp_path / "one.gz")

    restored = await restore(url, made.path, replace=True, keep=False)

    assert restored.filled.granted
    async with open_database(postgres.url(name, "relay_api")) as engine, transaction(engine) as connection:
        await connection.execute(sa.text("SELECT registration_id FROM candidate"))
        with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
            await connection.execute(sa.text("SELECT sealed FROM candidate"))
    await postgres.drop(name)


async def test_nothing_can_be_backed_up_from_a_database_without_tables(elsewhere: str, tmp_path: Path) -> None:
    if elsewhere.startswith("sqlite"):
        (tmp_path / "elsewhere").mkdir()
    with pytest.raises(BackupInvalid, match="nothing to back up"):
        await back_up(elsewhere, tmp_path / "one.gz")
    with pytest.raises(BackupInvalid, match="nothing to move"):
        await move(elsewhere, f"sqlite:///{tmp_path / 'new.db'}")
