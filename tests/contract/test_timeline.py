"""Test the timeline in the database: what is written, found, shortened and deleted."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Ending
from relay.domain.retention import Retention
from relay.domain.timeline import HELD, MANY, Denial, Event, EventKind, Happening, Timeline
from relay.store.engine import Database
from relay.store.explanation import SqlExplanationStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import event
from relay.store.timeline import TimelineWriter, delete_events, events_of, shorten, write
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NOW, activate, register

HOUR = timedelta(hours=1)


def seen(kind: str = "accepted", mailbox: str = "mb-ann", at: datetime = NOW, **fields: str) -> Happening:
    return Happening(at, Event(kind, mailbox, **fields))


async def kept(engine: Database, mailbox: str = "mb-ann", account: str = "", most: int = 1000) -> Sequence[Happening]:
    return await engine.run(events_of, [mailbox], account, most)


async def write_all(engine: Database, happenings: Iterable[Happening]) -> None:
    await engine.run(write, list(happenings))


async def test_what_roles_noted_is_read_in_the_order_of_time(engine: Database, watches: SqlWatchStore) -> None:
    await activate(SqlRegistrationStore(engine, LocalWakeups()), watches)
    timeline = Timeline(lambda: NOW)
    timeline.progressed(MailboxId("mb-ann"), Progress(changes=(Change(CollectionClass.EMAIL, 2),)))
    await write_all(engine, [seen(at=NOW - HOUR)])
    await TimelineWriter(engine, timeline).flush()

    first, second = await kept(engine)

    assert first == seen(at=NOW - HOUR)
    assert second == Happening(NOW, Event(EventKind.NOTICED, "mb-ann", what="email"), 2)
    assert await kept(engine, most=1) == [second]


async def test_an_event_of_a_registration_belongs_to_its_mailbox(engine: Database, watches: SqlWatchStore) -> None:
    phone = await activate(SqlRegistrationStore(engine, LocalWakeups()), watches)

    await write_all(engine, [seen("pushed", "", registration_id=phone.id, result="delivered")])

    (found,) = await kept(engine)
    assert (found.event.mailbox_id, found.event.registration_id) == ("mb-ann", phone.id)


async def test_nothing_is_written_of_what_is_gone(engine: Database) -> None:
    await write_all(engine, [seen(), seen("pushed", "", registration_id="reg-ann-phone")])

    assert await engine.run(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(event))) == 0


async def test_a_stranger_is_found_by_the_hash_of_the_user_alone(engine: Database) -> None:
    denied = seen("denied", "mb-gone", account="hash", code=Denial.CREDENTIAL)
    await write_all(engine, [denied, seen("denied", "", account="another")])
    store = SqlExplanationStore(engine, lambda: LATER)

    found = await store.find("ann", lambda user: "hash" if user == "ann" else "")

    assert found.mailboxes == ()
    assert found.events == (denied,)
    assert (await store.find("ann")).events == ()
    assert (await store.find("ann", lambda _: "hash", before=NOW - HOUR)).events == ()


async def test_a_mailbox_comes_with_its_events_and_those_of_its_user(engine: Database, watches: SqlWatchStore) -> None:
    await activate(SqlRegistrationStore(engine, LocalWakeups()), watches)
    events = [seen(), seen("denied", "", at=LATER, account="hash", code="wiped")]
    await write_all(engine, events)

    found = await SqlExplanationStore(engine, lambda: LATER).find("reg-ann-phone", lambda _: "hash")

    (ann,) = found.mailboxes
    assert list(getattr(ann, "events", ())) == events


async def test_events_of_a_namesake_are_not_shown(engine: Database, watches: SqlWatchStore) -> None:
    registrations = SqlRegistrationStore(engine, LocalWakeups())
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
    await write_all(engine, [seen("registered", "mb-ben", account="hash"), seen("denied", "mb-gone", account="hash")])
    store = SqlExplanationStore(engine, lambda: LATER)

    (ann,) = (await store.find("ann@example.com", lambda _: "hash")).mailboxes
    stranger = await store.find("eve@example.com", lambda _: "hash")

    assert [each.event.kind for each in getattr(ann, "events", ())] == ["denied"]
    assert [each.event.kind for each in stranger.events] == ["denied"]


async def test_the_end_of_a_registration_is_noted_with_its_transaction(
    engine: Database, watches: SqlWatchStore
) -> None:
    registrations = SqlRegistrationStore(engine, LocalWakeups())
    phone, tablet = [await activate(registrations, watches, device=device) for device in ("phone", "tablet")]

    await registrations.remove(phone.id, LATER)
    await registrations.remove(tablet.id, LATER)

    ended = [each.event for each in await kept(engine)]
    assert ended == [
        Event(EventKind.ENDED, "mb-ann", id_, result=Ending.REMOVED.value) for id_ in (phone.id, tablet.id)
    ]


async def test_a_timeline_that_is_off_keeps_nothing(engine: Database, watches: SqlWatchStore) -> None:
    registrations = SqlRegistrationStore(engine, LocalWakeups(), retention=Retention(events=timedelta()))
    phone = await activate(registrations, watches)
    await write_all(engine, [seen()])

    await registrations.remove(phone.id, LATER)
    await registrations.sweep(LATER)

    assert await kept(engine) == []


async def test_old_events_go_and_each_mailbox_keeps_its_newest(engine: Database, watches: SqlWatchStore) -> None:
    registrations = SqlRegistrationStore(engine, LocalWakeups())
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
    await write_all(engine, [seen(at=NOW - 3 * HOUR), seen(mailbox="mb-ben", at=NOW - 3 * HOUR)])
    await write_all(engine, [seen(at=NOW + timedelta(seconds=number)) for number in range(12)])
    await write_all(engine, [seen(mailbox="mb-ben")])

    deleted = await shorten(engine, engine, NOW, Retention(events=2 * HOUR, events_of_one=10))

    assert deleted == 4
    assert [each.at - NOW for each in await kept(engine)] == [timedelta(seconds=number) for number in range(2, 12)]
    assert len(await kept(engine, "mb-ben")) == 1


async def test_all_events_of_a_mailbox_and_its_user_are_deleted(engine: Database, watches: SqlWatchStore) -> None:
    registrations = SqlRegistrationStore(engine, LocalWakeups())
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
    strangers = [seen("denied", "", account="hash"), seen("denied", "", account="another")]
    await write_all(engine, [seen(), seen(mailbox="mb-ben"), *strangers])

    assert await engine.run(delete_events, "mb-ann", ["hash"]) == 2

    assert await kept(engine, account="hash") == []
    assert len(await kept(engine, "mb-ben", "another")) == 2
    assert await engine.run(delete_events, "mb-ben") == 1


async def test_events_wait_for_nothing_when_the_database_is_away(
    engine: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    timeline = Timeline(lambda: NOW)
    writer = TimelineWriter(engine, timeline)
    monkeypatch.setattr(engine, "run", away)
    for number in range(HELD + 1):
        timeline.note(Event("state", f"mb-{number}"))

    await writer.close()
    await writer.flush()

    assert timeline.take() == []
    assert [each.message for each in caplog.records].count("events of the timeline dropped: too many came at once") == 1


@pytest.mark.parametrize(("events", "period"), [(MANY, 3600.0), (1, 0.01)])
async def test_many_events_are_written_at_once_and_few_in_their_time(
    engine: Database, watches: SqlWatchStore, events: int, period: float
) -> None:
    await register(SqlRegistrationStore(engine, LocalWakeups()))
    timeline = Timeline(lambda: NOW)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(TimelineWriter(engine, timeline, period=period).run())
        timeline.note(Event("state", "mb-ann"))
        for number in range(1, events):
            timeline.note(Event("state", f"mb-{number}"))
        while not await kept(engine):  # noqa: ASYNC110 -- nobody tells of a write
            await asyncio.sleep(0.01)
        writing.cancel()

    assert len(await kept(engine)) == 1


async def test_a_database_that_refuses_events_stops_no_process(
    engine: Database, watches: SqlWatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    await register(SqlRegistrationStore(engine, LocalWakeups()))
    timeline = Timeline(lambda: NOW)
    writer = TimelineWriter(engine, timeline)
    rename = "ALTER TABLE event RENAME TO {}"
    await engine.run(lambda connection: connection.execute(sa.text(rename.format("elsewhere"))).rowcount)
    for _ in range(2):
        timeline.progressed(MailboxId("mb-ann"), Progress(changes=(Change(CollectionClass.EMAIL, 1),)))
        await writer.flush()
    back = "ALTER TABLE elsewhere RENAME TO event"
    await engine.run(lambda connection: connection.execute(sa.text(back)).rowcount)
    timeline.progressed(MailboxId("mb-ann"), Progress(changes=(Change(CollectionClass.EMAIL, 1),)))
    await writer.flush()

    assert [each.message for each in caplog.records] == ["events not noted: the database refuses them"]
    assert len(await kept(engine)) == 1


async def test_a_damaged_event_is_left_out(engine: Database, watches: SqlWatchStore) -> None:
    await register(SqlRegistrationStore(engine, LocalWakeups()))
    await write_all(engine, [seen(), replace(seen(at=LATER), count=7)])
    if engine.dialect.name == "sqlite":
        spoil = sa.text("UPDATE event SET count = 'many' WHERE count = 1")
        await engine.run(lambda connection: connection.execute(spoil).rowcount)

        assert [each.count for each in await kept(engine)] == [7]
