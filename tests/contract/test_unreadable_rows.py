"""Test that a row which cannot be read stops nobody else, is named, and is taken up once it can be read."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Progress
from eas_watcher.names import CollectionClass
from eas_watcher.server.idle_timeout import Lesson
from relay.admin.values import MailboxFilter, RegistrationFilter
from relay.domain.errors import RowUnreadable
from relay.domain.explanation import Findings, MailboxExplanation, UnreadableMailbox
from relay.domain.model import Platform, RegistrationId
from relay.domain.unreadable import Unreadable, UnreadableRows
from relay.ops.explain import document, text
from relay.ops.unreadable import unreadable_rows
from relay.store.administration import SqlAdminStore
from relay.store.claims import PARKED
from relay.store.engine import Database, open_database
from relay.store.explanation import SqlExplanationStore
from relay.store.idle_timeouts import SqlIdleTimeoutStore
from relay.store.ops import SqlOpsStore
from relay.store.outbox import SqlOutboxStore
from relay.store.reading import Bad, Reader
from relay.store.registrations import SqlRegistrationStore
from relay.store.shards import SqlShardStore
from relay.store.tables import mailbox
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
    entry,
    leases,
    marks,
    own_all,
    unchecked,
)
from tests.transactions import transaction

NAMES = ("ann", "ben", "cas")


@pytest.fixture
def postgres_url(fresh_postgres_url: str) -> str:
    """Use a database of the test's own: it removes constraints."""
    return fresh_postgres_url


class Relay:
    """The stores of one process, and its list of unreadable rows."""

    def __init__(self, engine: Database) -> None:
        self.engine = engine
        self.rows = UnreadableRows()
        self.wakeups = LocalWakeups()
        self.registrations = SqlRegistrationStore(engine, self.wakeups, unreadable=self.rows)
        self.watches = SqlWatchStore(engine, self.wakeups, unreadable=self.rows)
        self.outbox = SqlOutboxStore(engine, self.wakeups, unreadable=self.rows)
        self.ops = SqlOpsStore(engine, self.rows)

    async def fill(self) -> None:
        """Register three mailboxes, ann's for two phones; each has a collection and a mark."""
        for name in NAMES:
            await activate(self.registrations, self.watches, name)
        await activate(self.registrations, self.watches, device="tablet")
        epoch = await own_all(self.watches)
        await self.watches.commit(
            [entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,)), n) for n in NAMES], NOW
        )
        await self.watches.take_dirty(await leases(self.watches, [SHARD]), NOW)

    async def write(self, statement: str) -> None:
        """Write as a newer version, another program, or a damaged disk might."""
        async with transaction(self.engine) as connection:
            await unchecked(connection)
            await connection.execute(sa.text(statement))

    def set_aside(self) -> list[tuple[str, str]]:
        """Return table and key of the rows set aside."""
        return [(row.table, row.key) for row in self.rows.rows()]


@pytest.fixture
async def relay(engine: Database) -> Relay:
    relay = Relay(engine)
    await relay.fill()
    return relay


@pytest.fixture
async def embedded(sqlite_url: str) -> AsyncIterator[Relay]:
    """Return a relay on SQLite, whose columns take values of any type."""
    async with open_database(sqlite_url) as engine:
        relay = Relay(engine)
        await relay.fill()
        yield relay


MAILBOX_FAULTS = ["state = 'hibernating'", "version = 99", "acknowledged = 9"]
STRANGE_MAILBOX = [
    "since = 'yesterday'",
    "horizon = 'yesterday'",
    "shard = 7, device_id = x'00ff'",
    "refusals = 'many'",
    "heartbeat = 9e999",
    "reason = CAST(x'ff' AS TEXT)",
    f"detail = '{'x' * 70_000}'",
]


async def others_go_on(relay: Relay) -> None:
    """Assert that ben and cas are watched and pushed to, while ann's mailbox is set aside."""
    found = await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)
    assert [record.mailbox.id for record in found] == ["mb-ben", "mb-cas"]
    assert ("mailbox", "mb-ann") in relay.set_aside()


@pytest.mark.parametrize("fault", MAILBOX_FAULTS)
async def test_an_unreadable_mailbox_is_left_out(relay: Relay, fault: str) -> None:
    await relay.write(f"UPDATE mailbox SET {fault} WHERE id = 'mb-ann'")  # noqa: S608

    await others_go_on(relay)


@pytest.mark.parametrize("fault", STRANGE_MAILBOX)
async def test_a_mailbox_with_a_value_of_another_type_is_left_out(embedded: Relay, fault: str) -> None:
    await embedded.write(f"UPDATE mailbox SET {fault} WHERE id = 'mb-ann'")  # noqa: S608

    await others_go_on(embedded)


async def test_a_moment_beyond_the_calendar_is_left_out(relay: Relay) -> None:
    if relay.engine.dialect.name == "sqlite":
        pytest.skip("SQLite keeps moments as texts, which other tests spoil")
    await relay.write("UPDATE mailbox SET since = '20000-01-01' WHERE id = 'mb-ann'")

    await others_go_on(relay)


async def test_a_row_is_logged_once_and_taken_up_when_it_is_mended(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    await relay.write("UPDATE mailbox SET state = 'hibernating', dirty = true WHERE id = 'mb-ann'")
    with caplog.at_level(logging.INFO, "relay"):
        for _ in range(3):
            assert await relay.watches.take_dirty(await leases(relay.watches, [SHARD]), NOW) == []
            await relay.watches.look_again(NOW)

        assert [record.message for record in caplog.records] == ["row set aside"]
        await relay.write("UPDATE mailbox SET state = 'watching', dirty = false WHERE id = 'mb-ann'")
        await relay.watches.look_again(NOW)

    assert [record.message for record in caplog.records] == ["row set aside", "row taken up again"]
    (record,) = await relay.watches.take_dirty(await leases(relay.watches, [SHARD]), NOW)
    assert record.mailbox.id == "mb-ann"
    assert relay.set_aside() == []


async def test_a_row_that_is_deleted_is_not_named_any_more(relay: Relay) -> None:
    await relay.write("UPDATE mailbox SET state = 'hibernating' WHERE id = 'mb-ann'")
    await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)
    await relay.write("DELETE FROM mailbox WHERE id = 'mb-ann'")

    await relay.watches.look_again(NOW)

    assert relay.set_aside() == []


@pytest.mark.parametrize(
    "classes", ['["bogus"]', '{"email": 1}', '"email"', "[1]", "null", "7", '[["email"]]', "[NaN]", "[", ""]
)
async def test_a_registration_with_unreadable_classes_stops_no_other(relay: Relay, classes: str) -> None:
    if relay.engine.dialect.name == "postgresql" and classes in {"[NaN]", "[", "", "null"}:
        pytest.skip("PostgreSQL refuses what is no JSON")
    await relay.write(f"UPDATE registration SET classes = '{classes}' WHERE id = 'reg-ann-phone'")  # noqa: S608

    found = {
        str(record.mailbox.id): record
        for record in await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)
    }

    assert sorted(found) == ["mb-ann", "mb-ben", "mb-cas"]
    assert found["mb-ann"].registrations == 2  # the mailbox is not forgotten
    assert found["mb-ann"].memory.classes == {CollectionClass.EMAIL, CollectionClass.CALENDAR}  # the tablet's
    assert classes == "null" or relay.set_aside() == [("registration", "reg-ann-phone")]
    epoch = await own_all(relay.watches)
    assert not await relay.watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)), name) for name in NAMES], LATER)
    assert {id_ for (id_, _), row in (await marks(relay.engine)).items() if row.generation == 2} == {
        "reg-ann-tablet",
        "reg-ben-phone",
        "reg-cas-phone",
    }


async def test_classes_of_a_newer_version_are_left_out_and_the_others_served(relay: Relay) -> None:
    await relay.write("""UPDATE registration SET classes = '["email", "sms"]' WHERE id = 'reg-ben-phone'""")

    found = {
        str(record.mailbox.id): record
        for record in await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)
    }

    assert found["mb-ben"].memory.classes == {CollectionClass.EMAIL}
    assert relay.rows.rows() == [Unreadable("registration", "reg-ben-phone", "classes: sms")]


@pytest.mark.parametrize(
    ("column", "value"), [("state", "paused"), ("platform", "pigeon"), ("environment", "moon"), ("mode", "loud")]
)
async def test_the_api_answers_for_all_registrations_but_the_unreadable_one(
    relay: Relay, column: str, value: str
) -> None:
    await relay.write(f"UPDATE registration SET {column} = '{value}' WHERE id = 'reg-ann-phone'")  # noqa: S608
    ann, ben = RegistrationId("reg-ann-phone"), RegistrationId("reg-ben-phone")

    with pytest.raises(RowUnreadable):
        await relay.registrations.view(ann)
    assert await relay.registrations.view(ben)
    await relay.registrations.look_again(NOW)
    assert relay.set_aside() == [("registration", "reg-ann-phone")]

    await relay.write(
        "UPDATE registration SET state = 'active', platform = 'apns', environment = 'production', mode = 'alert'"
    )
    await relay.registrations.look_again(NOW)
    assert relay.set_aside() == []


@pytest.mark.parametrize(
    ("fault", "kept"),
    [("seen = '{}'", "key-1"), ("\"class\" = 'sms'", None), ("seen = '[1]'", "key-1")],
)
async def test_a_collection_keeps_its_position_if_that_can_be_read(relay: Relay, fault: str, kept: str | None) -> None:
    await relay.write(f"UPDATE collection SET {fault} WHERE mailbox_id = 'mb-ann'")  # noqa: S608

    found = {
        str(record.mailbox.id): record
        for record in await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)
    }

    assert [collection.sync_key for collection in found["mb-ann"].memory.collections] == ([kept] if kept else [])
    assert len(found["mb-ben"].memory.collections) == 1
    assert relay.set_aside() == [("collection", "5")]


async def test_a_mailbox_is_watched_whatever_is_noted_as_its_last_change(embedded: Relay) -> None:
    await embedded.write("UPDATE collection SET changed_at = 'yesterday' WHERE mailbox_id = 'mb-ann'")

    found = await embedded.watches.records(await leases(embedded.watches, [SHARD]), NOW)

    assert [record.mailbox.id for record in found] == ["mb-ann", "mb-ben", "mb-cas"]
    assert len(found[0].memory.collections) == 1
    assert embedded.set_aside() == []


async def test_an_unreadable_hierarchy_is_read_from_the_server_again(relay: Relay) -> None:
    await relay.write("""INSERT INTO hierarchy VALUES ('mb-ann', '[[1, "0", 2]]')""")

    found = {
        str(record.mailbox.id): record
        for record in await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)
    }

    assert found["mb-ann"].memory.hierarchy is None
    assert relay.set_aside() == [("hierarchy", "mb-ann")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE outbox SET mark = 'journal' WHERE registration_id = 'reg-ann-phone'",
        "UPDATE registration SET mode = 'loud' WHERE id = 'reg-ann-phone'",
        "UPDATE registration SET environment = 'moon' WHERE id = 'reg-ann-phone'",
        "UPDATE registration SET pushed = '[1]' WHERE id = 'reg-ann-phone'",
        """UPDATE registration SET pushed = '{"email": 1e300}' WHERE id = 'reg-ann-phone'""",
        "UPDATE outbox SET attempts = 2147483647, mark = 'journal' WHERE registration_id = 'reg-ann-phone'",
    ],
)
async def test_an_unreadable_mark_is_set_aside_and_the_others_leave(relay: Relay, statement: str) -> None:
    await relay.write(statement)

    claims = await relay.outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)

    assert {push.registration_id for push in claims.pushes} == {"reg-ann-tablet", "reg-ben-phone", "reg-cas-phone"}
    ((table, key),) = relay.set_aside()
    assert (table, key.partition("/")[0]) == ("outbox", "reg-ann-phone")
    assert await relay.outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW) == type(claims)()  # no spin
    parked = next(row for (id_, _), row in (await marks(relay.engine)).items() if id_ == "reg-ann-phone")
    assert parked.due_at == NOW + PARKED
    assert parked.aside.startswith("cannot be read")


async def test_a_mark_that_is_mended_leaves_at_once(relay: Relay) -> None:
    await relay.write("UPDATE registration SET mode = 'loud' WHERE id = 'reg-ann-phone'")
    await relay.outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)
    await relay.outbox.look_again(NOW)
    assert relay.set_aside() == [("outbox", "reg-ann-phone/email")]

    await relay.write("UPDATE registration SET mode = 'alert'")
    await relay.outbox.look_again(NOW)

    assert relay.set_aside() == []
    (push,) = (await relay.outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)).pushes
    assert push.registration_id == "reg-ann-phone"


@pytest.mark.parametrize("fault", ["first_at = 'soon'", "count = 'two'", "due_at = 'soon'"])
async def test_a_mark_with_a_value_of_another_type_blocks_no_queue(embedded: Relay, fault: str) -> None:
    await embedded.write(f"UPDATE outbox SET {fault} WHERE registration_id = 'reg-ann-phone'")  # noqa: S608

    claims = await embedded.outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)

    assert {"reg-ben-phone", "reg-cas-phone"} <= {push.registration_id for push in claims.pushes}
    await embedded.outbox.next_due(Platform.APNS)
    level = (await embedded.ops.outbox())[Platform.APNS]
    assert level.pending + level.parked == 4


async def test_counts_leave_out_what_is_of_no_known_kind(relay: Relay) -> None:
    await relay.write("UPDATE mailbox SET state = 'hibernating' WHERE id = 'mb-ann'")
    await relay.write("UPDATE registration SET state = 'paused' WHERE id = 'reg-ann-phone'")
    await relay.write("UPDATE registration SET environment = 'moon' WHERE id = 'reg-ben-phone'")

    assert sum((await relay.ops.mailboxes_by_state()).values()) == 2
    assert sum((await relay.ops.registrations_by_state()).values()) == 3
    assert sum(level.registrations for level in await relay.ops.tokens()) == 2
    assert (await relay.ops.outbox())[Platform.APNS].pending == 3
    assert [row.table for row in relay.rows.rows()] == ["mailbox", "registration", "registration"]


async def test_a_shard_that_cannot_be_read_is_left_to_others(embedded: Relay) -> None:
    await embedded.write("UPDATE shard SET epoch = 'late' WHERE number = 9")

    shards = SqlShardStore(embedded.engine, "1.0", lambda: NOW, embedded.rows)
    await shards.join("node-2", DAY, take_over=True)
    division = await shards.beat("node-2", DAY, leaving=False)

    assert division is not None
    assert len(division.owners) == 255
    assert embedded.set_aside() == [("shard", "9")]


async def test_a_path_that_cannot_be_read_is_learnt_anew(embedded: Relay) -> None:
    paths = SqlIdleTimeoutStore(embedded.engine, embedded.rows)
    for url in ("https://a.example.com/", "https://b.example.com/"):
        await paths.keep_lesson(url, Lesson(600), NOW)
    await embedded.write("UPDATE path SET interval = 'long' WHERE url = 'https://a.example.com/'")

    assert list(await paths.lessons(NOW)) == ["https://b.example.com/"]
    assert embedded.set_aside() == [("path", "https://a.example.com/")]
    await paths.keep_lesson("https://a.example.com/", Lesson(900), NOW)
    await paths.look_again(NOW)
    assert embedded.set_aside() == []


async def test_explain_names_what_cannot_be_read(relay: Relay) -> None:
    await relay.write("UPDATE registration SET state = 'paused' WHERE id = 'reg-ann-phone'")
    await relay.write("UPDATE collection SET \"class\" = 'sms' WHERE mailbox_id = 'mb-ann'")
    await relay.write("UPDATE mailbox SET state = 'hibernating' WHERE id = 'mb-ben'")
    store = SqlExplanationStore(relay.engine, lambda: NOW)

    (ann,), (ben,) = [(await store.find(name)).mailboxes for name in ("mb-ann", "ben@example.com")]

    assert isinstance(ann, MailboxExplanation)
    assert isinstance(ben, UnreadableMailbox)
    assert [known.registration.id for known in ann.registrations] == ["reg-ann-tablet"]
    assert "registration reg-ann-phone: cannot be read, so set aside: 'paused' is not a valid" in text(ann, NOW)
    assert "collection 5: cannot be read" in text(ann, NOW)
    assert "mailbox mb-ben: cannot be read, so set aside: 'hibernating' is not a valid" in text(ben, NOW)
    assert document(Findings((ben,)), NOW)[0]["unreadable"]


async def test_health_names_rows_and_what_to_do(relay: Relay) -> None:
    part = unreadable_rows(relay.rows)
    assert part.check().state == "ok"
    await relay.write("UPDATE mailbox SET state = 'hibernating'")
    await relay.watches.records(await leases(relay.watches, [SHARD]), NOW)

    finding = part.check()

    assert finding.state == "degraded"
    assert "mailbox mb-ann ('hibernating' is not a valid WatchState)" in finding.reason
    assert "taken up" in finding.remedy


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (("x" * 65_537, 7), "id: 65537 characters"),
        (("ann", "7"), "shard: str instead of int"),
        ((None, 7), "id: missing"),
        (("ann", True), "shard: bool instead of int"),
    ],
)
def test_a_bad_row_is_found_after_good_ones(bad: tuple[object, ...], fault: str) -> None:
    rows: list[Any] = [("ann", 7), ("ben", 8), bad, ("eve", 9), bad]
    reader = Reader(sa.select(mailbox.c.id, mailbox.c.shard), [mailbox.c.id], lambda row: str(row[0]))

    wrong = Bad((str(bad[0]),), fault)
    assert [reader.value(row) for row in rows] == ["ann", "ben", wrong, "eve", wrong]


async def test_mailboxes_and_registrations_that_cannot_be_read_end_no_list(relay: Relay) -> None:
    await relay.write("UPDATE mailbox SET state = 'hibernating' WHERE id = 'mb-ann'")
    admin = SqlAdminStore(relay.engine)

    mailboxes = await admin.mailboxes(MailboxFilter(), 1, None)
    shown = [each.mailbox.id for each in mailboxes.rows]
    while mailboxes.cursor is not None:
        mailboxes = await admin.mailboxes(MailboxFilter(), 1, mailboxes.cursor)
        shown += [each.mailbox.id for each in mailboxes.rows]
    registrations = await admin.registrations(RegistrationFilter(), 1, None)
    while registrations.cursor is not None:
        registrations = await admin.registrations(RegistrationFilter(), 1, registrations.cursor)

    assert shown == ["mb-ben", "mb-cas"]
    assert [each.mailbox.id for each in registrations.rows] == ["mb-cas"]
