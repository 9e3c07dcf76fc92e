"""The health of the process: each part with its state, since when, and what to do; never content or user names."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from relay.domain.clock import Clock

log = logging.getLogger(__name__)

PERIOD: Final = 5.0  # seconds between two reviews; `since` is at most this much too late


class PartState(StrEnum):
    """The states of a part."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works with losses or delay, or will fail unless the operator acts."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; `reason` and `remedy` are empty while all is well and there is no hint."""

    state: PartState = PartState.OK
    reason: str = ""
    remedy: str = ""


OK: Final = Finding()


@dataclass(frozen=True, slots=True)
class Part:
    """Something that can fail, and how to check it; a check uses what is known already and never waits."""

    name: str
    check: Callable[[], Finding]
    essential: bool = False
    """Whether the process is of no use while this part has failed."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a part's last check found, and since when the part has been in that state."""

    part: str
    finding: Finding
    since: datetime
    essential: bool


class Health:
    """The parts of this process and their last reports."""

    def __init__(self, parts: Sequence[Part], clock: Clock) -> None:
        """Set up with the parts of this process; their names differ."""
        self.parts = tuple(parts)
        """Those that are checked; others may take their place."""
        self._clock = clock
        self._reports: dict[str, Report] = {}

    def review(self) -> list[Report]:
        """Check every part now and return the reports; changes of state are logged."""
        now = self._clock()
        self._reports = {part.name: report for part in self.parts if (report := self._reports.get(part.name))}
        for part in self.parts:
            finding, before = part.check(), self._reports.get(part.name)
            changed = before is None or before.finding.state is not finding.state
            since = now if before is None or changed else before.since
            self._reports[part.name] = Report(part.name, finding, since, part.essential)
            if changed and not (before is None and finding.state is PartState.OK):
                _log_change(part.name, finding)
        return list(self._reports.values())

    @property
    def latest(self) -> list[Report]:
        """The reports of the last review; none before the first one, when other jobs may not have started yet."""
        return list(self._reports.values())

    @property
    def ready(self) -> bool:
        """True if the process can do its job: no essential part has failed."""
        return not any(report.essential and report.finding.state is PartState.FAILED for report in self.review())

    async def run(self) -> None:
        """Review until cancelled, so that `since` is right and changes are logged even if no monitoring asks.

        The first review comes after one period: until then the other jobs may not have started yet.
        """
        while True:
            await asyncio.sleep(PERIOD)
            self.review()


def worst(reports: Sequence[Report]) -> PartState:
    """Return the state of the process: that of its worst part."""
    states = {report.finding.state for report in reports}
    return next((state for state in (PartState.FAILED, PartState.DEGRADED) if state in states), PartState.OK)


def _log_change(name: str, finding: Finding) -> None:
    level = logging.INFO if finding.state is PartState.OK else logging.WARNING
    log.log(
        level,
        "part changed",
        extra={"part": name, "state": finding.state.value, "reason": finding.reason, "remedy": finding.remedy},
    )
