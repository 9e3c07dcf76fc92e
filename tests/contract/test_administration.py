"""What administrators see and order, on both databases; on PostgreSQL the database users of the roles may do it."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.admin.audit import What
from relay.admin.documents import export
from relay.admin.values import BadCursor, Done, MailboxFilter, NotDone, Order, RegistrationFilter
from relay.domain.explanation import MailboxExplanation
from relay.domain.model import Mark, Platform, RegistrationId, RegistrationState
from relay.domain.ports.wakeups import Topic
from relay.store import acts
from relay.store.administration import SqlAdminStore
from relay.store.engine import Database, open_database
from relay.store.explanation import SqlExplanationStore
from relay.store.ops import SqlOpsStore
from relay.store.outbox import SqlOutboxStore
from relay.store.privileges import API, ROLES, WATCH, grants_sql
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import metadata
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    AUDIT_KEY,
    BY_CLEO,
    LATER,
    NEW_MAIL,
    NOW,
    SHARD,
    activate,
    entry,
    leases,
    marks,
    own_all,
    register,
)
from tests.postgres import PostgresServer
from tests.transactions import transaction

ANN, BEN = MailboxId("mb-ann"), MailboxId("mb-ben")


@pytest.fixture
def admin(engine: Database, wakeups: LocalWakeups) -> SqlAdminStore:
    return SqlAdminStore(engine, wakeups)


async def what_was_noted(engine: Database) -> list[tuple[str, str, str, str]]:
    return [(each.who, each.what, each.server, each.subject) for each in reversed(await acts.latest(engine, 100))]


async def condition(watches: SqlWatchStore, epoch: int, condition: Condition) -> None:
    await watches.commit([entry(epoch, Progress(condition=condition))], NOW)


# --- lists


async def test_lists_mailboxes_in_pages_by_server_and_user(
    admin: SqlAdminStore, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    for name in ("cleo", "ann", "ben"):
        await register(registrations, name)
    await register(registrations, "ann", "tablet")

    first = await admin.mailboxes(MailboxFilter(), 2, None)
    second = await admin.mailboxes(MailboxFilter(), 2, first.cursor)

    assert [(each.mailbox.user, each.registrations) for each in first.rows] == [
        ("ann@example.com", 2),
        ("ben@example.com", 1),
    ]
    assert [each.mailbox.user for each in second.rows] == ["cleo@example.com"]
    assert second.cursor is None


async def test_a_page_after_a_mailbox_that_is_gone_is_refused(admin: SqlAdminStore) -> None:
    with pytest.raises(BadCursor):
        await admin.mailboxes(MailboxFilter(), 2, "mb-nobody")
    with pytest.raises(BadCursor):
        await admin.registrations(RegistrationFilter(), 2, "reg-nobody")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (MailboxFilter(server="office"), 2),
        (MailboxFilter(server="other"), 0),
        (MailboxFilter(user="ANN@"), 1),
        (MailboxFilter(user="%"), 0),
        (MailboxFilter(state=WatchState.VERIFYING), 1),
        (MailboxFilter(state=WatchState.PAUSED), 1),
        (MailboxFilter(state=WatchState.STARTING), 0),
    ],
)
async def test_lists_the_mailboxes_of_a_filter(
    admin: SqlAdminStore,
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    wanted: MailboxFilter,
    found: int,
) -> None:
    await activate(registrations, watches)
    await register(registrations, "ben")
    await admin.order(ANN, Order.PAUSE, BY_CLEO)

    assert len((await admin.mailboxes(wanted, 10, None)).rows) == found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (RegistrationFilter(), 2),
        (RegistrationFilter(state=RegistrationState.ACTIVE), 1),
        (RegistrationFilter(platform=Platform.FCM), 0),
        (RegistrationFilter(platform=Platform.APNS, app="mail", server="office", user="ben"), 1),
        (RegistrationFilter(app="chat"), 0),
    ],
)
async def test_lists_the_registrations_of_a_filter(
    admin: SqlAdminStore,
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    wanted: RegistrationFilter,
    found: int,
) -> None:
    await activate(registrations, watches)
    await register(registrations, "ben")

    assert len((await admin.registrations(wanted, 10, None)).rows) == found


async def test_lists_registrations_in_pages(admin: SqlAdminStore, registrations: SqlRegistrationStore) -> None:
    for device in ("phone", "tablet", "watch"):
        await register(registrations, "ann", device)

    first = await admin.registrations(RegistrationFilter(), 2, None)
    second = await admin.registrations(RegistrationFilter(), 2, first.cursor)

    found = [each.registration.id for each in (*first.rows, *second.rows)]
    assert found == ["reg-ann-phone", "reg-ann-tablet", "reg-ann-watch"]
    assert second.cursor is None


async def test_finds_mailboxes_by_id_registration_and_user(
    admin: SqlAdminStore, registrations: SqlRegistrationStore
) -> None:
    await register(registrations)

    for name in ("mb-ann", "reg-ann-phone", "ANN@example.com"):
        assert list(await admin.named(name)) == [ANN]
    assert list(await admin.named("ann")) == []


# --- pause and resume


async def test_a_paused_mailbox_says_so_everywhere_and_goes_on_as_it_was(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await condition(watches, epoch, Condition(WatchState.BLOCKED, Reason.HTTP_403, 3600.0))

    assert isinstance(await admin.order(ANN, Order.PAUSE, BY_CLEO), Done)

    view = await registrations.view(RegistrationId("reg-ann-phone"))
    assert view is not None
    assert (view.mailbox.state, view.mailbox.reason, view.mailbox.since) == (WatchState.PAUSED, None, NOW)
    found = await SqlExplanationStore(engine, lambda: NOW).find("mb-ann")
    [explained] = found.mailboxes
    assert isinstance(explained, MailboxExplanation)
    assert explained.mailbox.state is WatchState.PAUSED
    assert await SqlOpsStore(engine).mailboxes_by_state() == {(WatchState.PAUSED, None): 1}
    assert isinstance(await admin.order(ANN, Order.PAUSE, BY_CLEO), NotDone)

    assert isinstance(await admin.order(ANN, Order.RESUME, BY_CLEO), Done)

    assert await SqlOpsStore(engine).mailboxes_by_state() == {(WatchState.BLOCKED, Reason.HTTP_403): 1}
    assert isinstance(await admin.order(ANN, Order.RESUME, BY_CLEO), NotDone)


async def test_the_watch_role_is_woken_and_sees_that_a_mailbox_is_paused(
    admin: SqlAdminStore, registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups
) -> None:
    await activate(registrations, watches)
    await own_all(watches)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    waiter = wakeups.waiter(Topic.MAILBOXES)

    await admin.order(ANN, Order.PAUSE, BY_CLEO)

    assert waiter.woken
    [record] = await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    assert record.halted == Condition(WatchState.PAUSED)
    assert record.mailbox.state is WatchState.STARTING


async def test_the_phones_of_a_paused_mailbox_get_no_pushes_until_it_is_resumed(
    admin: SqlAdminStore, outbox: SqlOutboxStore, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], NOW)
    await admin.order(ANN, Order.PAUSE, BY_CLEO)

    paused = await outbox.claim(Platform.APNS, 10, "push", LATER, NOW)
    await admin.order(ANN, Order.RESUME, BY_CLEO)
    resumed = await outbox.claim(Platform.APNS, 10, "push", LATER, NOW)

    assert paused.pushes == ()
    assert [push.mark for push in resumed.pushes] == [Mark.EMAIL]


# --- retry


async def test_a_retry_ends_a_wait_once(
    admin: SqlAdminStore, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await condition(watches, epoch, Condition(WatchState.BLOCKED, Reason.HTTP_403, 3600.0))

    assert isinstance(await admin.order(ANN, Order.RETRY, BY_CLEO), Done)

    mine = await leases(watches, [SHARD])
    assert [record.retry for record in await watches.take_dirty(mine, NOW)] == [True]
    assert [record.retry for record in await watches.records(mine, NOW)] == [False]


@pytest.mark.parametrize(
    "refused",
    [
        Condition(WatchState.WAITING, Reason.HTTP_401, 900.0),
        Condition(WatchState.WAITING, Reason.HTTP_401_DOUBTFUL, 3600.0),
        Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401),
        Condition(WatchState.CREDENTIAL_REFUSED, Reason.OAUTH_INVALID_GRANT),
    ],
    ids=lambda each: str(each.reason),
)
async def test_a_refused_credential_is_not_retried(
    admin: SqlAdminStore,
    engine: Database,
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    refused: Condition,
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await condition(watches, epoch, refused)

    assert isinstance(await admin.order(ANN, Order.RETRY, BY_CLEO), NotDone)
    assert await what_was_noted(engine) == []


# --- forget


async def rows_of(engine: Database, *, but: frozenset[str]) -> dict[str, int]:
    async with transaction(engine) as connection:
        found = {
            table.name: await connection.scalar(sa.select(sa.func.count()).select_from(table))
            for table in metadata.sorted_tables
            if table.name not in but
        }
    return {name: number for name, number in found.items() if number}


async def test_of_a_forgotten_user_only_a_keyed_hash_is_left(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await register(registrations, "ann", "tablet")
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], NOW)
    await watches.spend(ANN, NOW)

    assert isinstance(await admin.order(ANN, Order.FORGET, BY_CLEO), Done)
    [record] = await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    assert record.forgotten
    assert await watches.forget(ANN)

    assert await admin.known([ANN]) == frozenset()
    # The row in `tries` is the lock of the server.
    left = await rows_of(engine, but=frozenset({"shard", "sealed_anew", "node"}))
    assert left == {"act": 1, "tries": 1}
    assert await what_was_noted(engine) == [
        ("cleo", "mailbox.forget", "office", AUDIT_KEY.subject("ann@example.com")),
    ]
    if engine.dialect.name == "sqlite":
        database = Path(str(engine.engine.url.database))
        for file in (database, database.with_name(database.name + "-wal")):
            content = file.read_bytes() if file.exists() else b""
            assert b"ann@example.com" not in content
            assert b"token-ann" not in content
            assert b"sealed\x00" not in content


async def test_somebody_who_registers_while_a_user_is_forgotten_is_forgotten_too(
    admin: SqlAdminStore, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await admin.order(ANN, Order.FORGET, BY_CLEO)
    await register(registrations, "ann", "tablet")

    assert await watches.forget(ANN)

    assert await registrations.view(RegistrationId("reg-ann-tablet")) is None


async def test_a_user_is_forgotten_without_the_tries_of_another_one(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
        await watches.spend(MailboxId(f"mb-{name}"), NOW)

    await admin.order(ANN, Order.FORGET, BY_CLEO)
    await watches.forget(ANN)

    kept = await admin.kept(BEN, BY_CLEO)
    assert kept is not None
    assert [each.user for each in kept.tries] == ["ben@example.com"]


# --- export


async def test_an_export_has_all_that_is_kept_of_a_user_without_secrets(
    admin: SqlAdminStore, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], NOW)
    await watches.spend(ANN, NOW)
    await admin.test_push(RegistrationId("reg-ann-phone"), "t1", BY_CLEO)

    kept = await admin.kept(ANN, BY_CLEO)

    assert kept is not None
    document = json.loads(json.dumps(export(kept)))
    [phone] = document["registrations"]
    assert document["mailbox"]["user"] == "ann@example.com"
    assert {mark["mark"] for mark in phone["waiting"]} == {"email", "test"}
    assert [test["id"] for test in phone["tests"]] == ["t1"]
    assert [each["spent"] for each in document["tries"]] == [1]
    assert [each["what"] for each in document["acts"]] == [
        "registration.test-push",
        "mailbox.export",
    ]
    assert "token-ann" not in str(document)


# --- registrations


async def test_an_administrator_sends_a_test_push_but_not_many(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    phone = RegistrationId("reg-ann-phone")

    assert isinstance(await admin.test_push(phone, "t1", BY_CLEO), Done)
    assert isinstance(await admin.test_push(phone, "t2", BY_CLEO), NotDone)

    assert set(await marks(engine)) == {("reg-ann-phone", "test")}
    assert [(test.id, test.state.value) for test in await admin.tests(phone)] == [("t1", "queued")]
    assert await admin.tests(RegistrationId("nobody")) == []
    assert await admin.test_push(RegistrationId("nobody"), "t3", BY_CLEO) is None


async def test_what_waits_for_a_phone_is_tried_now(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    phone = RegistrationId("reg-ann-phone")
    assert isinstance(await admin.retry_pushes(phone, BY_CLEO), NotDone)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], LATER)

    assert isinstance(await admin.retry_pushes(phone, BY_CLEO), Done)

    assert (await marks(engine))["reg-ann-phone", "email"].due_at == NOW


async def test_an_ended_registration_leaves_a_tombstone_for_its_app(
    admin: SqlAdminStore, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    phone = RegistrationId("reg-ann-phone")

    assert isinstance(await admin.forget_registration(phone, BY_CLEO), Done)

    assert await registrations.view(phone) is None
    assert await registrations.tombstone(phone) is not None
    assert await admin.forget_registration(phone, BY_CLEO) is None


# --- maintenance


async def test_maintenance_halts_the_mailboxes_of_one_server_and_says_so(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await register(registrations, "ben")
    await own_all(watches)
    mine = await leases(watches, [SHARD])
    await watches.take_dirty(mine, NOW)

    assert isinstance(await admin.maintain("office", BY_CLEO, on=True), Done)

    halted = Condition(WatchState.WAITING, Reason.MAINTENANCE)
    assert [record.halted for record in await watches.take_dirty(mine, NOW)] == [halted, halted]
    assert await SqlOpsStore(engine).mailboxes_by_state() == {
        (WatchState.WAITING, Reason.MAINTENANCE): 1,
        (WatchState.VERIFYING, Reason.MAINTENANCE): 1,
    }
    view = await registrations.view(RegistrationId("reg-ann-phone"))
    assert view is not None
    assert (view.mailbox.state, view.mailbox.reason) == (WatchState.WAITING, Reason.MAINTENANCE)
    assert [each.server for each in await admin.maintained()] == ["office"]
    assert await SqlOpsStore(engine).maintained() == {"office": NOW}
    assert isinstance(await admin.maintain("office", BY_CLEO, on=True), NotDone)

    assert isinstance(await admin.maintain("office", BY_CLEO, on=False), Done)

    assert [record.halted for record in await watches.take_dirty(mine, NOW)] == [None, None]
    assert list(await admin.maintained()) == []


# --- the audit log


async def test_every_act_is_chained_to_the_one_before(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await admin.order(ANN, Order.PAUSE, BY_CLEO)
    await admin.order(ANN, Order.RESUME, BY_CLEO)
    await admin.maintain("office", BY_CLEO, on=True)

    good = await acts.verify_all(engine, {AUDIT_KEY.id: AUDIT_KEY})
    async with transaction(engine) as connection:
        if engine.dialect.name == "sqlite":
            await connection.execute(sa.text("DROP TRIGGER act_no_update"))
        await connection.execute(sa.text("UPDATE act SET who = 'nobody' WHERE number = 2"))
    bad = await acts.verify_all(engine, {AUDIT_KEY.id: AUDIT_KEY})

    assert (good.entries, good.faults) == (3, ())
    assert len(bad.faults) == 1
    assert "entry 2" in bad.faults[0]


async def test_the_audit_log_on_sqlite_is_only_added_to(tmp_path: Path, sqlite_url: str) -> None:
    async with open_database(sqlite_url) as engine:
        await engine.run(lambda connection: acts.note(connection, BY_CLEO, What.RESTORED))
        for statement in ("UPDATE act SET who = 'nobody'", "DELETE FROM act"):
            async with transaction(engine) as connection:
                with pytest.raises(sa.exc.IntegrityError, match="only added to"):
                    await connection.execute(sa.text(statement))


async def test_an_act_that_fails_leaves_no_entry(
    admin: SqlAdminStore, engine: Database, registrations: SqlRegistrationStore
) -> None:
    assert await admin.order(MailboxId("mb-nobody"), Order.PAUSE, BY_CLEO) is None

    assert await what_was_noted(engine) == []


# --- rights


@pytest.fixture
async def role_urls(postgres: PostgresServer, fresh_postgres_url: str) -> tuple[str, str]:
    name = sa.make_url(fresh_postgres_url).database or ""
    await postgres.create_users(*ROLES)
    await postgres.execute(grants_sql(), name)
    return postgres.url(name, API), postgres.url(name, WATCH)


async def test_the_api_role_orders_and_the_watch_role_does_it(role_urls: tuple[str, str]) -> None:
    async with open_database(role_urls[0]) as api, open_database(role_urls[1]) as watch:
        registrations, watches = SqlRegistrationStore(api, LocalWakeups()), SqlWatchStore(watch, LocalWakeups())
        admin = SqlAdminStore(api)
        await activate(registrations, watches)
        await own_all(watches)
        phone = RegistrationId("reg-ann-phone")

        for order in (Order.PAUSE, Order.RESUME):
            assert isinstance(await admin.order(ANN, order, BY_CLEO), Done)
        assert isinstance(await admin.test_push(phone, "t1", BY_CLEO), Done)
        assert [test.id for test in await admin.tests(phone)] == ["t1"]
        assert isinstance(await admin.retry_pushes(phone, BY_CLEO), Done)
        assert await admin.kept(ANN, BY_CLEO) is not None
        for on in (True, False):
            assert isinstance(await admin.maintain("office", BY_CLEO, on=on), Done)
        assert len((await admin.mailboxes(MailboxFilter(), 9, None)).rows) == 1
        assert len((await admin.registrations(RegistrationFilter(), 9, None)).rows) == 1
        await watches.spend(ANN, NOW)
        done = await admin.order(ANN, Order.FORGET, BY_CLEO)
        assert isinstance(done, Done)
        assert "are kept" in done.text
        [record] = await watches.take_dirty(await leases(watches, [SHARD]), NOW)
        assert record.forgotten
        assert await watches.forget(ANN)
        assert len(await admin.acts(100, None)) == 8
        verdict = await admin.verify_acts({AUDIT_KEY.id: AUDIT_KEY})
        assert (verdict.entries, verdict.faults) == (8, ())
        # A thief of the api role's user gains no try for anybody by the flag.
        async with transaction(watch) as connection:
            assert await connection.scalar(sa.text("SELECT spent FROM tries WHERE account <> ''")) == 1
