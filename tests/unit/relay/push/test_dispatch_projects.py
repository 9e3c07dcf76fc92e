"""A dispatcher and the Firebase projects of its sender: the trouble of one delays no push of another."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, Outcome, Reach, RetryLater
from relay.push.dispatch import SLOTS
from relay.push.fcm.config import FcmAccount
from relay.push.fcm.projects import Projects
from tests.fakes.outbox import MemoryOutbox
from tests.unit.relay.push.dispatching import Provider, dispatcher, running
from tests.unit.relay.push.pushes import due_push
from tests.unit.relay.push.test_backoff import MIDDLE

ILL, WELL = "com.example.ill", "com.example.well"
QUOTA = RetryLater("QUOTA_EXCEEDED", 60.0, provider=True, reach=Reach.ANSWERED)
NO_TOKEN = RetryLater("token-refused: http-500", provider=True)
pytestmark = pytest.mark.looptime


class TwoProjects(Provider):
    """A sender for two projects, one of which may be in trouble."""

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__(seconds)
        tables = {"ill": ILL, "well": WELL}
        accounts = [FcmAccount(frozenset({app}), Path("x.json"), table) for table, app in tables.items()]
        self.projects = Projects(accounts, SLOTS, MIDDLE)
        self.trouble: RetryLater | None = None
        self.begun: list[str] = []
        self.held_back: Counter[str] = Counter()

    async def send(self, push: DuePush) -> Outcome:
        loop, table = asyncio.get_running_loop(), push.app.rpartition(".")[2]
        waits = self.projects.admit(table, push, loop.time())
        if waits is not None:
            self.held_back[push.app] += 1
            return waits
        self.begun.append(push.app)
        await asyncio.sleep(self.seconds if push.app == ILL else 0.01)
        trouble = self.trouble if push.app == ILL else None
        outcome: Outcome = trouble or Delivered()
        self.projects.ended(table, push, outcome, loop.time(), of_project=trouble is not None)
        return replace(trouble, provider=False) if trouble else outcome


def put(outbox: MemoryOutbox, app: str, numbers: range) -> None:
    for number in numbers:
        outbox.put(due_push(number, platform=Platform.FCM, app=app))


@pytest.mark.parametrize("trouble", [QUOTA, NO_TOKEN])
async def test_pushes_of_a_project_in_trouble_wait_unclaimed_and_leave_when_it_serves_again(
    trouble: RetryLater,
) -> None:
    outbox, sender = MemoryOutbox(), TwoProjects()
    sender.trouble = trouble
    put(outbox, ILL, range(1000))

    async with running(dispatcher(outbox, sender, Platform.FCM, sender.projects.capacities)):
        await asyncio.sleep(1)
        put(outbox, WELL, range(1000, 2000))
        await asyncio.sleep(10)
        assert sender.begun.count(WELL) == 1000
        assert sender.begun.count(ILL) <= SLOTS

        await asyncio.sleep(600)
        assert sender.begun.count(ILL) <= SLOTS + 40  # probes, every minute at last
        assert sender.held_back[ILL] <= 2 * SLOTS

        sender.trouble = None
        await asyncio.sleep(300)

    assert outbox.rows == {}


async def test_a_project_that_answers_slowly_delays_no_other() -> None:
    outbox, sender = MemoryOutbox(), TwoProjects(seconds=15.0)
    put(outbox, ILL, range(1000))

    async with running(dispatcher(outbox, sender, Platform.FCM, sender.projects.capacities)):
        await asyncio.sleep(1)
        put(outbox, WELL, range(1000, 1500))
        await asyncio.sleep(2)
        assert sender.begun.count(WELL) == 500
