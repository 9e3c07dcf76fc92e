"""What the doctor found, for tests."""

from collections.abc import Iterable
from dataclasses import dataclass

from eas_watcher.tools.probe.finding import Grade
from relay.doctor.finding import Finding
from relay.doctor.plan import Doctor
from relay.domain.clock import Clock
from relay.process.clock import now
from relay.settings import Settings


@dataclass(frozen=True)
class Examined:
    """The findings of one examination."""

    findings: tuple[Finding, ...]

    def one(self, check: str, subject: str) -> Finding:
        """Return the one finding of a check; fail if there are none or several."""
        (found,) = [each for each in self.findings if (each.check, each.subject) == (check, subject)]
        return found

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Check and subject of all that must change."""
        return [(each.check, each.subject) for each in self.findings if each.grade is Grade.BAD]

    @property
    def noted(self) -> list[tuple[str, str]]:
        """Check and subject of all that works and should change."""
        return [(each.check, each.subject) for each in self.findings if each.grade is Grade.NOTE]


def found(findings: Iterable[Finding]) -> Examined:
    return Examined(tuple(findings))


async def examine(settings: Settings, clock: Clock = now) -> Examined:
    """Examine a role by all checks."""
    return Examined(tuple([finding async for finding in Doctor(settings, clock).examine()]))
