import asyncio
import logging

import pytest

from relay.ops.health import OK, PERIOD, Finding, Health, Part, PartState, Report, worst
from tests.fakes.ops import NOON, HandClock

DEGRADED = Finding(PartState.DEGRADED, "is slow", "Make it faster.")
FAILED = Finding(PartState.FAILED, "is gone", "Bring it back.")


class Patient:
    """Be a part whose finding the test sets."""

    def __init__(self, name: str = "database", *, essential: bool = False) -> None:
        self.finding = OK
        self.part = Part(name, lambda: self.finding, essential)


def test_a_state_counts_from_its_change_and_not_from_a_new_reason() -> None:
    patient, clock = Patient(), HandClock()
    health = Health([patient.part], clock)
    assert health.review() == [Report("database", OK, NOON, essential=False)]

    clock.forward(10)
    patient.finding = DEGRADED
    (report,) = health.review()
    assert (report.finding, report.since) == (DEGRADED, clock.now)
    since = clock.now

    clock.forward(10)
    patient.finding = Finding(PartState.DEGRADED, "is slower", "Make it faster.")
    (report,) = health.review()
    assert (report.finding.reason, report.since) == ("is slower", since)


@pytest.mark.parametrize(
    ("essential", "finding", "ready"),
    [(True, OK, True), (True, DEGRADED, True), (True, FAILED, False), (False, FAILED, True)],
)
def test_only_an_essential_part_that_failed_makes_unready(essential: bool, finding: Finding, ready: bool) -> None:
    patient = Patient(essential=essential)
    patient.finding = finding

    assert Health([patient.part], HandClock()).ready is ready


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ([], PartState.OK),
        ([OK, OK], PartState.OK),
        ([OK, DEGRADED], PartState.DEGRADED),
        ([FAILED, DEGRADED, OK], PartState.FAILED),
    ],
)
def test_the_whole_is_as_ill_as_its_worst_part(findings: list[Finding], state: PartState) -> None:
    reports = [Report(str(n), finding, NOON, essential=False) for n, finding in enumerate(findings)]

    assert worst(reports) is state


def test_changes_are_logged_once_with_their_remedy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    patient = Patient()
    health = Health([patient.part], HandClock())
    for finding in (OK, OK, FAILED, FAILED, OK):
        patient.finding = finding
        health.review()

    assert [(record.levelname, record.__dict__["state"]) for record in caplog.records] == [
        ("WARNING", "failed"),
        ("INFO", "ok"),
    ]
    assert caplog.records[0].__dict__["remedy"] == "Bring it back."


def test_a_part_that_is_ill_from_the_start_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    patient = Patient()
    patient.finding = FAILED
    Health([patient.part], HandClock()).review()

    assert len(caplog.records) == 1


@pytest.mark.looptime
async def test_it_reviews_by_itself_so_that_since_is_right() -> None:
    patient, clock = Patient(), HandClock()
    health = Health([patient.part], clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(health.run())
        await asyncio.sleep(PERIOD * 3 / 2)
        patient.finding = FAILED
        await asyncio.sleep(PERIOD)
        task.cancel()
    clock.forward(600)

    (report,) = health.review()
    assert report.since == NOON


@pytest.mark.looptime
async def test_what_has_only_begun_is_no_failure_to_tell_of(caplog: pytest.LogCaptureFixture) -> None:
    patient = Patient()
    patient.finding = FAILED
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Health([patient.part], HandClock()).run())
        await asyncio.sleep(PERIOD / 2)
        patient.finding = OK
        await asyncio.sleep(PERIOD)
        task.cancel()

    assert not caplog.records
