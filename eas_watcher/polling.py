"""Own how a watch polls a server whose Pings cost too much: a Sync of everything, then a rest, again and again.

Some servers tie up one worker process per held Ping [observed: SOGo 5.8, 2026-11]; a Sync takes one for an instant. No
Ping tells of new folders then, so the hierarchy is read now and then too.
"""

from dataclasses import replace
from typing import Final

from eas_watcher.progress import Progress
from eas_watcher.states import Action, Move, Pause, Pausing, Watch

HIERARCHY: Final = 3600.0  # seconds of polling after which the hierarchy is read again


def rest(watch: Watch, interval: float, before: list[Action]) -> Move:
    """Do `before`, rest for `interval` seconds; when the rest is over all collections are due, as after any wait."""
    rested = watch.rested_for + interval
    due = rested >= HIERARCHY
    watch = replace(
        (watch.reconsidered() if due else watch).later(interval),
        failures=0,
        hasty=0,
        rested_for=0.0 if due else rested,
        silent_for=watch.silent_for + interval,
        hierarchy_due=watch.hierarchy_due or due,
    )
    return Pausing(watch), [*before, Pause(Progress(), 0, interval, polls=True)]
