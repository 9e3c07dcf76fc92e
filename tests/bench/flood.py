"""Measure mail -> push while nobody disturbs the relay, and again while strangers keep many API connections busy.

Each stranger opens a TLS connection, asks for a registration without its secret, again as soon as the answer has come,
and connects again when the relay hangs up. They run in a process of their own, on the same cores as relay and sandbox.
"""

import argparse
import asyncio
import json
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import figure, mail_to_push, open_house, open_sandbox, register

SETTLE: Final = 2.0  # seconds between the last registration and the first mail
SWELL: Final = 15.0  # seconds that the flood may take to rise before it is measured
DRAIN: Final = 300.0  # seconds the last pushes may take
PAUSE: Final = 0.2  # seconds before a stranger whose connection was refused comes back
PATIENCE: Final = 30.0  # seconds a stranger waits for anything
REQUEST: Final = b"GET /v1/registrations/none HTTP/1.1\r\nHost: relay\r\n\r\n"


async def measure(mailboxes: int, rate: float, strangers: int, addresses: int) -> None:
    """Print p50 and p99 of both rounds, and what the p99 was multiplied by."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_sandbox(Path(folder) / "sandbox", mailboxes) as sandbox, open_house(sandbox) as (_, api):
            await register(api, mailboxes)
            await sandbox.held(mailboxes)
            await asyncio.sleep(SETTLE)
            calm, _ = await mail_to_push(sandbox, mailboxes, rate, within=DRAIN)
            async with flood(sandbox.ports["api"], strangers, addresses):
                await asyncio.sleep(SWELL)
                flooded, _ = await mail_to_push(sandbox, mailboxes, rate, within=DRAIN)
    for name, late in ("calm", calm), ("flooded", flooded):
        figure(f"flood.{name}.p50_ms", late[len(late) // 2], "ms")
        figure(f"flood.{name}.p99_ms", late[len(late) * 99 // 100], "ms")
    figure("flood.p99_ratio", flooded[len(flooded) * 99 // 100] / calm[len(calm) * 99 // 100], "times")


@asynccontextmanager
async def flood(port: int, strangers: int, addresses: int) -> AsyncIterator[None]:
    """Let strangers ask the API until the block ends; then print what they were answered."""
    arguments = ["--strangers", str(strangers), "--addresses", str(addresses), "--ask", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield
    finally:
        printed, _ = await process.communicate(b"enough\n")
        for kind, count in sorted(json.loads(printed).items()):
            figure(f"flood.answers.{kind}", count, "answers")


async def ask(port: int, strangers: int, addresses: int) -> None:
    """Ask with so many connections until a line comes from standard input; print the answers counted by status."""
    answers: Counter[str] = Counter()
    # uvloop reports a connection that ends during its handshake here too; it is counted below.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sources = [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(addresses)]
    tasks = [
        asyncio.get_running_loop().create_task(_stranger(port, sources[number % addresses], context, answers))
        for number in range(strangers)
    ]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(answers))  # noqa: T201 -- read by the bench


async def _stranger(port: int, source: str, context: ssl.SSLContext, answers: Counter[str]) -> None:
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, local_addr=(source, 0), ssl_shutdown_timeout=1
                )
            try:
                while True:
                    writer.write(REQUEST)
                    async with asyncio.timeout(PATIENCE):
                        head = await reader.readuntil(b"\r\n\r\n")
                        size = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                        await reader.readexactly(int(size.partition(b":")[2]))
                    answers[f"http_{head.split()[1].decode()}"] += 1
            finally:
                writer.transport.abort()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            answers["silence" if isinstance(error, TimeoutError) else "closed"] += 1
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=300)
    parser.add_argument("--rate", type=float, default=20.0, help="mails per second")
    parser.add_argument("--strangers", type=int, default=4000, help="connections that flood the API")
    parser.add_argument("--addresses", type=int, default=1, help="addresses of loopback that they come from")
    parser.add_argument("--ask", type=int, default=0, help="be the strangers, of the API at this port")
    chosen = parser.parse_args()
    if chosen.ask:
        uvloop.run(ask(chosen.ask, chosen.strangers, chosen.addresses))
    else:
        asyncio.run(measure(chosen.mailboxes, chosen.rate, chosen.strangers, chosen.addresses))
