"""What the API refuses, as its problem documents say it [RFC 9457], and that it was not reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LONGEST: Final = 86_400
"""Seconds: no app waits longer than a day on the word of one answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal. Decide by `code`; `detail` is for people and logs, and never repeats a value that was sent."""

    status: int
    code: str
    detail: str = ""
    fields: Sequence[tuple[str, str]] = ()
    """Field and fault, as `errors` has them."""
    retry_after: float | None = None
    """Seconds the relay asks to wait."""

    @classmethod
    def read(cls, status: int, document: object, retry_after: str | None) -> "Problem":
        """Return the problem of an answer. A proxy's own page has no code: `http-502` and the like stand for it."""
        told: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
        code = told.get("code")
        if not isinstance(code, str):
            return cls(status, f"http-{status}", retry_after=_seconds(retry_after))
        errors = told.get("errors")
        fields = tuple(
            (str(error.get("field", "")), str(error.get("detail", "")))
            for error in (errors if isinstance(errors, list) else [])
            if isinstance(error, Mapping)
        )
        return cls(status, code, str(told.get("detail", "")), fields, _seconds(retry_after))


class Refused(Exception):
    """The relay answered, and said no; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem


class Unreachable(Exception):
    """No answer, or none that can be read: whether the relay did what was asked is unknown."""


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After; the relay sends no dates, and a proxy's date is not worth a clock."""
    text = (retry_after or "").strip()
    return float(min(int(text), LONGEST)) if text.isascii() and text.isdigit() and len(text) <= 9 else None  # noqa: PLR2004 - 9 digits fit every int
