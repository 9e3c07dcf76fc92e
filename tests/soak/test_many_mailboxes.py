"""Promise 4 at scale: 2,000 mailboxes in one process, one Ping each, never two, and no work while no mail comes."""

import asyncio
import os
from pathlib import Path
from random import Random
from typing import Final

from relay.sandbox.installation import APP
from tests.site import PASSWORD, Site, open_site
from tests.waiting import until

MAILBOXES: Final = 2000
MAILS: Final = 200
CLIENTS: Final = 16  # registrations at a time
IDLE: Final = 5.0  # seconds over which CPU time is taken


def token_of(number: int) -> str:
    return f"{number:064x}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process: user and system, fields 14 and 15 of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def register_all(site: Site) -> None:
    numbers = iter(range(MAILBOXES))

    async def client() -> None:
        for number in numbers:
            user = f"user{number}@example.com"
            device = {"platform": "apns", "token": token_of(number), "app": APP}
            status, answer = await site.register(user, device=device)
            assert status in {201, 202}, answer

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())


async def test_two_thousand_mailboxes_in_one_process(tmp_path: Path) -> None:
    environ = {
        "RELAY__API__REGISTRATIONS_PER_MINUTE": "100000",
        "RELAY__API__REQUESTS_PER_MINUTE": "100000",
        "RELAY__LOG__LEVEL": "warning",
    }
    async with open_site(tmp_path / "sandbox", environ) as site:
        eas, apns = site.sandbox.eas, site.sandbox.apns
        for number in range(MAILBOXES):
            eas.add_mailbox(f"user{number}@example.com", PASSWORD)
        async with site.relay() as relay:
            await register_all(site)
            await until(lambda: eas.held == MAILBOXES, 120)

            before = cpu_seconds(relay.process.pid)
            await asyncio.sleep(IDLE)
            used = cpu_seconds(relay.process.pid) - before
            chosen = Random(7).sample(range(MAILBOXES), MAILS)
            for number in chosen:
                site.deliver(f"user{number}@example.com")
                await asyncio.sleep(0.005)
            await until(lambda: len({push.device_token for push in apns.received}) >= MAILS, 60)
            await until(lambda: eas.held == MAILBOXES, 60)
            metrics = await relay.metrics()

    assert {push.device_token for push in apns.received} == {token_of(number) for number in chosen}
    assert eas.records.overlaps == {}
    assert eas.records.max_held <= MAILBOXES
    assert list(eas.records.complaints) == []
    assert used < 0.05 * IDLE, f"{used:.2f} CPU seconds in {IDLE} s of silence"
    assert f"relay_pings_held {MAILBOXES}.0" in metrics
    assert 'state="watching"}' in metrics  # the reason is that these new mailboxes are empty
