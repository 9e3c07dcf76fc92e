import asyncio
from datetime import datetime

import pytest

from relay.domain.errors import StoreUnavailable
from relay.domain.unreadable import UnreadableRows
from relay.ops.health import OK, PartState
from relay.ops.unreadable import NAMED, PERIOD, REMEDY, look_again, unreadable_rows
from tests.fakes.ops import HandClock


def test_health_names_some_rows_and_counts_the_others() -> None:
    rows = UnreadableRows()
    part = unreadable_rows(rows)
    assert part.check() == OK
    rows.looked("mailbox", "all", {f"mb-{number}": "state" for number in range(NAMED + 2)})

    finding = part.check()

    assert (finding.state, finding.remedy) == (PartState.DEGRADED, REMEDY)
    assert finding.reason.startswith("cannot be read, so set aside: mailbox mb-0 (state), mailbox mb-1 (state)")
    assert finding.reason.endswith("mb-4 (state) and 2 more")


@pytest.mark.looptime
async def test_stores_look_again_from_time_to_time_and_wait_while_the_database_is_away() -> None:
    looks: list[str] = []

    async def away(now: datetime) -> None:
        looks.append("away")
        if len(looks) == 1:
            raise StoreUnavailable

    async def other(now: datetime) -> None:
        looks.append("other")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * PERIOD + 1):
            await look_again([away, other], HandClock())

    assert looks == ["away", "away", "other"]
