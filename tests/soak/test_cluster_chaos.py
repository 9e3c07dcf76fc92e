"""All promises under chaos: three watch and two push processes on PostgreSQL, one trouble after another.

Processes are killed, stopped for longer than their lease and continued, cut off from the database, and told to end;
hosts' clocks are an hour off; the database crashes. All the while mails come. Nothing is lost, next to nothing is
repeated, and the mail server never holds two Pings of one mailbox: it counts the Pings that come while another one of
the same device is held.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import pytest

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.installation import APP
from relay.sandbox.process import RelayEnded, RelayProcess, open_relay
from relay.watch.leases import LEASE
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.site import PASSWORD, Site
from tests.soak.history import Arrived, Mail, judge, without_the_end
from tests.soak.line import Line, open_line
from tests.waiting import until

SEED: Final = 20261129
MAILBOXES: Final = int(os.environ.get("CHAOS_MAILBOXES", "250"))
CHANGES: Final = int(os.environ.get("CHAOS_CHANGES", "10000"))
SPAN: Final = 110.0  # seconds over which the mails come, and in which all troubles begin
TOLERATED: Final = CHANGES // 100
CLIENTS: Final = 8  # registrations at a time
SETTLED: Final = 90.0  # seconds until all is pushed and held after the last trouble, on a busy machine
HOUR: Final = 3600
CLOCK_OFF: Final = (sys.executable, str(Path(__file__).with_name("clock_off.py")))


def user_of(number: int) -> str:
    return f"user{number}@example.com"


def token_of(number: int) -> str:
    return f"{number:064x}"


@dataclass
class Node:
    """A process with its supervisor: it is started again under the same conditions."""

    cluster: "Cluster"
    role: str
    ahead: int = 0
    """Seconds by which its host's clock is ahead."""
    database: str = ""
    relay: RelayProcess | None = None

    async def start(self) -> None:
        """Start it; one that finds no database ends, and is started again."""
        while True:
            try:
                await self._start()
            except RelayEnded:
                await asyncio.sleep(1)
            else:
                return

    async def _start(self) -> None:
        port = free_port()
        site = self.cluster.site
        environ = {
            **site.environ,
            "RELAY__DATABASE__URL": self.database or self.cluster.database,
            "RELAY__OPS__PORT": str(port),
            "RELAY__SERVERS__SANDBOX__RETURN_RATE": "1000",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        within = (*CLOCK_OFF, str(self.ahead)) if self.ahead else ()
        opened = open_relay(site.sandbox.toml, port, role=self.role, environ=environ, within=within)
        self.relay = await self.cluster.stack.enter_async_context(opened)

    def send(self, number: signal.Signals) -> None:
        assert self.relay is not None
        if self.relay.process.returncode is None:
            self.relay.process.send_signal(number)

    async def ended(self) -> int:
        assert self.relay is not None
        return await self.relay.process.wait()

    async def kill(self) -> None:
        """Kill it, and start it again."""
        self.send(signal.SIGKILL)
        await self.ended()
        await self.start()

    async def stop_for(self, seconds: float) -> None:
        """Stop it, and continue it; start it again if it did not survive that."""
        self.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.send(signal.SIGCONT)
        if self.role == "watch":
            assert await self.ended() == -signal.SIGKILL
            await self.start()

    async def restart(self) -> None:
        """End it as a roll-out does, and start it again."""
        self.send(signal.SIGTERM)
        assert await self.ended() == 0
        await self.start()


@dataclass
class Cluster:
    """A site with several processes of each role."""

    site: Site
    database: str
    stack: AsyncExitStack
    mails: list[Mail] = field(default_factory=list)

    @property
    def pushes(self) -> list[Arrived]:
        return [
            Arrived(push.device_token, push.moment, int(json.loads(push.body)["relay"].get("count", 0)))
            for push in self.site.sandbox.apns.received
            if push.status == 200
        ]

    async def register_all(self) -> None:
        numbers = iter(range(MAILBOXES))

        async def client() -> None:
            for number in numbers:
                self.site.sandbox.eas.add_mailbox(user_of(number), PASSWORD)
                device = {"platform": "apns", "token": token_of(number), "app": APP}
                status, answer = await self.site.register(user_of(number), device=device)
                assert status in {201, 202}, answer

        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(client())

    async def deliver(self, random: Random) -> None:
        """Deliver all mails, evenly over the span, to mailboxes in any order."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for done in range(CHANGES):
            number = random.randrange(MAILBOXES)
            self.mails.append(Mail(token_of(number), time.perf_counter_ns()))
            self.site.deliver(user_of(number))
            await asyncio.sleep(max(0.0, began + SPAN * (done + 1) / CHANGES - clock()))


@pytest.fixture
async def line(postgres: PostgresServer) -> AsyncIterator[tuple[Line, Path]]:
    with tempfile.TemporaryDirectory(prefix="line") as name:
        async with open_line(Path(name), postgres.socket) as opened:
            yield opened, Path(name)


async def test_nothing_is_lost_and_no_mailbox_has_two_pings(
    site: Site, database: str, postgres: PostgresServer, line: tuple[Line, Path]
) -> None:
    random = Random(SEED)
    state = site.sandbox.folder / "state"
    write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")
    through = database.partition("?")[0] + f"?host={line[1]}"
    async with AsyncExitStack() as stack:
        cluster = Cluster(site, database, stack)
        api = Node(cluster, "api")
        watchers = [Node(cluster, "watch"), Node(cluster, "watch", HOUR), Node(cluster, "watch", 0, through)]
        pushers = [Node(cluster, "push", -HOUR), Node(cluster, "push")]
        async with asyncio.TaskGroup() as tasks:
            for node in (api, *watchers, *pushers):
                tasks.create_task(node.start())
        await cluster.register_all()
        await site.held(MAILBOXES)

        async def cut() -> None:
            line[0].cut()
            await asyncio.sleep(LEASE + 2)
            line[0].mend()

        async def crash() -> None:
            await postgres.crash()
            await asyncio.sleep(2)
            await postgres.start()

        random.shuffle(pushers)
        first, second = random.sample(watchers[:2], 2)
        troubles: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (2, lambda: pushers[0].stop_for(65)),
            (5, first.kill),
            (25, lambda: second.stop_for(LEASE + 3)),
            (45, crash),
            (55, cut),
            (74, pushers[1].kill),
            (80, first.restart),
            (
                92,
                random.choice([node for node in watchers if node is not first]).kill,
            ),  # the first one may still hand over
        ]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cluster.deliver(random))
            for moment, trouble in troubles:
                tasks.create_task(_at(moment + random.uniform(0, 2), trouble))
        await until(lambda: not judge(cluster.mails, cluster.pushes).lost, SETTLED)
        await until(lambda: site.sandbox.eas.held == MAILBOXES, SETTLED)
        found = judge(cluster.mails, cluster.pushes)
        planted = random.choice(cluster.mails).mailbox
        last = max(mail.at for mail in cluster.mails if mail.mailbox == planted)

    assert (found.lost, found.mails) == (frozenset(), CHANGES)
    assert found.repeated <= TOLERATED
    assert site.sandbox.eas.records.overlaps == {}
    assert judge(cluster.mails, without_the_end(cluster.pushes, planted, last)).lost == {planted}


async def _at(seconds: float, trouble: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await trouble()
