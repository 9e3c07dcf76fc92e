"""Test that wake-ups within a process are neither lost nor mixed up."""

import asyncio
import gc

from relay.domain.model import Platform
from relay.domain.ports.wakeups import Topic
from relay.store.wakeups import LocalWakeups

SOON = 5.0  # seconds; far more than a wake-up takes


async def test_a_wake_up_reaches_every_waiter_of_the_topic() -> None:
    wakeups = LocalWakeups()
    waiters = [wakeups.waiter(Topic.OUTBOX_APNS), wakeups.waiter(Topic.OUTBOX_APNS)]
    async with asyncio.timeout(SOON), asyncio.TaskGroup() as tasks:
        for waiter in waiters:
            tasks.create_task(waiter.wait(60.0))
        await asyncio.sleep(0)
        wakeups.wake(Topic.OUTBOX_APNS)


async def test_wake_ups_between_two_waits_end_the_next_one_only() -> None:
    wakeups = LocalWakeups()
    waiter = wakeups.waiter(Topic.MAILBOXES)
    wakeups.wake(Topic.MAILBOXES)
    wakeups.wake(Topic.MAILBOXES)

    async with asyncio.timeout(SOON):
        await waiter.wait(60.0)

    assert not waiter.woken


async def test_other_topics_wake_no_waiter() -> None:
    wakeups = LocalWakeups()
    waiter = wakeups.waiter(Topic.MAILBOXES)

    wakeups.wake(Topic.OUTBOX_APNS)

    assert not waiter.woken


async def test_marks_of_one_platform_wake_no_other_platform() -> None:
    for platform in Platform:
        wakeups = LocalWakeups()
        waiters = {each: wakeups.waiter(Topic.outbox(each)) for each in Platform}

        wakeups.wake(Topic.outbox(platform))

        assert [each for each, waiter in waiters.items() if waiter.woken] == [platform]


async def test_a_wait_ends_after_its_time() -> None:
    async with asyncio.timeout(SOON):
        await LocalWakeups().waiter(Topic.OUTBOX_APNS).wait(0.01)


async def test_a_wake_up_after_a_cancelled_wait_is_kept() -> None:
    wakeups = LocalWakeups()
    waiter = wakeups.waiter(Topic.OUTBOX_APNS)
    waiting = asyncio.get_running_loop().create_task(waiter.wait(60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    wakeups.wake(Topic.OUTBOX_APNS)

    assert waiter.woken


async def test_a_waiter_without_references_is_forgotten() -> None:
    wakeups = LocalWakeups()
    wakeups.waiter(Topic.VERDICTS)
    gc.collect()

    assert len(wakeups._waiters[Topic.VERDICTS]) == 0
