"""Measure pushes to APNs: the relay's sender beside stock aioapns, in turns, in one process, on the same server.

Both run as the relay's process does: on uvloop, with a garbage collector that runs rarely. The relay makes each body
from its template and sends as it does in production; aioapns gets its message ready-made. Medians over the turns.
"""

import argparse
import asyncio
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from statistics import median

import uvloop
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.domain.model import DuePush
from relay.domain.outcome import Delivered
from relay.process import gc_tuning
from relay.process.clock import now
from relay.push.apns.config import ApnsAccount, ApnsConfig, ApnsToken
from relay.push.apns.sender import ApnsSender
from relay.push.egress.leaving import Leaving
from relay.push.egress.log import EgressLog, Limits, open_egress_log
from relay.push.payload import ApnsMessage, Notice, WebPushMessage
from relay.sandbox.certificates import ThrowAwayCa, make_apns_key
from tests.bench.site import figure
from tests.unit.relay.push.pushes import due_push

APP = "com.example.mail"
TEAM = "TEAM123456"
WARM = 300  # pushes before the first turn counts
DEVICES = 1000

Push = Callable[[int], Awaitable[None]]


class NoEgress:
    """An egress log that keeps nothing, because aioapns has none."""

    def apns(self, pushes: Sequence[Leaving]) -> None:
        """Forget."""

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        """Forget."""

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        """Forget."""


@dataclass
class Turn:
    """The figures of one turn."""

    per_second: float
    cpu_us: float
    p99_ms: float


async def turn(push: Push, in_flight: int, pushes: int) -> Turn:
    """Send so many pushes, so many at a time."""
    numbers = iter(range(pushes))
    times: list[float] = []

    async def work() -> None:
        for number in numbers:
            asked = time.perf_counter()
            await push(number)
            times.append(time.perf_counter() - asked)

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(work())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    times.sort()
    return Turn(pushes / seconds, cpu / pushes * 1e6, times[len(times) * 99 // 100] * 1e3)


def ours(sender: ApnsSender) -> Push:
    """Send pushes as the dispatcher does."""
    dues: list[DuePush] = [due_push(number) for number in range(DEVICES)]

    async def push(number: int) -> None:
        outcome = await sender.send(dues[number % DEVICES])
        if not isinstance(outcome, Delivered):
            raise SystemExit(f"the relay's push failed: {outcome}")

    return push


def stock(apns: APNs) -> Push:
    """Send pushes as aioapns' documentation does, with the same headers and bodies."""
    messages = [ApnsMessage(Notice.of(due_push(number))) for number in range(DEVICES)]
    bodies = [message.body for message in messages]
    numbers = count(1)

    async def push(number: int) -> None:
        message = messages[number % DEVICES]
        request = NotificationRequest(
            f"{next(numbers):064x}",
            bodies[number % DEVICES],
            time_to_live=message.notice.lifetime,
            priority=message.priority,
            collapse_key=message.notice.collapse_id,
            push_type=PushType.ALERT,
        )
        result = await apns.send_notification(request)
        if not result.is_successful:
            raise SystemExit(f"aioapns' push failed: {result.description}")

    return push


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[int]:
    """Run the server until the block ends; yield its port."""
    ca = ThrowAwayCa()
    ca.write_ca(folder / "ca.pem")
    (folder / "server.pem").write_bytes(ca.server_pem())
    program = Path(__file__).with_name("apns_server.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(folder / "server.pem"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


def make_stock(folder: Path, port: int, key: tuple[str, str]) -> APNs:
    """Make an aioapns client for the server, with its defaults."""
    tls = ssl.create_default_context(cafile=folder / "ca.pem")
    tls.set_alpn_protocols(["h2"])
    apns = APNs(key=key[0], key_id=key[1], team_id=TEAM, topic=APP, ssl_context=tls)
    place = {"APNS_SERVER": "localhost", "APNS_PORT": port}
    apns.pool.protocol_class = type("Stock", (APNsTLSClientProtocol,), place)
    return apns


async def measure(turns: int, pushes: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        key = make_apns_key()
        (folder / "apns.p8").write_text(key[0])
        async with server(folder) as port:
            config = ApnsConfig(
                (ApnsAccount(frozenset({APP}), ApnsToken(folder / "apns.p8", key[1], TEAM)),),
                host="localhost",
                port=port,
                ca_file=folder / "ca.pem",
            )
            async with ApnsSender(config, NoEgress(), now, Random(1)) as sender:
                ways = {"relay": ours(sender), "aioapns": stock(make_stock(folder, port, key))}
                for way in ways.values():
                    await turn(way, 10, WARM)
                gc_tuning.freeze_heap()
                for in_flight in 100, 1000:
                    taken: dict[str, list[Turn]] = {name: [] for name in ways}
                    for _ in range(turns):
                        for name, way in ways.items():
                            taken[name].append(await turn(way, in_flight, pushes))
                    _tell(in_flight, taken)
            with open_egress_log(folder / "egress", now, Limits(64_000_000)) as egress:
                await _whole(config, egress, turns, pushes)


async def _whole(config: ApnsConfig, egress: EgressLog, turns: int, pushes: int) -> None:
    async with ApnsSender(config, egress, now, Random(1)) as sender:
        push = ours(sender)
        await turn(push, 10, WARM)
        taken = [await turn(push, 100, pushes) for _ in range(turns)]
    figure("apns.with_egress_log.cpu_us_100", median(each.cpu_us for each in taken), "us")
    figure("apns.with_egress_log.per_s_100", median(each.per_second for each in taken), "1/s")


def _tell(in_flight: int, taken: dict[str, list[Turn]]) -> None:
    rates = {way: median(each.per_second for each in turns) for way, turns in taken.items()}
    cpus = {way: median(each.cpu_us for each in turns) for way, turns in taken.items()}
    waits = {way: median(each.p99_ms for each in turns) for way, turns in taken.items()}
    for way in taken:
        prefix = "apns" if way == "relay" else "apns.aioapns"
        figure(f"{prefix}.per_s_{in_flight}", rates[way], "1/s")
        figure(f"{prefix}.cpu_us_{in_flight}", cpus[way], "us")
        figure(f"{prefix}.p99_ms_{in_flight}", waits[way], "ms")
    figure(f"apns.ratio_to_aioapns_{in_flight}", rates["relay"] / rates["aioapns"], "ratio")
    figure(f"apns.cpu_ratio_to_aioapns_{in_flight}", cpus["aioapns"] / cpus["relay"], "ratio")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="of each client, at 100 and at 1,000 in flight")
    parser.add_argument("--pushes", type=int, default=5000, help="of each turn")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(chosen.turns, chosen.pushes))
