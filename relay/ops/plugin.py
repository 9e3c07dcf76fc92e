"""The verdict of `relay check-health`, as Nagios and Icinga read it: an exit status, and one line with numbers.

[Monitoring Plugins Development Guidelines]
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from eas_watcher.machine.memory import WatchState
from relay.ops.health import PartState
from relay.ops.readings import Reading

ENDED: Final = frozenset(state.value for state in WatchState if state.ended)
SHOWN: Final = 3  # parts that the line names


class Code(IntEnum):
    """The exit statuses."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_CODES: Final = {PartState.OK: Code.OK, PartState.DEGRADED: Code.WARNING, PartState.FAILED: Code.CRITICAL}


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which values on a number is a warning, or critical; None: never."""

    warn: float | None = None
    crit: float | None = None
    low: bool = False
    """True if values below the thresholds are meant, not those above."""

    def judge(self, value: float) -> Code:
        """Return what a value means."""
        for bound, code in ((self.crit, Code.CRITICAL), (self.warn, Code.WARNING)):
            if bound is not None and (value < bound if self.low else value > bound):
                return code
        return Code.OK

    @property
    def ranges(self) -> str:
        """The two thresholds, as performance data has them."""
        mark = ":" if self.low else ""
        return ";".join("" if bound is None else f"{bound:g}{mark}" for bound in (self.warn, self.crit))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of the numbers."""

    pending: Threshold = Threshold()
    """Pushes that wait."""
    oldest: Threshold = Threshold()
    """Age of the oldest of them, in seconds."""
    lag: Threshold = Threshold()
    """Lag of timers, in seconds."""
    watched: Threshold = Threshold(low=True)
    """Share of the mailboxes that are watched, of those whose watch has not ended for good, in per cent."""


def verdict(reading: Reading, thresholds: Thresholds) -> tuple[Code, str]:
    """Return the exit status and the line for what a process said."""
    if reading.trouble:
        return Code.CRITICAL, _line(Code.CRITICAL, f"{reading.url} {reading.trouble}", "")
    numbers = [
        ("pings_held", reading.total("relay_pings_held"), "", Threshold(), ""),
        ("pending", reading.total("relay_outbox_pending"), "", thresholds.pending, "pushes wait"),
        ("oldest", _oldest(reading), "s", thresholds.oldest, "s is the age of the oldest push that waits"),
        ("lag", reading.total("relay_loop_lag_seconds"), "s", thresholds.lag, "s is the lag of timers"),
        ("watched", watched(reading), "%", thresholds.watched, "% of the mailboxes are watched"),
    ]
    found = [(_CODES[part.state], f"{part.name}: {part.reason}") for part in reading.parts]
    found += [(limit.judge(value), f"{value:.6g} {words}".replace(" %", "%")) for _, value, _, limit, words in numbers]
    worst = max((code for code, _ in found), default=Code.OK)
    texts = [text for code, text in sorted(found, key=lambda each: -each[0]) if code is not Code.OK]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    text = "; ".join(texts[:SHOWN]) + more or _well(reading)
    data = " ".join(f"{label}={value:.6g}{unit};{limit.ranges};0" for label, value, unit, limit, _ in numbers)
    return worst, _line(worst, text, data)


def _well(reading: Reading) -> str:
    held, waits = reading.total("relay_pings_held"), reading.total("relay_outbox_pending")
    role = reading.label("relay_build_info", "role")
    return f"role {role}: {held:.0f} Pings held, {waits:.0f} pushes wait"


def _oldest(reading: Reading) -> float:
    return max((each.value for each in reading.of("relay_outbox_oldest_seconds")), default=0.0)


def watched(reading: Reading) -> float:
    """Return the share of mailboxes that are watched, in per cent; 100 if none should be."""
    meant = [each for each in reading.of("relay_mailboxes") if each.labels.get("state") not in ENDED]
    total = sum(each.value for each in meant)
    held = sum(each.value for each in meant if each.labels.get("state") == WatchState.WATCHING.value)
    return 100.0 * held / total if total else 100.0


def _line(code: Code, text: str, data: str) -> str:
    """Return one line; `|` begins the numbers, so no text may hold it."""
    one = " ".join(text.replace("|", "/").split())
    return f"RELAY {code.name} - {one}" + (f" | {data}" if data else "")


def unknown(text: str) -> str:
    """Return the line for a check that could not be made."""
    return _line(Code.UNKNOWN, text, "")
