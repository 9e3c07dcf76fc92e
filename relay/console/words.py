"""How pages write moments, durations, rates and sizes. Pure."""

from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_SIZES: Final = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB"))
NOTHING: Final = "\N{EN DASH}"
"""Stands for a value that was not measured."""
FEW: Final = 10  # below it a number has a digit behind the point


def code(text: str) -> Markup:
    """Return a text as HTML, what stands between back-ticks in it as code."""
    plain = text.split("`")
    if not len(plain) % 2:
        return escape(text)
    marked = [Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(plain)]
    return Markup("").join(marked)


def read(moment: datetime | str) -> datetime:
    """Return a moment that may be a text as the documents of the admin API have it."""
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment


def stamp(moment: datetime | str) -> str:
    """Return a moment for people, to the second, in UTC."""
    return f"{read(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def ago(moment: datetime | str | None, now: datetime) -> str:
    """Return the distance of a moment from now; empty: there is none."""
    if moment is None:
        return ""
    seconds = round((now - read(moment)).total_seconds())
    if not seconds:
        return "just now"
    text = duration(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which there are at least two; below a second in milliseconds."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{number(seconds / size) if size == 1 else f'{seconds / size:.0f}'} {unit}"


def number(value: float) -> str:
    """Return a number or a rate, short."""
    if value == int(value) or value >= FEW:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"  # noqa: PLR2004 -- its first digit is shown


def count(value: int, one: str, several: str) -> str:
    """Return how many things there are; `one` and `several` are their name."""
    return f"{number(value)} {one if value == 1 else several}"


def size(octets: float) -> str:
    """Return a number of bytes."""
    found = next(((limit, unit) for limit, unit in _SIZES if octets >= limit), None)
    return f"{octets:.0f} bytes" if found is None else f"{number(octets / found[0])} {found[1]}"
