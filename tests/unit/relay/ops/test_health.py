import asyncio
import logging
from datetime import timedelta

import pytest

from relay.ops.health import OK, PERIOD, Finding, Health, Part, PartState, Report, worst
from tests.fakes.ops import NOON, HandClock

DEGRADED = Finding(PartState.DEGRADED, "is slow", "Make it faster.")
FAILED = Finding(PartState.FAILED, "is gone", "Bring it back.")


class FakePart:
    """A part whose finding the test sets."""

    def __init__(self, name: str = "database", *, essential: bool = False) -> None:
        self.finding = OK
        self.part = Part(name, lambda: self.finding, essential)


def test_a_state_counts_from_its_change_and_not_from_a_new_reason() -> None:
    fake, clock = FakePart(), HandClock()
    health = Health([fake.part], clock)
    assert health.review() == [Report("database", OK, NOON, essential=False)]

    clock.forward(10)
    fake.finding = DEGRADED
    (report,) = health.review()
    assert (report.finding, report.since) == (DEGRADED, clock.now)
    since = clock.now

    clock.forward(10)
    fake.finding = Finding(PartState.DEGRADED, "is slower", "Make it faster.")
    (report,) = health.review()
    assert (report.finding.reason, report.since) == ("is slower", since)


@pytest.mark.parametrize(
    ("essential", "finding", "ready"),
    [(True, OK, True), (True, DEGRADED, True), (True, FAILED, False), (False, FAILED, True)],
)
def test_only_an_essential_part_that_failed_makes_unready(essential: bool, finding: Finding, ready: bool) -> None:
    fake = FakePart(essential=essential)
    fake.finding = finding

    assert Health([fake.part], HandClock()).ready is ready


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ([], PartState.OK),
        ([OK, OK], PartState.OK),
        ([OK, DEGRADED], PartState.DEGRADED),
        ([FAILED, DEGRADED, OK], PartState.FAILED),
    ],
)
def test_the_state_of_the_process_is_that_of_its_worst_part(findings: list[Finding], state: PartState) -> None:
    reports = [Report(str(n), finding, NOON, essential=False) for n, finding in enumerate(findings)]

    assert worst(reports) is state


def test_changes_are_logged_once_with_their_remedy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fake = FakePart()
    health = Health([fake.part], HandClock())
    for finding in (OK, OK, FAILED, FAILED, OK):
        fake.finding = finding
        health.review()

    assert [(record.levelname, record.__dict__["state"]) for record in caplog.records] == [
        ("WARNING", "failed"),
        ("INFO", "ok"),
    ]
    assert caplog.records[0].__dict__["remedy"] == "Bring it back."


def test_a_part_that_has_failed_from_the_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakePart()
    fake.finding = FAILED
    Health([fake.part], HandClock()).review()

    assert len(caplog.records) == 1


@pytest.mark.looptime
async def test_it_reviews_by_itself_so_that_since_is_right() -> None:
    fake, clock = FakePart(), HandClock()
    health = Health([fake.part], clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(health.run())
        await asyncio.sleep(PERIOD * 3 / 2)
        fake.finding = FAILED
        await asyncio.sleep(PERIOD)
        task.cancel()
    clock.forward(600)

    (report,) = health.review()
    assert report.since == NOON


@pytest.mark.looptime
async def test_jobs_that_have_just_started_are_not_logged_as_failures(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakePart()
    fake.finding = FAILED
    health = Health([fake.part], HandClock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(health.run())
        await asyncio.sleep(PERIOD / 2)
        assert health.latest == []
        fake.finding = OK
        await asyncio.sleep(PERIOD)
        task.cancel()

    assert not caplog.records
    assert [report.finding for report in health.latest] == [OK]


def test_other_parts_take_the_place_of_the_first_and_keep_what_is_known_of_them() -> None:
    clock = HandClock()
    stays = Part("stays", lambda: Finding(PartState.FAILED, "broken"))
    health = Health([stays, Part("goes", lambda: OK)], clock)
    since = clock.now
    health.review()
    clock.now += timedelta(minutes=1)
    health.parts = (stays, Part("comes", lambda: OK))

    reports = {report.part: report for report in health.review()}

    assert reports.keys() == {"stays", "comes"}
    assert reports["stays"].since == since
