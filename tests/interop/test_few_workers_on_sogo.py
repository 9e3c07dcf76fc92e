"""A SOGo with fewer workers than mailboxes, and with its own default of five connections that wait for one."""

import asyncio
from collections.abc import Iterator

import pytest

from eas_watcher.machine.memory import Change
from eas_watcher.names import CollectionClass
from tests.interop.packages import Unavailable, unavailable
from tests.interop.sogo.configuration import Settings
from tests.interop.sogo.server import SogoServer, running_sogo
from tests.interop.watching import open_watches
from tests.waiting import until

MAIL = Change(CollectionClass.EMAIL, 1)
MAILBOXES = 18
WORKERS = 3
LEARNING = 300.0  # seconds; Pings that fill the server last a minute, and other suites may run beside
ROUND = (
    220.0  # seconds; a mailbox without a turn is polled every 90 s, and a try of one Ping more stops all for a minute
)


@pytest.fixture(scope="module")
def small() -> Iterator[SogoServer]:
    try:
        with running_sogo(Settings(workers=WORKERS, queue=5, connect_patience=30)) as server:
            yield server
    except Unavailable as reason:
        unavailable(reason)


@pytest.mark.timeout(900, func_only=True)
async def test_as_many_pings_are_held_as_leave_a_worker_free_and_every_mailbox_is_told_of_its_mail(
    small: SogoServer,
) -> None:
    users = [await asyncio.to_thread(small.add_user, f"user{number:02}") for number in range(MAILBOXES)]
    async with open_watches(small.url, small.ca_file) as watches:
        diaries = [watches.start(user, heartbeat=600) for user in users]
        await until(lambda: watches.admission.capacity.crowded, LEARNING)
        await until(lambda: all(diary.watching for diary in diaries), LEARNING)
        for user in users:
            await asyncio.to_thread(small.deliver, user.name)
        await until(lambda: all(MAIL in diary.changes for diary in diaries), ROUND)

        admission = watches.admission
        assert admission.state == "serving"
        assert admission.path.cut_off is None
        assert "mailboxes are polled every 90 s, in turns" in admission.describe("localhost")
        assert sum(diary.watching for diary in diaries) >= MAILBOXES - 1
