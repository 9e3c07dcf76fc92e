"""A simulated server with fewer workers than mailboxes, over real sockets, with time put forward."""

import asyncio
from dataclasses import replace
from typing import Final

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import RATE
from eas_watcher.names import MailboxId
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import Family
from tests.integration.eas_world import WatchWorld, hurried, hurry, world
from tests.waiting import until

SOGO = FAMILIES[Family.SOGO]
MAILBOXES = [f"user{number}@example.com" for number in range(12)]


CALM: Final = 4  # turns of the loop at least between two steps: an answer is read some turns after it came


async def pass_time(watched: WatchWorld, seconds: float) -> None:
    """Put the time forward in small steps, and let the answers of each step come first."""
    passed = 0.0
    while passed < seconds:
        for _ in range(CALM):
            await asyncio.sleep(0.02 / CALM)
        hurry(1.0)
        passed += 1.0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [4])
@hurried
async def test_the_relay_learns_how_many_pings_a_server_holds_and_polls_the_other_mailboxes(workers: int) -> None:
    async with world(rules=replace(SOGO, workers=workers)) as watched:
        for user in MAILBOXES:
            watched.simulator.add_mailbox(user, "secret")
            watched.start(user)
        await pass_time(watched, 400.0)
        admission = watched.admissions.admission(watched.simulator.url, RATE)
        assert admission.capacity.crowded
        assert admission.path.cut_off is None

        for user in MAILBOXES:
            watched.simulator.deliver(user)
        await pass_time(watched, 300.0)

        kept = [watched.journal.kept[MailboxId(user.partition("@")[0])] for user in MAILBOXES]
        assert all(journal.changes for journal in kept)
        conditions = [journal.conditions[-1] for journal in kept]
        assert {condition.state for condition in conditions} == {WatchState.WATCHING}
        assert any("at once: " in condition.detail for condition in conditions)
        assert admission.state == "serving"
        assert not watched.simulator.overlaps(MAILBOXES[0])


@hurried
async def test_a_request_that_finds_no_worker_is_answered_by_the_proxy() -> None:
    async with world(rules=replace(SOGO, workers=1, patience=20.0)) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.add_mailbox("ben@example.com", "secret")
        watched.start("ben@example.com")
        await until(lambda: watched.simulator.workers.queued == 1)

        hurry(21.0)
        ben = watched.journal.kept[MailboxId("ben")]
        await until(lambda: bool(ben.conditions))

        assert "504" in ben.conditions[-1].detail
        assert watched.simulator.workers.queued == 1, "the server does not notice that the client has gone"
        watched.simulator.resize(None)
        await until(lambda: watched.simulator.workers.queued == 0)
