"""The rows that this process cannot read: a part of health, and the looks that take mended rows up again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.unreadable import UnreadableRows
from relay.ops.health import OK, Finding, Part, PartState

PERIOD: Final = 30.0
"""Seconds between two looks at rows that are set aside."""
NAMED: Final = 5
"""Rows that health names; the log has all."""
REMEDY: Final = (
    "If processes of several versions run, bring all to the newest. Otherwise correct the row, or delete it: "
    "`relay explain` names the rows of a mailbox, and a corrected one is taken up within a minute."
)

Look: TypeAlias = Callable[[datetime], Awaitable[None]]


def unreadable_rows(rows: UnreadableRows) -> Part:
    """Return the part of the rows that this process has set aside."""

    def check() -> Finding:
        found = rows.rows()
        if not found:
            return OK
        names = [f"{row.table} {row.key} ({row.fault})" for row in found[:NAMED]]
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return Finding(PartState.DEGRADED, f"cannot be read, so set aside: {', '.join(names)}{more}", REMEDY)

    return Part("rows", check)


async def look_again(looks: Sequence[Look], clock: Clock) -> None:
    """Look at the rows set aside from time to time, until cancelled; `looks` are those of the stores."""
    while True:
        await asyncio.sleep(PERIOD)
        for look in looks:
            try:
                await look(clock())
            except StoreUnavailable:
                break  # the part of the database tells it
