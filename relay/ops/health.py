"""Own how well the process is: each part with its state, since when, and what to do; never content or user names."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from relay.domain.clock import Clock

log = logging.getLogger(__name__)

PERIOD: Final = 5.0  # seconds between two reviews; bounds how late `since` may be


class PartState(StrEnum):
    """Name how well a part is."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works with losses or delay, or will fail unless somebody acts."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold what a check found; `reason` and `remedy` are empty while all is well and there is no hint."""

    state: PartState = PartState.OK
    reason: str = ""
    remedy: str = ""


OK: Final = Finding()


@dataclass(frozen=True, slots=True)
class Part:
    """Name one thing that can be ill, and how to look at it; a check answers at once from what is known."""

    name: str
    check: Callable[[], Finding]
    essential: bool = False
    """Whether the process can do nothing of use while this part has failed."""


@dataclass(frozen=True, slots=True)
class Report:
    """Hold how one part is and since when it has been in that state."""

    part: str
    finding: Finding
    since: datetime
    essential: bool


class Health:
    """Gather what the parts say."""

    def __init__(self, parts: Sequence[Part], clock: Clock) -> None:
        """Take the parts of this process; their names differ."""
        self._parts = tuple(parts)
        self._clock = clock
        self._reports: dict[str, Report] = {}

    def review(self) -> list[Report]:
        """Look at every part now; changes of state are logged."""
        now = self._clock()
        for part in self._parts:
            finding, before = part.check(), self._reports.get(part.name)
            changed = before is None or before.finding.state is not finding.state
            since = now if before is None or changed else before.since
            self._reports[part.name] = Report(part.name, finding, since, part.essential)
            if changed and not (before is None and finding.state is PartState.OK):
                _tell(part.name, finding)
        return list(self._reports.values())

    @property
    def ready(self) -> bool:
        """Tell whether the process can do its job: no essential part has failed."""
        return not any(report.essential and report.finding.state is PartState.FAILED for report in self.review())

    async def run(self) -> None:
        """Review until cancelled, so that `since` is right and changes are logged even if nobody asks.

        The first time is after a period: the other jobs have only begun, and what they do not have yet is no failure.
        """
        while True:
            await asyncio.sleep(PERIOD)
            self.review()


def worst(reports: Sequence[Report]) -> PartState:
    """Give the state of the whole: that of its worst part."""
    states = {report.finding.state for report in reports}
    return next((state for state in (PartState.FAILED, PartState.DEGRADED) if state in states), PartState.OK)


def _tell(name: str, finding: Finding) -> None:
    level = logging.INFO if finding.state is PartState.OK else logging.WARNING
    log.log(
        level,
        "part changed",
        extra={"part": name, "state": finding.state.value, "reason": finding.reason, "remedy": finding.remedy},
    )
