"""The number of transactions that one mail costs, from the Ping's answer until the relay is quiet again.

All transactions are counted, whatever they touch: those of the watch, of its mailbox's condition, and of dispatchers.
Only the process's own beat is not: it comes every three seconds, with or without a mail. What else comes from time to
time, the looks for wake-ups that were lost, does not come here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

from relay.domain.handover import NOBODY
from relay.domain.model import Platform
from relay.process.clock import now
from relay.push import dispatch, schedule
from relay.push.dispatch import Dispatcher, Handovers
from relay.store.outbox import SqlOutboxStore
from relay.store.wakeups import LocalWakeups
from relay.watch import mailboxes
from tests.integration.watch_role import ANN, WatchRole, open_watch_role
from tests.transactions import Transaction, quiet, recorded
from tests.unit.relay.push.dispatching import Provider, running
from tests.waiting import until

HOUR: Final = 3600.0
SHORT: Final = 1.0  # seconds; far more than passes between two transactions of one mail: the last waits for 0.25


@pytest.fixture(autouse=True)
def _no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (mailboxes, dispatch, schedule):
        monkeypatch.setattr(module, "SLOW_POLL", HOUR)
    monkeypatch.setattr(dispatch, "SWEEP", HOUR)


@asynccontextmanager
async def watching(folder: Path, *, together: bool) -> AsyncIterator[tuple[WatchRole, Provider, list[Transaction]]]:
    """Watch a mailbox with one phone, whose first mail has come; the dispatchers are of the same process, or not.

    With the first mail the watch also records that the server shows the new device its items.
    """
    wakeups, handovers = LocalWakeups(), Handovers()
    providers = {platform: Provider(0.0) for platform in Platform}
    apns = providers[Platform.APNS]
    async with open_watch_role(folder, wakeups=wakeups, handover=handovers if together else NOBODY) as role:
        store = SqlOutboxStore(role.database, wakeups)
        dispatchers = [Dispatcher(store, p, providers[p], wakeups, now, Random(1), "node") for p in Platform]
        for dispatcher in dispatchers:
            handovers.add(dispatcher)
        with recorded(role.database) as committed:
            async with running(*dispatchers):
                await role.judged(await role.register("phone"))
                await until(lambda: role.eas.held == 1)
                role.eas.deliver(ANN)
                await until(lambda: apns.sent)
                await quiet(committed, SHORT)
                committed.clear()
                yield role, apns, committed


def without_beats(transactions: list[Transaction]) -> list[Transaction]:
    """Leave out the beats of the process, in which it says that it lives."""
    return [each for each in transactions if not each[0].startswith("UPDATE node SET beat_at")]


async def test_a_mail_costs_two_transactions_in_the_process_that_watches_and_pushes(tmp_path: Path) -> None:
    async with watching(tmp_path, together=True) as (role, apns, committed):
        role.eas.deliver(ANN)
        await until(lambda: len(apns.sent) == 2)
        await quiet(committed, SHORT)
        (commit, settlement) = without_beats(committed)

    assert [len(each) for each in (commit, settlement)] == [4, 3]
    assert commit[-1].startswith("INSERT INTO outbox")
    assert settlement[-1].startswith("DELETE FROM outbox")


@pytest.mark.slow
async def test_a_mail_costs_a_claim_more_if_another_process_pushes(tmp_path: Path) -> None:
    async with watching(tmp_path, together=False) as (role, apns, committed):
        role.eas.deliver(ANN)
        await until(lambda: len(apns.sent) == 2)
        await quiet(committed, SHORT)
        (commit, claim, settlement) = without_beats(committed)

    assert [len(each) for each in (commit, claim, settlement)] == [4, 2, 3]
    assert claim[-1].startswith("UPDATE outbox SET claimed_by")
