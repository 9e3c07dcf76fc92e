"""The site of the benches: a sandbox in a process of its own, a relay in another, and all mailboxes registered."""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import aiohttp

from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess, open_relay
from relay.sandbox.sandbox import PASSWORD
from tests.planting import token, user
from tests.ports import free_ports

CLIENTS: Final = 16  # registrations at a time
START: Final = 60.0  # seconds
ONE_ANSWER: Final = 5.0  # seconds; a process of another program on the port may accept and never answer
SETTLE: Final = 300.0  # seconds
QUIET: Final = {
    "RELAY__API__REGISTRATIONS_PER_MINUTE": "100000",
    "RELAY__API__REQUESTS_PER_MINUTE": "100000",
    "RELAY__LOG__LEVEL": "warning",
}
UNPACED: Final = {"RELAY__SERVERS__SANDBOX__RETURN_RATE": "10000"}
"""Takes the pace out of the way at which an operator lets mailboxes start and return."""

ALONE: Final = {"RELAY__SERVERS__SANDBOX__HTTP2": "off"}
"""Lets each Ping have a TLS connection of its own; without it, 100 share one over HTTP/2."""


@dataclass
class Sandbox:
    """A sandbox that runs in a process of its own."""

    folder: Path
    control: aiohttp.ClientSession
    ports: dict[str, int]
    pid: int

    @property
    def toml(self) -> Path:
        return self.folder / "relay.toml"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "ca.pem")

    async def get(self, path: str) -> Any:
        async with self.control.get(path) as response:
            response.raise_for_status()
            return await response.json()

    async def post(self, path: str, body: dict[str, Any]) -> None:
        async with self.control.post(path, json=body) as response:
            response.raise_for_status()

    async def held(self, count: int) -> None:
        """Wait until the mail server holds at least so many Pings."""
        async with asyncio.timeout(SETTLE):
            while (await self.get("/eas/state"))["held"] < count:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.5)


def figure(name: str, value: float, unit: str) -> None:
    """Print one figure."""
    print(f"bench {name} {value:.2f} {unit}", flush=True)  # noqa: T201 -- a bench prints


@asynccontextmanager
async def open_sandbox(folder: Path, mailboxes: int) -> AsyncIterator[Sandbox]:
    """Run `relay sandbox` until the block ends."""
    names = ("eas", "apns", "fcm", "webpush", "control", "api", "ops", "smtp")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    arguments = [part for name, port in ports.items() for part in (f"--{name}", str(port))] + [
        "--apns-sandbox",
        "0",
        "--web",
        "0",
    ]
    arguments += ["--folder", str(folder), "--mailboxes", str(mailboxes), "--level", "warning"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "sandbox", *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{ports['control']}"
    try:
        async with aiohttp.ClientSession(url) as control:
            sandbox = Sandbox(folder, control, ports, process.pid)
            await _answers(sandbox, process)
            yield sandbox
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def open_house(
    sandbox: Sandbox, environ: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[tuple[RelayProcess, aiohttp.ClientSession]]:
    """Run a relay on a sandbox, with settings in `environ`; yield it with a session to its API."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(
            open_relay(sandbox.toml, sandbox.ports["ops"], environ=QUIET | dict(environ))
        )
        connector = aiohttp.TCPConnector(ssl=sandbox.trust)
        api = aiohttp.ClientSession(f"https://127.0.0.1:{sandbox.ports['api']}", connector=connector)
        yield relay, await stack.enter_async_context(api)


async def register(api: aiohttp.ClientSession, mailboxes: int | range, clients: int = CLIENTS) -> None:
    """Register one iPhone for each mailbox: for so many, or for those with these numbers; `clients` do it at a time."""
    numbers = iter(range(1, mailboxes + 1) if isinstance(mailboxes, int) else mailboxes)

    async def client() -> None:
        for number in numbers:
            wish = {
                "mailbox": user(number),
                "credential": {"kind": "basic", "password": PASSWORD},
                "device": {"platform": "apns", "token": token(number), "app": APP},
            }
            async with api.post("/v1/registrations", json=wish) as response:
                response.raise_for_status()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())


async def mail_to_push(sandbox: Sandbox, mailboxes: int, rate: float, *, within: float) -> tuple[list[float], float]:
    """Deliver a mail to each mailbox, `rate` a second; return the sorted latencies in milliseconds, and the true rate.

    A latency begins when the Ping's answer leaves the mail server and ends when the push arrives at APNs, within
    `within` seconds after the last mail.
    """
    before = len((await sandbox.get("/push/apns/received"))["received"])
    clock = asyncio.get_running_loop().time
    began = clock()
    for number in range(1, mailboxes + 1):
        await asyncio.sleep(max(0.0, began + (number - 1) / rate - clock()))
        await sandbox.post("/eas/mail", {"user": user(number)})
    seconds = clock() - began
    pushes: list[dict[str, Any]] = []
    while len(pushes) < mailboxes and clock() < began + seconds + within:
        path = f"/push/apns/received?at_least={before + mailboxes}&within={min(within, 30.0)}"
        pushes = (await sandbox.get(path))["received"][before:]
    arrived = {push["device_token"]: push["moment"] for push in pushes}
    left = {n: (await sandbox.get(f"/eas/mailboxes/{user(n)}"))["ping_answered_at"] for n in range(1, mailboxes + 1)}
    late = sorted((arrived[token(n)] - left[n]) / 1e6 for n in left if token(n) in arrived)
    if len(late) < mailboxes:
        raise SystemExit(f"{mailboxes - len(late)} mails led to no push")
    return late, mailboxes / seconds


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a living process [proc(5): stat, fields 14 and 15]."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid: int, field: str = "VmRSS") -> int:
    """Return the resident memory of a process in kB (1,024 bytes), as Linux reports it; VmHWM: the most it had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0])


def cpu_ms(pid: int) -> float:
    """Return the CPU time of a process so far in milliseconds, user and system, as Linux reports it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def _answers(sandbox: Sandbox, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START):
        while True:
            if process.returncode is not None:
                raise SystemExit(f"the sandbox ended with status {process.returncode}; its message is above")
            try:
                async with asyncio.timeout(ONE_ANSWER):
                    await sandbox.get("/eas/state")
            except (aiohttp.ClientConnectionError, TimeoutError):
                await asyncio.sleep(0.1)
            else:
                return
