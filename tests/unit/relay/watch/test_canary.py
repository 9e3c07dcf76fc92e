"""Test when the canary's mails are sent and what is noted of them, on the clock of the loop."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from relay.domain.canary import CanaryLog, CanaryMailbox, Goal, Judgement, Reading, Result, Shown, Submission, Turn
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Platform
from relay.domain.users import Accounts
from relay.watch.canary import IDLE, Canary, CanaryRules
from relay.watch.submission import NotTaken

BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)
GOAL = Goal(frozenset({Platform.WEBPUSH}), seconds=20.0, interval=100.0)
SUBMISSION = Submission(
    "mail.example.com", 587, "starttls", "canary@example.com", "canary@example.com", user="sender", password="secret"
)

pytestmark = pytest.mark.looptime


class World:
    """A canary with a database and a mail server that do as a test says."""

    def __init__(self, *, shown_after: float | None = 2.0, refusals: Iterable[NotTaken] = ()) -> None:
        self.shown_after = shown_after
        self.refusals = list(refusals)
        self.watched, self.why = True, ""
        self.turn: Turn | None = None
        self.away = False
        self.sent_at: list[float] = []
        self.last_sent: datetime | None = None
        self.refused_at: datetime | None = None
        self.log = CanaryLog()
        mailbox = CanaryMailbox("main", "canary@example.com", Accounts())
        rules = CanaryRules(mailbox, GOAL, SUBMISSION, BEGAN - timedelta(days=1))
        self.canary = Canary(self, self.submit, rules, self.now, "node", lambda _: "identity", self.log)

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=asyncio.get_running_loop().time())

    async def submit(self, _to: Submission, _identity: str, _at: datetime) -> None:
        self.sent_at.append(asyncio.get_running_loop().time())
        if self.refusals:
            raise self.refusals.pop(0)

    async def claim(self, node: str, now: datetime, interval: timedelta) -> Turn:
        assert node == "node"
        if self.turn is not None:
            return self.turn
        if self.last_sent is not None and now < self.last_sent + interval:
            return Turn.LATER
        self.last_sent = now
        return Turn.NOW

    async def mail_refused_at(self) -> datetime | None:
        if self.away:
            raise StoreUnavailable("away")
        return self.refused_at

    async def mail_refused(self, at: datetime | None) -> None:
        self.refused_at = at

    async def reading(self, server: str, user: str, keys: Collection[str], since: datetime) -> Reading:
        assert (server, user, list(keys)) == ("main", "canary@example.com", ["canary@example.com"])
        seen = {}
        if self.shown_after is not None and self.now() >= since + timedelta(seconds=self.shown_after):
            seen[Platform.WEBPUSH] = Shown(since, since + timedelta(seconds=self.shown_after))
        return Reading(self.watched, self.why, shown=seen)

    async def run(self, seconds: float) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.canary.run()


async def test_a_mail_is_sent_in_each_interval_and_followed() -> None:
    world = World()

    await world.run(250)

    assert world.log.results == {Result.SHOWN: 3}
    assert len(world.sent_at) == 3
    assert all(100 <= later - earlier < 100 + IDLE + 1 for earlier, later in pairwise(world.sent_at))


async def test_a_mail_that_is_late_or_lost_is_noted_as_such() -> None:
    late, lost = World(shown_after=30.0), World(shown_after=None)

    await late.run(60)
    await lost.run(110)

    assert late.log.results == {Result.LATE: 1}
    assert lost.log.results == {Result.NOT_NOTICED: 1}


async def test_a_refused_login_is_shown_once_until_it_is_written_anew() -> None:
    world = World(refusals=[NotTaken("login-refused-535", credential=True)])

    await world.run(2000)
    assert len(world.sent_at) == 1
    assert (world.log.last, world.log.why) == (Result.NOT_SENT, "login-refused")
    assert world.log.results == {Result.NOT_SENT: 1}

    rules = world.canary.rules
    world.canary.rules = CanaryRules(rules.mailbox, rules.goal, rules.submission, world.now())
    await world.run(20)
    assert len(world.sent_at) == 2
    assert world.refused_at is None
    assert world.log.last is Result.SHOWN


async def test_a_refusal_of_before_holds_no_mail_back_that_needs_no_login() -> None:
    world = World()
    world.refused_at = BEGAN
    rules = world.canary.rules
    submission = replace(rules.submission, user="", password="")
    world.canary.rules = CanaryRules(rules.mailbox, rules.goal, submission, BEGAN - timedelta(days=1))

    await world.run(20)

    assert len(world.sent_at) == 1
    assert not await world.mail_refused_at()


async def test_another_refusal_costs_one_mail() -> None:
    world = World(refusals=[NotTaken("recipient-refused-450")])

    await world.run(150)

    assert world.log.results == {Result.NOT_SENT: 1, Result.SHOWN: 1}


async def test_no_mail_is_sent_while_another_process_does() -> None:
    world = World()
    world.log.note(Judgement(Result.NOT_SHOWN, {}), BEGAN)
    world.turn = Turn.ANOTHERS

    await world.run(500)

    assert world.sent_at == []
    assert world.log.last is None


async def test_a_mailbox_that_is_not_watched_gets_no_mail_and_counts_after_the_start() -> None:
    world = World()
    world.watched, world.why = False, "credential-refused"

    await world.run(90)
    assert (world.log.last, world.log.why) == (Result.NOT_WATCHED, "credential-refused")
    assert not world.log.results

    await world.run(150)
    assert world.sent_at == []
    assert world.log.results[Result.NOT_WATCHED] >= 1


async def test_a_watch_that_starts_is_no_trouble_yet() -> None:
    world = World()
    world.watched, world.why = False, "starting"

    await world.run(90)
    assert world.log.last is None

    await world.run(150)
    assert world.log.last is Result.NOT_WATCHED


async def test_a_database_that_is_away_ends_nothing() -> None:
    world = World()
    world.away = True
    await world.run(30)
    assert world.sent_at == []

    world.away = False
    await world.run(30)
    assert len(world.sent_at) == 1
