"""Storms on one relay process: all Pings are cut at once, all mailboxes get a mail at once, APNs was away meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.sandbox.process import RelayProcess
from tests.planting import plant, token, user
from tests.site import PASSWORD, Site, open_site
from tests.waiting import until

MAILBOXES: Final = 3000  # 10,000 fit, too: each Ping is a file of two processes that may have 20,000
RATE: Final = 300.0  # mailboxes per second that start or return, within what two busy cores serve
START: Final = 180.0  # seconds until all Pings are held
MAILS: Final = 3  # to each mailbox, while APNs is away
CAME: Final = 200  # mails that come while the server is away
STORM: Final = 120.0  # seconds that a storm may take
GROWTH: Final = 12_000  # bytes of memory per mailbox whose push waits
RETURNED: Final = 24 * 2**20  # bytes of memory that a storm may leave behind
TRIMMED: Final = 150.0  # seconds until free memory was given back: two looks of the relay, and some


def resident(relay: RelayProcess) -> int:
    """Return the resident memory of a relay in bytes."""
    status = Path(f"/proc/{relay.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@dataclass
class Fleet:
    """A relay that holds a Ping for every mailbox of its sandbox."""

    site: Site
    relay: RelayProcess

    async def held(self) -> None:
        """Wait until all Pings are held."""
        await until(lambda: self.site.sandbox.eas.held == MAILBOXES, START)

    def pushed(self) -> Counter[str]:
        """Return how many pushes each phone got."""
        return Counter(push.device_token for push in self.site.sandbox.apns.received)

    def calm(self) -> None:
        """Fail if the mail server saw two Pings of a mailbox, or anything that a strict one would refuse."""
        records = self.site.sandbox.eas.records
        assert records.overlaps == {}
        assert list(records.complaints) == []


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    environ = {"RELAY__LOG__LEVEL": "warning", "RELAY__SERVERS__SANDBOX__RETURN_RATE": str(RATE)}
    async with open_site(folder, environ) as site:
        for number in range(1, MAILBOXES + 1):
            site.sandbox.eas.add_mailbox(user(number), PASSWORD)
        await asyncio.to_thread(plant, folder, MAILBOXES, PASSWORD)
        async with site.relay() as relay:
            running = Fleet(site, relay)
            await running.held()
            yield running


async def test_all_pings_return_at_the_pace_and_no_mail_is_lost_meanwhile(tmp_path: Path) -> None:
    async with fleet(tmp_path / "sandbox") as running:
        eas, clock = running.site.sandbox.eas, asyncio.get_running_loop().time
        began = clock()
        eas.restart()
        await until(lambda: eas.held == 0)
        for number in range(1, CAME + 1):
            running.site.deliver(user(number))
        await running.held()
        await until(lambda: len(running.pushed()) >= CAME, STORM)

        came = [entry.moment for n in range(1, MAILBOXES + 1) for entry in eas.log(user(n)) if entry.moment > began]
        syncs = Counter(
            int(entry.moment)
            for n in range(1, MAILBOXES + 1)
            for entry in eas.log(user(n))
            if entry.moment > began and entry.command == "Sync"
        )
    # A mailbox that returns sends a Sync and a Ping; a few seconds bunch up on a busy machine.
    assert max(syncs.values()) <= 2 * RATE
    assert max(came) - began >= 0.8 * MAILBOXES / RATE
    assert set(running.pushed()) == {token(number) for number in range(1, CAME + 1)}
    running.calm()


async def test_a_mail_to_each_mailbox_at_once_is_one_push_to_each_phone(tmp_path: Path) -> None:
    async with fleet(tmp_path / "sandbox") as running:
        before = resident(running.relay)
        for number in range(1, MAILBOXES + 1):
            running.site.deliver(user(number))
        await until(lambda: len(running.pushed()) == MAILBOXES, STORM)
        await running.held()
        await until(lambda: resident(running.relay) - before < RETURNED, TRIMMED)

    assert running.pushed() == {token(number): 1 for number in range(1, MAILBOXES + 1)}
    running.calm()


async def test_pushes_that_wait_for_apns_all_leave_when_it_is_back(tmp_path: Path) -> None:
    async with fleet(tmp_path / "sandbox") as running:
        apns = running.site.sandbox.apns
        before = resident(running.relay)
        apns.fail_handshakes()
        apns.drop()
        for _ in range(MAILS):
            for number in range(1, MAILBOXES + 1):
                running.site.deliver(user(number))
            await running.held()
        await until_waiting(running.relay, MAILBOXES)
        grown = resident(running.relay) - before
        assert not running.pushed()
        apns.heal()
        await until(lambda: len(running.pushed()) == MAILBOXES, STORM)
        await until_waiting(running.relay, 0)

    # All mails to a mailbox that wait are one push, and none of them had been sent before.
    assert running.pushed() == {token(number): 1 for number in range(1, MAILBOXES + 1)}
    assert grown < GROWTH * MAILBOXES
    running.calm()


async def until_waiting(relay: RelayProcess, count: int) -> None:
    """Wait until so many pushes wait, as the relay counts them."""

    async def counted() -> bool:
        metrics = await relay.metrics()
        waiting = [line for line in metrics.splitlines() if line.startswith("relay_outbox_pending")]
        return sum(float(line.rpartition(" ")[2]) for line in waiting) == count

    await until(counted, STORM)
