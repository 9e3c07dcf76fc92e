"""Plots as lines of SVG: numbers become paths and the labels of two axes. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from relay.console.words import NOTHING

WIDTH: Final = 600.0  # units of a plot's drawing; it is stretched to the width of the page
HEIGHT: Final = 120.0
STEPS: Final = (1.0, 2.0, 5.0, 10.0)
"""Where the scale may end, times a power of ten: people read these numbers at a glance."""
Value = float | None
"""None: nothing was measured, so the line has a gap."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot."""

    name: str
    path: str
    """The attribute `d` of a path [SVG 2, 9.3]; empty: there is nothing to draw."""
    last: str
    """The newest value, with its unit."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Some lines on one scale."""

    title: str
    lines: tuple[Line, ...]
    top: str
    """The label at the top of the scale."""
    middle: str
    since: datetime | None
    """The moment at the left; None: there is no point."""
    until: datetime | None
    summary: str
    """What the plot shows, in words."""


def plot(
    title: str,
    times: Sequence[datetime],
    lines: Sequence[tuple[str, Sequence[Value]]],
    write: Callable[[float], str],
    least: float = 0.0,
) -> Plot:
    """Return the plot of some lines of values at the same times; `write` returns a value with its unit.

    The scale ends at `least` or above it.
    """
    top = scale(max([least, *(value for _, values in lines for value in values if value is not None)]))
    drawn = tuple(Line(name, _path(values, top), _last(values, write)) for name, values in lines)
    summary = ", ".join(f"{name}: {_in_words(values, write)}" for name, values in lines)
    since, until = (times[0], times[-1]) if times else (None, None)
    return Plot(title, drawn, write(top), write(top / 2), since, until, f"{title}: {summary}")


def scale(highest: float) -> float:
    """Return where a scale ends that shows values up to the highest one."""
    if highest <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in STEPS if highest <= step * power * (1 + 1e-9))


def _path(values: Sequence[Value], top: float) -> str:
    return "".join(_parts(values, top))


def _parts(values: Sequence[Value], top: float) -> Iterator[str]:
    apart = WIDTH / max(1, len(values) - 1)
    begins = True
    for number, value in enumerate(values):
        if value is None:
            begins = True
            continue
        x, y = number * apart, HEIGHT * (1 - value / top)
        # A line without length would not be drawn, so a value between gaps gets some.
        yield f"{'M' if begins else 'L'}{x:.1f} {y:.1f}{'h0.1' if begins else ''}"
        begins = False


def _last(values: Sequence[Value], write: Callable[[float], str]) -> str:
    last = values[-1] if values else None
    return NOTHING if last is None else write(last)


def _in_words(values: Sequence[Value], write: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "nothing measured yet"
    return f"now {_last(values, write)}, least {write(min(known))}, most {write(max(known))}"
