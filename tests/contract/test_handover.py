"""Test which marks are born claimed, and that each of them is what a claim would have made of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Condition, Progress, WatchState
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.reasons import Reason
from relay.admin.audit import AuditKey, Stamp
from relay.admin.values import Order
from relay.domain.handover import Offer
from relay.domain.model import CommitEntry, DuePush, Environment, Lane, Mark, Platform
from relay.domain.outcome import Delivered, Refused
from relay.domain.pacing import Pacing
from relay.domain.ports.wakeups import Topic
from relay.domain.reasons import Cause
from relay.store.administration import SqlAdminStore
from relay.store.engine import Database, open_database
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.outbox_sites import MINUTE, SqlSite
from tests.contract.samples import LATER, NEW_MAIL, NOW, entry, own_all, unchecked
from tests.transactions import transaction

OWNER = "node-1/apns"
SECOND = timedelta(seconds=1)
EVENT = Change(CollectionClass.CALENDAR, 1)


class Dispatchers:
    """Offer what a test says, and note what they get."""

    def __init__(self) -> None:
        self.offers: Mapping[Platform, Offer] = {Platform.APNS: Offer(OWNER, NOW + MINUTE, 10)}
        self.given: list[list[DuePush]] = []

    def offer(self) -> Mapping[Platform, Offer]:
        return self.offers

    def take(self, offers: Mapping[Platform, Offer], pushes: Sequence[DuePush]) -> None:
        assert offers is self.offers
        self.given.append([*pushes])


class Site(SqlSite):
    """A process that sets marks and pushes them."""

    def __init__(self, engine: Database) -> None:
        super().__init__(engine, LocalWakeups())
        self.dispatchers = Dispatchers()
        self.watches = SqlWatchStore(engine, self.wakeups, handover=self.dispatchers)
        self.free = SqlWatchStore(engine, self.wakeups)
        """The same store in a process that does not push."""

    async def born(self, *names: str, now: datetime = NOW, changed: Sequence[Change] = (NEW_MAIL,)) -> list[DuePush]:
        """Commit a change of some mailboxes; return the pushes that the dispatchers got."""
        self.dispatchers.given.clear()
        await self.commit(Progress(changes=tuple(changed)), *names, now=now)
        (pushes,) = self.dispatchers.given
        return pushes


@pytest.fixture
def process(engine: Database) -> Site:
    return Site(engine)


async def test_a_mark_born_claimed_is_the_one_that_a_claim_would_return(process: Site) -> None:
    await process.activate("ann", environment=Environment.SANDBOX)
    await process.activate("ann", "tablet", locale="fr")

    born = await process.born(changed=[NEW_MAIL, EVENT])

    assert len(born) == 4
    rows = await process.marks()
    assert {(row.owner, row.until) for row in rows.values()} == {(OWNER, NOW + MINUTE)}
    assert await process.claim() == []
    assert await process.claim(NOW + MINUTE, owner="push-2") == born


async def test_no_mark_of_a_paused_mailbox_is_born_claimed(process: Site, engine: Database) -> None:
    await process.activate()
    stamp = Stamp("cleo", "cli", NOW, (AuditKey(b"k" * 32),))
    await SqlAdminStore(engine).order(MailboxId("mb-ann"), Order.PAUSE, stamp)

    assert await process.born() == []
    assert await process.claim() == []

    await SqlAdminStore(engine).order(MailboxId("mb-ann"), Order.RESUME, stamp)
    assert len(await process.claim()) == 1


async def test_nobody_is_woken_for_marks_that_are_born_claimed(process: Site) -> None:
    await process.activate()
    await process.activate("eve", platform=Platform.FCM)
    apns, fcm = process.wakeups.waiter(Topic.OUTBOX_APNS), process.wakeups.waiter(Topic.OUTBOX_FCM)

    (push,) = await process.born("ann", "eve")

    assert push.registration_id == "reg-ann-phone"
    assert (apns.woken, fcm.woken) == (False, True)
    assert len(await process.claim(platform=Platform.FCM)) == 1


async def test_a_mark_that_waits_for_its_push_keeps_its_claim_and_grows(process: Site) -> None:
    await process.activate()
    (push,) = await process.born()
    waiter = process.wakeups.waiter(Topic.OUTBOX_APNS)
    process.dispatchers.offers = {Platform.APNS: Offer("node-1/later", NOW + 2 * MINUTE, 10)}

    assert await process.born(now=NOW + SECOND) == []

    assert waiter.woken
    (row,) = (await process.marks()).values()
    assert (row.count, row.generation, row.owner, row.until) == (4, 2, OWNER, NOW + MINUTE)
    await process.settle([push], Delivered(), LATER)
    (rest,) = await process.claim(LATER)
    assert (rest.count, rest.first_at) == (2, NOW + SECOND)


async def test_a_mark_that_waits_unclaimed_stays_so(process: Site) -> None:
    await process.activate()
    await process.free.commit([entry(await own_all(process.watches), Progress(changes=(NEW_MAIL,)))], NOW)

    assert await process.born(now=NOW + SECOND) == []

    (push,) = await process.claim(NOW + SECOND)
    assert (push.count, push.generation) == (4, 2)


async def test_a_delivered_mark_that_was_born_claimed_is_gone(process: Site) -> None:
    registration = await process.activate()

    await process.settle(await process.born(), Delivered(), LATER)

    assert await process.marks() == {}
    assert (await process.registered(registration)).last_push_at == LATER


async def test_more_marks_than_slots_are_set_free(process: Site) -> None:
    process.dispatchers.offers = {Platform.APNS: Offer(OWNER, NOW + MINUTE, 2)}
    for name in ("ann", "ben", "cas"):
        await process.activate(name)
    waiter = process.wakeups.waiter(Topic.OUTBOX_APNS)

    born = await process.born("ann", "ben", "cas")

    assert waiter.woken
    rest = await process.claim()
    assert [push.registration_id for push in [*born, *rest]] == ["reg-ann-phone", "reg-ben-phone", "reg-cas-phone"]
    assert len(born) == 2


async def test_what_may_not_leave_now_is_left_to_the_claim(process: Site) -> None:
    await process.activate("ann")
    await process.activate("ben", app="sick")
    await process.activate("cas")
    await process.settle(await process.born("cas"), Refused("BadDeviceToken", "", passing=False))
    await process.settle(await process.born("ann"), Delivered())
    shut = frozenset({Lane(Environment.PRODUCTION, "sick")})
    process.dispatchers.offers = {Platform.APNS: Offer(OWNER, NOW + MINUTE, 10, shut, Pacing(coalesce=60.0))}

    born = await process.born("ann", "ben", "cas", now=NOW + SECOND, changed=[EVENT, NEW_MAIL])

    assert [(push.registration_id, push.mark) for push in born] == [("reg-ann-phone", Mark.CALENDAR)]
    assert [push.mark for push in await process.claim(NOW + SECOND, only=Lane(Environment.PRODUCTION, "sick"))]


async def test_the_last_push_of_a_wiped_registration_is_born_claimed(process: Site) -> None:
    await process.activate()
    wiped = Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE), attention=True)
    await process.commit(wiped)

    [[push]] = process.dispatchers.given
    assert (push.mark, push.cause) == (Mark.ATTENTION, Cause.WIPED)
    assert await process.claim() == []
    await process.settle([push], Delivered())
    assert await process.claim(NOW + 60 * MINUTE) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE registration SET mode = 'loud' WHERE id = 'reg-ann-phone'",
        "UPDATE registration SET pushed = '{broken' WHERE id = 'reg-ann-phone'",
        "UPDATE registration SET token_since = 'yesterday' WHERE id = 'reg-ann-phone'",
    ],
    ids=["mode", "pushed", "token_since"],
)
async def test_a_row_that_cannot_be_read_is_left_to_the_claim_which_names_it(sqlite_url: str, damage: str) -> None:
    async with open_database(sqlite_url) as database:
        process = Site(database)
        await process.activate("ann")
        await process.activate("ben")
        async with transaction(database) as connection:
            await unchecked(connection)
            await connection.execute(sa.text(damage))

        born = await process.born("ann", "ben")
        claimed = await process.claim()

        assert {*born, *claimed} == {push for push in [*born, *claimed] if push.registration_id == "reg-ben-phone"}
        assert len(born) + len(claimed) == 1
        rows = {key: row.parked for key, row in (await process.marks()).items()}
        assert rows["reg-ann-phone", "email"].startswith("cannot be read: ")


async def test_a_commit_that_fails_gives_nothing(process: Site) -> None:
    await process.activate()
    epoch = await own_all(process.watches)
    bad = CommitEntry(
        entry(epoch, Progress()).mailbox_id, 7, epoch, Progress(changes=(Change(NEW_MAIL.cls, -(2**70)),))
    )

    with pytest.raises(Exception, match=r".+"):
        await process.watches.commit([bad], NOW)

    assert process.dispatchers.given == [[]]
    assert await process.marks() == {}


async def test_after_a_kill_between_commit_and_push_the_mark_is_pushed(process: Site) -> None:
    await process.activate("ann")
    await process.activate("ben")
    await process.settle(await process.born("ben"), Delivered())
    (lost,) = await process.born("ann")

    await process.outbox.release(None)  # as at the next start on the same file

    assert await process.claim(NOW + SECOND, owner="next") == [lost]


async def test_a_claim_of_a_killed_process_runs_out(process: Site) -> None:
    await process.activate()
    (lost,) = await process.born()

    assert await process.claim(NOW + MINUTE - SECOND, owner="other") == []
    assert await process.outbox.next_due(Platform.APNS) == NOW + MINUTE
    assert await process.claim(NOW + MINUTE, owner="other") == [lost]
