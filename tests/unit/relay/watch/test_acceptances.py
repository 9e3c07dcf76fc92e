import asyncio
from datetime import datetime, timedelta
from random import Random

import pytest

from eas_watcher.errors import Unauthorized
from eas_watcher.names import MailboxId
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.mass_refusals import SKEW
from relay.domain.errors import StoreUnavailable
from relay.watch.acceptances import PERIOD, AcceptanceReader
from tests.fakes.watches import NoWatches
from tests.unit.eas_watcher.watching import NOW

pytestmark = pytest.mark.looptime

REFUSED = Unauthorized("no")


class Store(NoWatches):
    """Says when a neighbour was accepted; counts the questions. `away`: the database does not answer."""

    def __init__(self, accepted_at: datetime | None = None) -> None:
        self.accepted_at = accepted_at
        self.asked: list[MailboxId] = []
        self.away = False

    async def accepted_beside(self, mailbox_id: MailboxId) -> datetime | None:
        self.asked.append(mailbox_id)
        if self.away:
            raise StoreUnavailable
        return self.accepted_at


def door() -> ServerAdmission:
    return ServerAdmission(10.0, 8, Random(1), lambda: NOW)


def refuse(admission: ServerAdmission) -> bool:
    """Refuse the credential of a mailbox once more; return whether others were accepted meanwhile."""
    error = admission.failed(ClientAdmission(MailboxId("ann"), refusals=2), REFUSED)
    assert isinstance(error, Unauthorized)
    return error.others_accepted


async def test_asks_only_while_a_mailbox_is_refused() -> None:
    store, admission = Store(), door()
    running = asyncio.ensure_future(AcceptanceReader(store, lambda: [("url", admission)], lambda: NOW).run())
    await asyncio.sleep(PERIOD * 3.5)
    assert store.asked == []

    refuse(admission)
    await asyncio.sleep(PERIOD)
    running.cancel()

    assert store.asked == [MailboxId("ann")]
    assert not refuse(admission)


@pytest.mark.parametrize(("ago", "counts"), [(100.0, True), (400.0, False)])
async def test_an_acceptance_in_another_process_counts_if_it_came_after_the_refusal(ago: float, counts: bool) -> None:
    store, admission = Store(NOW - timedelta(seconds=ago)), door()
    refuse(admission)
    await asyncio.sleep(400.0 + SKEW + 50.0)

    await AcceptanceReader(store, lambda: [("url", admission)], lambda: NOW).read()

    assert refuse(admission) is counts


async def test_a_database_that_is_away_is_asked_again_later() -> None:
    store, admission = Store(NOW), door()
    refuse(admission)
    await asyncio.sleep(500.0)
    reader = AcceptanceReader(store, lambda: [("url", admission)], lambda: NOW)
    store.away = True
    await reader.read()

    store.away = False
    await reader.read()

    assert len(store.asked) == 2
    assert refuse(admission)
