"""The findings of the doctor: one line for each check, with what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from eas_watcher.tools.probe.finding import GRADE_WIDTH, Grade

CHECK_WIDTH: Final = len("certificate")
SUBJECT_WIDTH: Final = 26


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    """The kind of check, e.g. "TLS"; it stays the same over releases."""
    subject: str
    """What was checked: mostly a table or a key of relay.toml."""
    grade: Grade
    text: str
    remedy: str = ""
    """What to do; empty: nothing."""
    seconds: float | None = None
    """How long it took; None: of no interest."""

    def line(self) -> str:
        """Return the finding as one printable line, whatever characters a server sent."""
        took = "" if self.seconds is None else f" ({self.seconds:.3f} s)"
        remedy = f". {sentence(self.remedy)}" if self.remedy else ""
        text = f"{self.text}{took}{remedy}"
        shown = "".join(character if character.isprintable() else "?" for character in text)
        return f"{self.grade:<{GRADE_WIDTH}}  {self.check:<{CHECK_WIDTH}}  {self.subject:<{SUBJECT_WIDTH}}  {shown}"

    def document(self) -> dict[str, Any]:
        """Return the finding for programs."""
        return {
            "check": self.check,
            "subject": self.subject,
            "grade": self.grade.value,
            "text": self.text,
            "remedy": sentence(self.remedy),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """Makes the findings of one check of one thing."""

    check: str
    name: str

    def good(self, text: str, seconds: float | None = None) -> Finding:
        """Return the finding that all is well."""
        return Finding(self.check, self.name, Grade.GOOD, text, seconds=seconds)

    def note(self, text: str, remedy: str) -> Finding:
        """Return the finding of what works and should change."""
        return Finding(self.check, self.name, Grade.NOTE, text, remedy)

    def bad(self, text: str, remedy: str) -> Finding:
        """Return the finding of what must change."""
        return Finding(self.check, self.name, Grade.BAD, text, remedy)

    def skipped(self, why: str) -> Finding:
        """Return the finding of what was not checked."""
        return Finding(self.check, self.name, Grade.SKIPPED, why)

    def of(self, check: str) -> "Subject":
        """Return the subject for another kind of check."""
        return replace(self, check=check)


def healthy(findings: Iterable[Finding]) -> bool:
    """Return True if no check went badly."""
    return all(finding.grade is not Grade.BAD for finding in findings)


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop; an empty one stays empty."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
