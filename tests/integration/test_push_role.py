"""The push role with its settings, composed as it runs."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

from eas_watcher.machine.memory import Progress
from relay.compose.push import open_push
from relay.compose.running import open_running
from relay.domain.model import Platform, Role
from relay.process.clock import now
from relay.settings.changes import Changes
from relay.store.registrations import SqlRegistrationStore
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NEW_MAIL, activate, entry, own_all
from tests.installation import GOOD, Installation
from tests.integration.push_world import silent_server
from tests.waiting import until


async def test_no_more_is_claimed_than_may_be_under_way(tmp_path: Path) -> None:
    """A push that waits for a slot in its sender would exceed its time limit there, as if its provider were away."""
    site = Installation(tmp_path)
    async with AsyncExitStack() as stack, AsyncExitStack() as elsewhere:
        port = await elsewhere.enter_async_context(silent_server())
        site.write("fcm.json", json.dumps(site.account | {"token_uri": f"https://127.0.0.1:{port}/token"}).encode())
        site.configure(f"{GOOD}in_flight = 2\n")
        running = await stack.enter_async_context(open_running(site.load(Role.ALL)))
        registrations = SqlRegistrationStore(running.database, running.wakeups)
        watches = SqlWatchStore(running.database, running.wakeups)
        for number in range(5):
            name = f"user{number}"
            await activate(registrations, watches, name, platform=Platform.FCM, app="com.example.mail")
            await watches.commit([entry(await own_all(watches), Progress(changes=(NEW_MAIL,)), name)], now())
        await open_push(running, stack)
        stats = running.pushes[Platform.FCM]

        (dispatch,) = [job for name, job in running.jobs if name == "pushes through fcm"]
        async with asyncio.TaskGroup() as tasks:
            pushing = tasks.create_task(dispatch())
            await until(lambda: stats.in_flight > 0)

            assert stats.in_flight == 2
            await elsewhere.aclose()  # the dispatcher does not wait for pushes that are cut off
            pushing.cancel()


async def test_shadow_mode_ends_marks_here_until_a_reload(tmp_path: Path) -> None:
    site = Installation(tmp_path)
    async with AsyncExitStack() as stack, AsyncExitStack() as elsewhere:
        port = await elsewhere.enter_async_context(silent_server())
        site.write("fcm.json", json.dumps(site.account | {"token_uri": f"https://127.0.0.1:{port}/token"}).encode())
        site.configure(f'{GOOD}[push]\nmode = "shadow"\n')
        running = await stack.enter_async_context(open_running(site.load(Role.ALL)))
        registrations = SqlRegistrationStore(running.database, running.wakeups)
        watches = SqlWatchStore(running.database, running.wakeups)
        await activate(registrations, watches, platform=Platform.FCM, app="com.example.mail")
        epoch = await own_all(watches)

        async def change() -> None:
            await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], now())

        await open_push(running, stack)
        stats = running.pushes[Platform.FCM]
        (dispatch,) = [job for name, job in running.jobs if name == "pushes through fcm"]
        async with asyncio.TaskGroup() as tasks:
            pushing = tasks.create_task(dispatch())
            await change()
            await until(lambda: stats.shadowed == 1)
            assert stats.in_flight == 0

            site.replace('mode = "shadow"', 'mode = "live"')
            takes = [await taker(site.load(Role.ALL), Changes(("push.mode",))) for taker in running.takers]
            for take in takes:
                if take is not None:
                    await take()
            await change()
            await until(lambda: stats.in_flight == 1)  # with the sender, which waits for a token
            assert stats.shadowed == 1

            await elsewhere.aclose()
            pushing.cancel()
