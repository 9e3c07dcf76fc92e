"""Own how one watch stands with the door of its server: what it has passed, and what its request is to find out."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Turn: TypeAlias = Literal["probes", "returns", "confirms"]
"""As what a queued watch is let through: to find out how the server is, as one of many, or to confirm a refusal."""
NEVER: Final = -1  # a watch has not passed so far
LAST_TRY: Final = 2  # refusals after which the next one is the last


@dataclass(slots=True)
class Visitor:
    """Hold how one watch stands with the door."""

    mailbox: Hashable
    refusals: int = 0
    """How often its credential was refused in a row."""
    passed: int = NEVER
    """In which opening of the gate it has passed."""
    probe: bool = False
    """Whether its request is the one that finds out how the server is."""
    confirms: bool = False
    """Whether its request is the one that finds out how the server takes refused credentials."""
    began: float = 0.0
    """When its request was let through, by the loop's clock."""
    holding: asyncio.TimerHandle | None = None
    """Tells when a Ping that probes has been held long enough."""
