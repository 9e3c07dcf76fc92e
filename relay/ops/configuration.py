"""The health of the configuration: whether the process runs with what is on disk, and what waits for a restart."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from relay.ops.health import OK, Finding, Part, PartState

SHOWN: Final = 5
"""Settings that health names; the log has all."""


@dataclass(slots=True)
class Configuration:
    """What this process knows of its configuration; a reload writes it, health and metrics read it."""

    taken_at: datetime
    """When the present settings were read."""
    faults: Sequence[tuple[str, str, str]] = ()
    """What is wrong with the configuration on disk: setting, what is wrong, what to do; empty: it is in use."""
    waiting: Sequence[str] = ()
    """Settings whose new values need a restart."""
    reloads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("applied", "unchanged", "faulty"), 0))
    """How often the configuration was read again, by what came of it."""

    def taken(self, now: datetime, waiting: Sequence[str], *, changed: bool) -> None:
        """Note that the configuration on disk is in use, but for the settings that need a restart."""
        self.faults, self.waiting = (), waiting
        self.reloads["applied" if changed else "unchanged"] += 1
        if changed:
            self.taken_at = now

    def refused(self, faults: Sequence[tuple[str, str, str]]) -> None:
        """Note that the configuration on disk is not in use."""
        self.faults = faults
        self.reloads["faulty"] += 1


def configuration(state: Configuration) -> Part:
    """Return the part of the configuration."""

    def check() -> Finding:
        if state.faults:
            shown = "; ".join(f"{key} {wrong}" for key, wrong, _ in state.faults[:SHOWN])
            more = f"; and {len(state.faults) - SHOWN} more" if len(state.faults) > SHOWN else ""
            since = f"{state.taken_at:%Y-%m-%d %H:%M} UTC"
            text = f"the configuration on disk is faulty, the relay runs with that of {since}: {shown}{more}"
            remedy = f"{state.faults[0][2]} `relay check` judges it; a corrected one is taken within seconds."
            return Finding(PartState.DEGRADED, text, remedy)
        if state.waiting:
            text = f"changed on disk, but not in use before a restart: {', '.join(state.waiting[:SHOWN])}"
            return Finding(PartState.OK, text, "Restart the relay when it suits you.")
        return OK

    return Part("configuration", check)
