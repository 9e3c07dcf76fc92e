"""Test how databases are opened, and which errors mean that one does not answer."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from relay.domain.errors import DatabaseInUse, DatabaseRefuses, StoreUnavailable
from relay.domain.model import RegistrationId
from relay.store import postgresql, workers
from relay.store.engine import Database, away, connect_arguments, embedded_lock, open_database, refusals
from relay.store.prepared import Prepared
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import path as lessons
from relay.store.wakeups import LocalWakeups
from tests.contract.samples import NOW
from tests.fakes.postgres_front import LingeringFront, lingering_front
from tests.postgres import PostgresServer
from tests.transactions import transaction
from tests.waiting import until

ROW = {"url": "https://mail.example.com/", "learnt_at": NOW}


@pytest.fixture
def postgres_url(fresh_postgres_url: str) -> str:
    return fresh_postgres_url


async def pragma(engine: Database, name: str) -> object:
    async with transaction(engine) as connection:
        return await connection.scalar(sa.text(f"PRAGMA {name}"))


async def test_an_embedded_database_keeps_what_it_committed_and_forgets_what_it_deleted(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'relay.db'}") as engine:
        assert await pragma(engine, "journal_mode") == "wal"
        assert await pragma(engine, "synchronous") == 2  # FULL
        assert await pragma(engine, "foreign_keys") == 1
        assert await pragma(engine, "secure_delete") == 1
        assert await pragma(engine, "temp_store") == 2  # memory: no row is copied into a file besides


async def test_the_name_of_an_embedded_database_may_have_any_character(tmp_path: Path) -> None:
    path = tmp_path / "what? 100%25 #1@home:é.db"

    async with open_database(f"sqlite:///{path}") as engine:
        assert await pragma(engine, "journal_mode") == "wal"

    assert path.exists()


async def test_only_the_owner_may_read_an_embedded_database(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'relay.db'}") as engine:
        async with transaction(engine) as connection:
            await connection.execute(sa.text("CREATE TABLE t (x)"))

        files = [tmp_path / f"relay.db{suffix}" for suffix in ("", "-wal", "-shm")]
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3


async def number_of_rows(engine: Database) -> object:
    async with transaction(engine) as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(lessons))


async def test_a_failed_transaction_leaves_nothing_not_even_tables(engine: Database) -> None:
    async def fail() -> None:
        async with transaction(engine) as connection:
            await connection.execute(sa.text("CREATE TABLE t (x integer)"))
            await connection.execute(sa.insert(lessons), ROW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    async with transaction(engine) as connection:
        assert not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("t"))
    assert await number_of_rows(engine) == 0


def insert(connection: sa.Connection, url: str = "https://mail.example.com/") -> None:
    connection.execute(sa.insert(lessons), ROW | {"url": url})


async def test_a_caller_cancelled_while_it_waits_for_its_turn_changes_nothing(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as engine, asyncio.TaskGroup() as tasks:
        async with transaction(engine):
            waiting = tasks.create_task(engine.run(insert))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})

        assert await number_of_rows(engine) == 0


async def test_a_transaction_that_runs_in_a_thread_ends_though_its_caller_is_cancelled(sqlite_url: str) -> None:
    inserted, go_on = threading.Event(), threading.Event()

    def insert_slowly(connection: sa.Connection) -> None:
        insert(connection)
        inserted.set()
        assert go_on.wait(10)

    async with open_database(sqlite_url) as engine:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(engine.run(insert_slowly))
            await asyncio.to_thread(inserted.wait, 10)
            running.cancel()
        go_on.set()

        assert await number_of_rows(engine) == 1


async def test_transactions_run_whole_and_in_the_order_in_which_they_were_asked_for(engine: Database) -> None:
    one = engine.dialect.name == "sqlite"
    seen: list[int] = []

    def count(connection: sa.Connection, number: int) -> object:
        insert(connection, f"{number}")
        seen.append(number)
        return connection.scalar(sa.select(sa.func.count()).select_from(lessons))

    counts = await asyncio.gather(*(engine.run(count, number) for number in range(20)))

    assert counts == list(range(1, 21)) if one else await number_of_rows(engine) == 20
    assert seen == list(range(20)) if one else len(seen) == 20


@pytest.fixture
async def one_writer(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(workers, "TOGETHER", 10.0)  # a thread that stood still for a while lets others join, too
    async with open_database(sqlite_url) as opened:
        yield opened


async def joined(engine: Database, *works: Callable[[sa.Connection], object]) -> list[object]:
    """Let work wait together behind a transaction; return what came of each."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: sa.Connection) -> None:
        begun.set()
        assert go_on.wait(10)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run(wait))
        assert await asyncio.to_thread(begun.wait, 10)
        waiting = asyncio.gather(*(engine.join(work) for work in works), return_exceptions=True)
        await asyncio.sleep(0)
        go_on.set()
        return await waiting


def commits_of(engine: Database) -> list[sa.Connection]:
    """Return a list that grows with each commit."""
    commits: list[sa.Connection] = []
    event.listen(engine.engine, "commit", commits.append)
    return commits


def fail(connection: sa.Connection) -> None:
    insert(connection, "failed")
    raise ZeroDivisionError


async def urls(engine: Database) -> list[str]:
    return await engine.run(lambda connection: list(connection.scalars(sa.select(lessons.c.url).order_by("url"))))


async def test_work_that_waits_is_committed_together_and_each_fails_by_itself(one_writer: Database) -> None:
    commits = commits_of(one_writer)
    works: list[Callable[[sa.Connection], None]] = [
        partial(insert, url="first"),
        fail,
        partial(insert, url="first"),
        partial(insert, url="second"),
    ]

    first, failed, double, second = await joined(one_writer, *works)

    assert (first, second) == (None, None)
    assert isinstance(failed, ZeroDivisionError)
    assert isinstance(double, IntegrityError)
    assert len(commits) == 2  # the one that they waited for, and theirs
    assert await urls(one_writer) == ["first", "second"]


async def test_the_first_that_fails_leaves_the_others_their_own_transaction(one_writer: Database) -> None:
    failed, second = await joined(one_writer, fail, partial(insert, url="second"))

    assert isinstance(failed, ZeroDivisionError)
    assert second is None
    assert await urls(one_writer) == ["second"]


async def test_work_that_does_not_join_is_committed_alone(one_writer: Database) -> None:
    commits = commits_of(one_writer)

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(one_writer.run(insert, f"{number}"))
        tasks.create_task(one_writer.join(insert, "joins"))
        tasks.create_task(one_writer.run(insert, "last"))

    assert len(commits) == 5
    assert len(await urls(one_writer)) == 5


async def test_what_cannot_be_committed_is_unavailable_to_all_that_joined_and_the_next_is_committed(
    one_writer: Database,
) -> None:
    broken = [True]

    def break_down(_: sa.Connection) -> None:
        if broken and broken.pop():
            raise sqlite3.OperationalError("disk I/O error")

    def insert_and_break(connection: sa.Connection) -> None:
        insert(connection, "first")
        event.listen(one_writer.engine, "commit", break_down)

    outcomes = await joined(one_writer, insert_and_break, partial(insert, url="second"))

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
    assert await urls(one_writer) == []
    await one_writer.join(insert, "third")
    assert await urls(one_writer) == ["third"]


async def test_work_that_ends_the_transaction_of_all_makes_it_unavailable_to_the_others(one_writer: Database) -> None:
    def roll_back(connection: sa.Connection) -> None:  # as SQLite does when the disk is full
        connection.exec_driver_sql("ROLLBACK")
        raise ZeroDivisionError

    first, ended = await joined(one_writer, partial(insert, url="first"), roll_back)

    assert isinstance(first, StoreUnavailable)
    assert isinstance(ended, ZeroDivisionError)
    assert await urls(one_writer) == []
    await one_writer.join(insert, "next")
    assert await urls(one_writer) == ["next"]


async def test_a_caller_cancelled_before_its_turn_joins_nothing(one_writer: Database) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with transaction(one_writer):
            kept = tasks.create_task(one_writer.join(insert, "kept"))
            waiting = tasks.create_task(one_writer.join(insert, "cancelled"))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        await kept

    assert await urls(one_writer) == ["kept"]


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_transaction_cancelled_at_any_moment_does_not_harm_the_next(engine: Database, turns: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(engine.run(insert))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    assert await number_of_rows(engine) in (0, 1)
    await engine.run(insert, "other")


async def test_our_own_mistakes_pass_through(engine: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="no_such_table"):
        async with transaction(engine) as connection:
            await connection.execute(sa.text("SELECT * FROM no_such_table"))


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'no' / 'such' / 'directory' / 'relay.db'}") as engine:
        with pytest.raises(StoreUnavailable):
            async with transaction(engine):
                pass


async def test_a_file_locked_for_long_is_unavailable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'relay.db'}"
    async with open_database(url) as engine, open_database(url) as other:
        async with transaction(other) as connection:
            await connection.execute(sa.text("PRAGMA busy_timeout=1"))
        async with transaction(engine):
            with pytest.raises(StoreUnavailable, match="locked"):
                async with transaction(other):
                    pass


async def test_a_connection_cut_by_the_server_is_unavailable_once(postgres_engine: Database) -> None:
    async def use_a_connection_that_is_cut() -> None:
        async with transaction(postgres_engine) as connection:
            pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
            async with transaction(postgres_engine) as other:
                await other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            await connection.execute(sa.text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        await use_a_connection_that_is_cut()

    assert await number_of_rows(postgres_engine) == 0


async def test_an_idle_connection_that_was_cut_is_replaced_silently(postgres_engine: Database) -> None:
    async with transaction(postgres_engine) as connection:
        first = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
        async with transaction(postgres_engine) as other:
            second = await other.scalar(sa.text("SELECT pg_backend_pid()"))
            await other.execute(sa.text("SELECT 1"))
    async with transaction(postgres_engine) as connection:
        pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
        assert pid in (first, second)
        await connection.execute(
            sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": second if pid == first else first}
        )

    async with transaction(postgres_engine) as one, transaction(postgres_engine) as two:
        assert await one.scalar(sa.text("SELECT 1")) == await two.scalar(sa.text("SELECT 1")) == 1


async def test_the_isolation_that_is_set_for_a_database_is_not_that_of_the_relay(
    postgres_url: str, postgres_engine: Database
) -> None:
    name = sa.make_url(postgres_url).database
    of_all = sa.text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    await postgres_engine.run(lambda connection: connection.execute(of_all))

    async with open_database(postgres_url) as engine:
        shown = Prepared(sa.select(sa.func.current_setting("transaction_isolation")))
        assert await engine.run(shown.rows) == await engine.rows(shown, {}) == [("read committed",)]


def pid(connection: sa.Connection) -> object:
    return connection.scalar(sa.text("SELECT pg_backend_pid()"))


@pytest.fixture
async def front(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[LingeringFront]:
    async with lingering_front(postgres.socket, tmp_path) as opened:
        yield opened


@pytest.fixture
async def behind(front: LingeringFront, postgres_url: str) -> AsyncIterator[Database]:
    async with open_database(front.url(postgres_url)) as engine:
        yield engine


@pytest.mark.parametrize("single", [True, False])
async def test_an_idle_connection_is_replaced_when_the_server_says_that_it_ends(
    behind: Database, front: LingeringFront, postgres_engine: Database, *, single: bool
) -> None:
    async def ask() -> object:
        statement = Prepared(sa.select(sa.func.pg_backend_pid()))
        [(found,)] = await (behind.rows(statement, {}) if single else behind.run(statement.rows))
        return found

    first = await ask()
    await postgres_engine.run(lambda it: it.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": first}))
    await front.closed()

    assert await ask() != first


async def test_a_connection_is_used_again_whatever_became_of_its_transaction(postgres_engine: Database) -> None:
    first = await postgres_engine.run(pid)
    with pytest.raises(ZeroDivisionError):
        await postgres_engine.run(fail)
    with pytest.raises(sa.exc.DBAPIError):
        await postgres_engine.run(lambda connection: connection.execute(sa.text("SELECT 1 / 0")))

    assert await postgres_engine.run(pid) == first


async def test_an_old_connection_is_replaced(postgres_engine: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "RENEW", 0)

    assert await postgres_engine.run(pid) != await postgres_engine.run(pid)


async def test_an_old_connection_is_closed_without_a_word_of_its_server(
    postgres_engine: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_for_answer(driver: asyncpg.Connection, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if not driver.is_closed():
            await asyncio.sleep(60)

    monkeypatch.setattr(postgresql, "RENEW", 0)
    monkeypatch.setattr(asyncpg.Connection, "close", wait_for_answer)
    async with asyncio.timeout(30):
        assert await postgres_engine.run(pid) != await postgres_engine.run(pid)
        await postgres_engine.close()


async def test_transactions_wait_for_a_connection_for_a_while_and_few_connections_are_kept(
    postgres_engine: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "CONNECT", 0.05)
    async with AsyncExitStack() as stack:
        for _ in range(postgresql.POOL + postgresql.OVERFLOW):
            await stack.enter_async_context(transaction(postgres_engine))
        with pytest.raises(StoreUnavailable, match="10 connections were in use"):
            await postgres_engine.run(pid)

    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'client%'"

    async def only_those_kept() -> bool:
        return bool(await postgres_engine.run(lambda it: it.scalar(sa.text(ours))) == postgresql.POOL)

    await until(only_those_kept)


async def test_a_statement_that_takes_too_long_is_unavailable(postgres_engine: Database) -> None:
    async def be_slow() -> None:
        async with transaction(postgres_engine) as connection:
            await connection.execute(sa.text("SET LOCAL statement_timeout = 20"))
            await connection.execute(sa.text("SELECT pg_sleep(10)"))

    with pytest.raises(StoreUnavailable):
        await be_slow()


def test_other_databases_are_refused() -> None:
    with pytest.raises(ValueError, match="mysql"):
        connect_arguments("mysql+pymysql://localhost/relay")


def test_sslmode_is_spelled_as_the_driver_does() -> None:
    arguments = connect_arguments("postgresql://relay@db.example.com/relay?sslmode=verify-full")

    assert (arguments["host"], arguments["ssl"]) == ("db.example.com", "verify-full")
    assert "sslmode" not in arguments


async def test_an_embedded_database_needs_a_file() -> None:
    with pytest.raises(ValueError, match="file"):
        async with open_database("sqlite://"):
            pass


def test_a_second_process_finds_the_database_in_use(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    attempt = (
        "import pathlib, sys; from relay.store.engine import embedded_lock\n"
        "with embedded_lock(pathlib.Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", attempt, str(path)]

    with embedded_lock(path):
        with pytest.raises(DatabaseInUse, match=r"relay\.db: stop it, or use PostgreSQL"), embedded_lock(path):
            pass
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    third = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "DatabaseInUse" in second.stderr
    assert third.returncode == 0, third.stderr


async def test_a_database_that_does_not_exist_is_a_fault_of_the_settings_and_no_outage(
    postgres: PostgresServer,
) -> None:
    async with open_database(postgres.url("nowhere")) as engine:
        with pytest.raises(sa.exc.DBAPIError, match="does not exist"):
            async with transaction(engine):
                pass


@pytest.mark.parametrize(
    ("state", "expected"),
    [("57P03", True), ("40P01", True), ("53300", True), ("25006", True), ("42P01", False), ("23505", False)],
)
def test_the_sqlstate_shows_whether_the_database_is_away(state: str, expected: bool) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "an error", "S": "ERROR"})

    assert away(error) is expected
    assert away(sa.exc.DBAPIError("SELECT 1", None, error)) is expected


@pytest.fixture
async def reads(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, reads=True) as opened:
        yield opened


async def test_questions_wait_for_no_writer(engine: Database, reads: Database) -> None:
    async with transaction(engine) as connection:
        await connection.execute(sa.insert(lessons), ROW)
        async with asyncio.timeout(10):
            assert await number_of_rows(reads) == 0
    assert await number_of_rows(reads) == 1


async def test_a_question_holds_no_writer_up(engine: Database, reads: Database) -> None:
    async with transaction(reads) as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(lessons)) == 0
        async with asyncio.timeout(10), transaction(engine) as writing:
            await writing.execute(sa.insert(lessons), ROW)


async def test_a_connection_for_questions_changes_nothing(engine: Database, reads: Database) -> None:
    with pytest.raises((sa.exc.DBAPIError, StoreUnavailable), match=r"readonly|read-only"):
        async with transaction(reads) as connection:
            await connection.execute(sa.insert(lessons), ROW)
    assert await number_of_rows(engine) == 0


async def test_questions_of_phones_wait_for_no_writer(engine: Database, reads: Database) -> None:
    store = SqlRegistrationStore(engine, LocalWakeups(), reads)
    async with asyncio.timeout(10), transaction(engine) as connection:
        await connection.execute(sa.insert(lessons), ROW)
        assert await store.view(RegistrationId("none")) is None
        assert await store.mailbox_of("main", "ann@example.com") is None


async def test_a_process_that_looks_at_the_file_takes_no_log_away(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    look = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT 1 FROM sqlite_master'); c.close()"  # noqa: S608
    async with open_database(f"sqlite:///{path}") as engine, open_database(f"sqlite:///{path}", reads=True) as reads:
        async with transaction(engine) as connection:
            await connection.execute(sa.text("CREATE TABLE t (x integer)"))
        async with transaction(reads) as connection:
            await connection.execute(sa.text("SELECT x FROM t"))

        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", look], check=True)

        assert path.with_name("relay.db-wal").exists()
        async with transaction(engine) as connection:
            await connection.execute(sa.text("INSERT INTO t VALUES (1)"))
            assert await connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"


async def test_a_lone_statement_on_a_connection_that_the_server_cut_is_executed_on_another(
    postgres_engine: Database,
) -> None:
    cut: list[str] = []

    def cut_first(connection: sa.Connection, *_: object) -> None:
        if not cut:
            cut.append("first")
            driver = connection.connection.driver_connection
            assert isinstance(driver, asyncpg.Connection)
            driver.terminate()
            raise connection.dialect.loaded_dbapi.InterfaceError("connection is closed")

    event.listen(postgres_engine.engine, "before_cursor_execute", cut_first)

    rows = await postgres_engine.rows(Prepared(sa.select(sa.literal_column("7").label("seven"))), {})

    assert [row.seven for row in rows] == [7]
    assert cut == ["first"]


async def test_what_a_database_refuses_is_told_without_the_values_of_the_row(engine: Database) -> None:
    row = {"name": "canary-of-a-row", "number": None}

    def insert(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE t (name text, number integer NOT NULL)"))
        connection.execute(sa.text("INSERT INTO t VALUES (:name, :number)"), row)

    with pytest.raises(DatabaseRefuses) as raised, refusals():
        await engine.run(insert)

    assert "number" in str(raised.value)
    assert "canary" not in str(raised.value)
