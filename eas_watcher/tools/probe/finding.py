"""The findings of a probe: one line for each step, and whether the relay would work with the server."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Grade(StrEnum):
    """What a finding means for a relay."""

    GOOD = "good"
    NOTE = "note"
    """It works, but an administrator should know."""
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found; `seconds` is how long each of its requests took."""

    step: str
    grade: Grade
    text: str
    seconds: tuple[float, ...] = ()

    def line(self) -> str:
        """Return the finding as one printable line, whatever characters the server sent."""
        text = "".join(character if character.isprintable() else "?" for character in self.text)
        took = ", ".join(f"{seconds:.3f}" for seconds in self.seconds)
        return f"{self.grade.value:<{GRADE_WIDTH}}  {self.step:<{STEP_WIDTH}}  {text}{f' ({took} s)' if took else ''}"


GRADE_WIDTH: Final = max(len(grade) for grade in Grade)
STEP_WIDTH: Final = len("FolderSync")


def works(findings: Iterable[Finding]) -> bool:
    """Return True if the relay would work: no step went badly."""
    return all(finding.grade is not Grade.BAD for finding in findings)
