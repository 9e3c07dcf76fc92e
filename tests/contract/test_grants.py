"""Test that each role's database user can do its work and cannot read what is not its own."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import CollectionClass, CollectionId
from eas_watcher.reasons import Reason
from eas_watcher.server.idle_timeout import Lesson
from relay.domain.canary import Shown, Turn
from relay.domain.errors import DatabaseRefuses
from relay.domain.explanation import MailboxExplanation
from relay.domain.model import Ending, Mark, Platform, RegistrationChange, RegistrationId, Role
from relay.domain.outcome import Delivered, RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.retention import Retention
from relay.domain.sealing_keys import KeyHolder
from relay.domain.timeline import Event, Happening
from relay.domain.tries import TryLimits
from relay.store import migrate
from relay.store.canary import SqlCanaryStore
from relay.store.engine import Database, open_database, refusals
from relay.store.explanation import SqlExplanationStore
from relay.store.idle_timeouts import SqlIdleTimeoutStore
from relay.store.key_holders import SqlKeyHolderStore
from relay.store.ops import SqlOpsStore
from relay.store.outbox import SqlOutboxStore
from relay.store.privileges import API, PUSH, WATCH, grants_sql
from relay.store.registrations import SqlRegistrationStore
from relay.store.seals import count_seals
from relay.store.timeline import events_of, shorten, write
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    DAY,
    LATER,
    MAIL,
    NEW_MAIL,
    NOW,
    SHARD,
    activate,
    candidate_of,
    entry,
    leases,
    own_all,
    register,
    shards_of,
)
from tests.postgres import PostgresServer
from tests.transactions import transaction


@pytest.fixture
async def granted(postgres: PostgresServer, postgres_url: str) -> None:
    """Create the users, once per server, and give them their rights on this database."""
    await postgres.create_users(API, WATCH, PUSH)
    arguments = sa.make_url(postgres_url)
    connection = await asyncpg.connect(user="postgres", database=arguments.database, host=str(arguments.query["host"]))
    try:
        await connection.execute("GRANT ALL ON mailbox, candidate TO relay_push")  # what the statements take away
        await connection.execute("GRANT SELECT (secret_hash) ON registration TO relay_push")
        await connection.execute(grants_sql())
    finally:
        await connection.close()


async def _as(postgres_url: str, user: str) -> AsyncIterator[Database]:
    async with open_database(postgres_url.replace("postgres@", f"{user}@")) as engine:
        yield engine


@pytest.fixture
async def api(postgres_url: str, granted: None) -> AsyncIterator[Database]:
    async for engine in _as(postgres_url, API):
        yield engine


@pytest.fixture
async def watch(postgres_url: str, granted: None) -> AsyncIterator[Database]:
    async for engine in _as(postgres_url, WATCH):
        yield engine


@pytest.fixture
async def push(postgres_url: str, granted: None) -> AsyncIterator[Database]:
    async for engine in _as(postgres_url, PUSH):
        yield engine


async def denied(engine: Database, statement: str) -> bool:
    try:
        async with transaction(engine) as connection:
            await connection.execute(sa.text(statement))
    except sa.exc.DBAPIError as error:
        assert "permission denied" in str(error)  # noqa: PT017 - the statement may also succeed
        return True
    return False


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT sealed_credential FROM mailbox",
        "SELECT * FROM mailbox",
        "SELECT id FROM mailbox WHERE sealed_credential IS NOT NULL",
        "SELECT sealed FROM candidate",
    ],
)
async def test_neither_api_nor_push_reads_what_is_sealed(
    api: Database, push: Database, watch: Database, statement: str
) -> None:
    assert await denied(api, statement)
    assert await denied(push, statement)
    assert not await denied(watch, statement)


async def test_no_role_reads_more_than_its_work_needs(api: Database, watch: Database, push: Database) -> None:
    assert await denied(watch, "SELECT device_token FROM registration")
    assert await denied(watch, "SELECT secret_hash FROM registration")
    assert await denied(push, "SELECT secret_hash FROM registration")
    assert await denied(push, 'SELECT "user" FROM mailbox')
    assert await denied(push, "UPDATE registration SET device_token = 'x'")
    assert await denied(push, "INSERT INTO outbox (registration_id) VALUES ('x')")
    assert await denied(api, "UPDATE mailbox SET sealed_credential = NULL")
    assert await denied(api, "UPDATE mailbox SET state = 'watching'")
    assert await denied(api, "SELECT sync_key FROM collection")
    for engine in (api, watch, push):
        assert await denied(engine, "CREATE TABLE mine (x integer)")
        assert await denied(engine, "TRUNCATE mailbox CASCADE")


async def test_each_role_does_its_part_of_the_canary(api: Database, watch: Database, push: Database) -> None:
    registering, sending, showing = SqlCanaryStore(api), SqlCanaryStore(watch), SqlCanaryStore(push)
    minute, id_ = timedelta(minutes=1), RegistrationId("a-registration-of-canary")

    assert await registering.may_try(NOW, minute)
    await registering.refused("credential-refused", NOW)
    await registering.registered(id_, b"the key of a device")
    assert (await registering.registration()).id == id_
    assert await sending.claim("one", NOW, minute) is Turn.NOW
    assert await sending.claim("one", NOW, minute) is Turn.LATER
    await sending.mail_refused(NOW)
    assert await sending.mail_refused_at() == NOW
    assert await showing.device() == (id_, b"the key of a device")
    for store, platform in ((registering, Platform.APNS), (showing, Platform.WEBPUSH)):
        for _ in range(2):
            await store.shown(platform, Shown(NOW, NOW))
    assert not (await sending.reading("main", "canary@example.com", [], NOW)).watched

    assert await denied(api, "SELECT device FROM canary")
    assert await denied(watch, "SELECT device FROM canary")
    assert await denied(watch, "UPDATE canary SET registration_id = NULL")
    assert await denied(push, "UPDATE canary SET holder = NULL")
    assert await denied(push, "DELETE FROM canary_shown")


async def test_either_role_deletes_a_twin_with_its_own_rights(api: Database, watch: Database) -> None:
    wakeups = LocalWakeups()
    registrations, watches = SqlRegistrationStore(api, wakeups), SqlWatchStore(watch, wakeups)
    first = await activate(registrations, watches, device="first", device_token="t1")
    again = await activate(registrations, watches, device="again", device_token="t1")
    other = await activate(registrations, watches, device="other", device_token="t2")
    assert await registrations.view(first.id) is None

    await registrations.change(other.id, RegistrationChange(device_token="t1"), NOW)

    assert await registrations.view(again.id) is None


async def test_only_the_watch_role_counts_tries(api: Database, watch: Database, push: Database) -> None:
    wakeups = LocalWakeups()
    registrations, watches = SqlRegistrationStore(api, wakeups), SqlWatchStore(watch, wakeups)
    ann = await activate(registrations, watches)
    await activate(registrations, watches, device="tablet")
    for candidate in (b"newer", b"newest"):
        await registrations.change(ann.id, RegistrationChange(sealed_candidate=candidate), NOW)
        assert await watches.spend(ann.mailbox_id, NOW, candidate_of(ann, candidate)) is None
        assert (await registrations.load_of("office", "ann")).tries.spent == 1
        await watches.succeeded(ann.mailbox_id)
        await watches.accept(candidate_of(ann, candidate), NOW, replaces=True)
    await registrations.change(ann.id, RegistrationChange(sealed_candidate=b"late"), NOW)
    await watches.expire(candidate_of(ann, b"late"))

    assert await SqlOpsStore(watch, None, {"office": TryLimits()}).refused_logins(NOW)
    for engine in (api, push):
        for statement in ("DELETE FROM tries", "UPDATE tries SET spent = 0", "INSERT INTO tries DEFAULT VALUES"):
            assert await denied(engine, statement)


async def test_every_method_works_for_its_role(api: Database, watch: Database, push: Database) -> None:
    wakeups = LocalWakeups()
    registrations = SqlRegistrationStore(api, wakeups)
    watches = SqlWatchStore(watch, wakeups)
    outbox = SqlOutboxStore(push, wakeups)

    ann = await activate(registrations, watches)
    ben = await register(registrations, "ben")
    assert await registrations.mailbox_of("office", "ann@example.com")
    await registrations.change(ben.id, RegistrationChange(device_token="t", sealed_candidate=b"new"), NOW)
    await watches.refuse(candidate_of(ben, b"new"), NOW)
    assert await registrations.may_test(ann.id, NOW, timedelta(seconds=10))
    await registrations.mark(ann.id, Mark.TEST, NOW, "test-1")
    await registrations.mark(ann.id, Mark.TEST, NOW, "test-2")
    assert await registrations.push_test(ann.id, "test-2")
    epoch = await own_all(watches)
    shards = shards_of(watches)
    assert await shards.beat("node-1", DAY, leaving=False)
    await shards.bury()
    await shards.release("node-1", [1, 2])
    assert len(await shards.take("node-1", [1])) == 1
    assert len(await watches.records(await leases(watches, [SHARD]), NOW)) == 2
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    assert await watches.record(ann.mailbox_id, NOW)
    await watches.note_pings({ann.mailbox_id: (NOW, 480.0)})
    assert await watches.accepted_beside(ann.mailbox_id) is None
    await registrations.change(ann.id, RegistrationChange(subfolders=frozenset({CollectionClass.EMAIL})), NOW)
    progress = Progress(None, (MAIL,), (), (NEW_MAIL,), Condition(WatchState.WATCHING), 0, attention=True)
    assert await watches.commit([entry(epoch, progress)], NOW) == frozenset()
    for folders in ((Folder(MAIL.id, CollectionId("0"), 2),), ()):
        await watches.commit([entry(epoch, Progress(hierarchy=folders))], NOW)

    email, test, attention = sorted(
        (await outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)).pushes,
        key=lambda due: ["email", "test"].count(due.mark),
    )[::-1]
    await outbox.settle([Settlement(email, Delivered()), Settlement(test, RetryLater("busy"), LATER)], NOW)
    await outbox.release("push-1")
    assert await outbox.next_due(Platform.APNS)
    await outbox.settle([Settlement(attention, TokenGone("Unregistered"))], NOW)
    await registrations.change(ann.id, RegistrationChange(device_token="newer"), NOW)

    await watches.reseal(ann.mailbox_id, b"sealed", b"sealed again")
    await watches.seal_anew({ann.mailbox_id: {b"sealed again": b"sealed anew"}}, [SHARD])
    assert await watches.sealed_anew([SHARD]) == {SHARD}

    await watches.commit([entry(epoch, Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE)))], NOW)
    (farewell,) = (await outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)).pushes
    await outbox.settle([Settlement(farewell, Delivered())], NOW)
    assert await registrations.sweep(NOW) == {Ending.WIPED: 1} and await registrations.tombstone(ann.id)  # noqa: PT018
    assert await watches.forget(ann.mailbox_id)
    assert await registrations.view(ben.id)
    for engine in (api, watch, push):
        ops = SqlOpsStore(engine)
        await ops.reachable()
        assert await ops.mailboxes_by_state()
        assert await ops.registrations_by_state()
        assert await ops.outbox()
        await ops.tokens()
        assert not await migrate.pending(engine)


@pytest.mark.parametrize("statement", ["DELETE FROM sealed_anew", "UPDATE sealed_anew SET shard = -1"])
async def test_the_watch_role_cannot_bring_the_old_form_of_seals_back(watch: Database, statement: str) -> None:
    assert await denied(watch, statement)


async def test_the_watch_role_seals_anew_and_both_roles_note_their_keys(api: Database, watch: Database) -> None:
    registrations, watches = SqlRegistrationStore(api, LocalWakeups()), SqlWatchStore(watch, LocalWakeups())
    await activate(registrations, watches)
    await register(registrations, "ben")

    found = await watches.sealed_otherwise([SHARD], b"other", None, 10)
    assert await watches.count_sealed_otherwise([SHARD], b"other") == len(found) == 2
    await watches.turn_over({each.id: dict.fromkeys(each.seals, b"other") for each in found})
    assert await watches.seals(found[0].id) == [b"other"]
    await watches.look_at_seals([SHARD], [b"key"])
    assert await watch.run(count_seals) == {b"other": (1, 1)}
    for engine, role in ((api, Role.API), (watch, Role.WATCH)):
        holders = SqlKeyHolderStore(engine)
        await holders.note(KeyHolder(role.value, role, frozenset({"key"}), "key"), NOW)
        assert role.value in [each.node for each in await holders.holders(NOW)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO key_holder VALUES ('watch-2', 'watch', 'key', 'key', now())",
        "UPDATE key_holder SET opens = 'key' WHERE role = 'watch'",
        "UPDATE key_holder SET role = 'watch' WHERE role = 'api'",
        "DELETE FROM key_holder WHERE role = 'watch'",
    ],
)
async def test_the_api_role_notes_nothing_of_the_keys_of_a_watch_process(
    api: Database, watch: Database, statement: str
) -> None:
    for engine, role in ((api, Role.API), (watch, Role.WATCH)):
        await SqlKeyHolderStore(engine).note(KeyHolder(role.value, role, frozenset(), "key"), NOW)

    assert await denied(api, statement)


async def test_removing_what_has_marks_and_a_candidate_needs_no_right_on_them(api: Database, watch: Database) -> None:
    wakeups = LocalWakeups()
    registrations = SqlRegistrationStore(api, wakeups)
    ann = await register(registrations)
    await registrations.mark(ann.id, Mark.TEST, NOW + timedelta(seconds=1))

    await registrations.remove(ann.id, NOW)

    async with transaction(watch) as connection:
        assert await connection.scalar(sa.text("SELECT count(*) FROM candidate")) == 0
        assert await connection.scalar(sa.text("SELECT count(*) FROM outbox")) == 0


async def test_only_watch_keeps_what_it_learns_of_paths(api: Database, push: Database, watch: Database) -> None:
    store = SqlIdleTimeoutStore(watch)
    for interval in (600, 900):
        await store.keep_lesson("https://mail.example.com/", Lesson(interval), NOW)

    assert await store.lessons(NOW) == {"https://mail.example.com/": Lesson(900)}
    assert await denied(api, "SELECT url FROM path")
    assert await denied(push, "SELECT url FROM path")


async def test_explain_with_the_user_of_any_role_explains_or_says_what_it_lacks(
    api: Database, watch: Database, push: Database
) -> None:
    await register(SqlRegistrationStore(api, LocalWakeups()))
    said = []

    for engine in (api, watch, push):
        try:
            with refusals():
                (found,) = (await SqlExplanationStore(engine, lambda: NOW).find("ann@example.com")).mailboxes
        except DatabaseRefuses as error:
            said.append(str(error).partition(" for ")[0])
        else:
            assert isinstance(found, MailboxExplanation)
            said.append(found.mailbox.user)

    assert said == [
        "ann@example.com",
        "the database refuses: permission denied",
        "the database refuses: permission denied",
    ]


async def test_every_role_notes_events_and_only_api_reads_and_shortens_them(
    api: Database, watch: Database, push: Database
) -> None:
    phone = await register(SqlRegistrationStore(api, LocalWakeups()))
    events = [
        Happening(NOW, Event("state", phone.mailbox_id, what="watching")),
        Happening(NOW, Event("pushed", registration_id=phone.id, result="delivered")),
    ]

    for engine in (api, watch, push):
        await engine.run(write, events)

    assert len(await api.run(events_of, [phone.mailbox_id], "hash", 100)) == 6
    assert await shorten(api, api, LATER + timedelta(days=9), Retention()) == 6
    for engine in (watch, push):
        with refusals(), pytest.raises(ProgrammingError, match="permission denied"):
            await engine.run(events_of, [phone.mailbox_id], "", 100)
