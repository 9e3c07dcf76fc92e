import asyncio
from pathlib import Path

import pytest

from eas_watcher.auth.credential import UnusableCredential
from relay.registration import certificate_process
from relay.registration.certificate_process import AT_ONCE, NICE, QUEUE, CertificateProcess
from relay.registration.errors import Busy
from relay.registration.requests import CertificateLogin
from tests.waiting import until

LEAST_FAVOURED = 19  # the greatest niceness that there is [nice(2)]

LOGIN = CertificateLogin(pem="no certificate")


class Reading:
    """Stands in for the processes, which wait here until they may end."""

    def __init__(self) -> None:
        self.begun = 0
        self.over = asyncio.Event()

    async def __call__(self, _: bytes) -> dict[str, str]:
        self.begun += 1
        await self.over.wait()
        return {"chain": "c", "key": "k"}


async def test_few_certificates_are_read_at_once_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, process = Reading(), CertificateProcess()
    monkeypatch.setattr(certificate_process, "_run", reading)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(process.read("ann", LOGIN)) for _ in range(AT_ONCE + QUEUE)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            with pytest.raises(Busy):
                await process.read("ben", LOGIN)
        assert reading.begun == AT_ONCE
        reading.over.set()

    assert {(await task).user for task in tasks} == {"ann"}
    assert (await process.read("ben", LOGIN)).user == "ben"


async def test_a_request_that_is_given_up_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, process = Reading(), CertificateProcess()
    monkeypatch.setattr(certificate_process, "_run", reading)
    tasks = [asyncio.ensure_future(process.read("ann", LOGIN)) for _ in range(AT_ONCE + QUEUE)]
    await asyncio.sleep(0)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    reading.over.set()

    assert (await process.read("ben", LOGIN)).user == "ben"


async def test_the_process_lets_pushes_and_pings_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Niceness is the 19th field of its stat [proc(5)]; the 17th after the name, which may have spaces."""
    held = asyncio.Event()
    run, made = asyncio.create_subprocess_exec, []

    async def start(*command: str, **options: object) -> asyncio.subprocess.Process:
        # Standard input stays open until its niceness was read.
        process = await run(*command, **options)  # type: ignore[arg-type]
        made.append(process)
        await held.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    task = asyncio.ensure_future(CertificateProcess().read("ann", LOGIN))

    def niceness() -> int:
        stat = Path(f"/proc/{made[0].pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[16])

    try:
        await until(lambda: bool(made) and niceness() == min(niceness_here() + NICE, LEAST_FAVOURED), 20)
    finally:
        held.set()
        with pytest.raises(UnusableCredential):  # "no certificate" is none; a slow machine may give up first
            await task


def niceness_here() -> int:
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[16])
