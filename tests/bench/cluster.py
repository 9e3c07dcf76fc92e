"""Measure how long mailboxes are without a Ping when watch processes die, stop and join: three of them on PostgreSQL.

The sandbox runs in a process of its own, the database is a real server that does not sync its commits. Mailboxes are
planted, since registering them takes longer than all the rest. What happens meanwhile goes to stderr.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.process import RelayProcess, open_relay
from relay.sandbox.sandbox import PASSWORD
from relay.security.sealing import SealingPublicKey
from relay.store import migrate
from relay.store.engine import open_database
from tests.bench.site import QUIET, Sandbox, figure, open_sandbox
from tests.planting import AT_ONCE, insert
from tests.ports import free_port
from tests.postgres import running_postgres

WATCHERS = 3
LONGEST = 60.0  # seconds without progress
BEGAN = time.monotonic()
RATE = "1000"  # mailboxes per second that start


def told(text: str) -> None:
    """Tell those who wait what was reached."""
    print(f"{time.monotonic() - BEGAN:6.1f} s: {text}", file=sys.stderr, flush=True)  # noqa: T201 -- as above


@dataclass
class Site:
    """A sandbox, a database, and the processes of the roles."""

    sandbox: Sandbox
    environ: Mapping[str, str]
    stack: AsyncExitStack
    watchers: list[RelayProcess] = field(default_factory=list)

    async def start(self, role: str) -> RelayProcess:
        """Start a process that is ready when this returns."""
        port = free_port()
        environ = {**self.environ, "RELAY__OPS__PORT": str(port)}
        return await self.stack.enter_async_context(open_relay(self.sandbox.toml, port, role=role, environ=environ))

    async def held(self, count: int) -> float:
        """Wait until the mail server holds so many Pings; return how long that took."""
        clock = asyncio.get_running_loop().time
        began = looked = clock()
        most = told_of = -1
        while clock() < looked + LONGEST:
            found = (await self.sandbox.get("/eas/state"))["held"]
            if found == count:
                return clock() - began
            if found > most:
                most, looked = found, clock()
            if most >= told_of + count / 10:
                told_of = most
                told(f"{most} Pings held")
            await asyncio.sleep(0.05)
        raise SystemExit(f"{found} of {count} Pings are held")

    async def shares(self) -> list[int]:
        """Return how many Pings each watch process holds."""
        texts = [await watcher.metrics() for watcher in self.watchers]
        return [int(float(text.partition("\nrelay_pings_held ")[2].split()[0])) for text in texts]

    async def shared(self, mailboxes: int) -> float:
        """Wait until all Pings are held, by all watch processes alike; return how long that took."""
        clock = asyncio.get_running_loop().time
        began = looked = clock()
        fewest = -1
        while clock() < looked + LONGEST:
            shares = await self.shares()
            # Some are between two Pings while the processes are asked one after another.
            if sum(shares) >= 0.99 * mailboxes and min(shares) > 0.6 * mailboxes / len(shares):
                return clock() - began
            if min(shares) > fewest:
                fewest, looked = min(shares), clock()
                told(f"the watch processes hold {shares}")
            await asyncio.sleep(0.1)
        raise SystemExit(f"the watch processes hold {shares}")

    async def lowest(self, mailboxes: int, ended: asyncio.Event) -> int:
        """Return how many Pings were missing at the worst moment until the event, and until all were held again."""
        worst = 0
        while True:
            missing = mailboxes - int((await self.sandbox.get("/eas/state"))["held"])
            worst = max(worst, missing)
            if ended.is_set() and missing == 0:
                return worst
            await asyncio.sleep(0.02)


@asynccontextmanager
async def open_site(mailboxes: int) -> AsyncIterator[Site]:
    """Run the watch processes, with all Pings held."""
    with tempfile.TemporaryDirectory() as name, running_postgres() as postgres:
        database = postgres.url(await postgres.create())
        async with open_sandbox(Path(name), mailboxes) as sandbox, AsyncExitStack() as stack:
            state = Path(name) / "state"
            write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")
            key = SealingPublicKey.load(state / "sealing-public.pem")
            async with open_database(database) as engine:
                await migrate.upgrade(engine)
                for first in range(1, mailboxes + 1, AT_ONCE):
                    await engine.run(insert, key, range(first, min(first + AT_ONCE, mailboxes + 1)), PASSWORD)
            told("mailboxes planted")
            environ = {**QUIET, "RELAY__DATABASE__URL": database, "RELAY__SERVERS__SANDBOX__RETURN_RATE": RATE}
            site = Site(sandbox, environ, stack)
            site.watchers = await asyncio.gather(*(site.start("watch") for _ in range(WATCHERS)))
            told("watch processes started")
            await site.held(mailboxes)
            told("all Pings held")
            await site.shared(mailboxes)
            told("all processes have their share")
            yield site


async def main(mailboxes: int) -> None:
    """Print the figures."""
    async with open_site(mailboxes) as site:
        clock = asyncio.get_running_loop().time
        began, victim = clock(), site.watchers.pop(0)
        victim.kill()
        await victim.process.wait()
        await site.held(mailboxes)
        figure("cluster.failover_s", clock() - began, "s")

        ended, began = asyncio.Event(), clock()
        looking = asyncio.ensure_future(site.lowest(mailboxes, ended))
        site.watchers.append(await site.start("watch"))
        started = clock() - began
        took = await site.shared(mailboxes)
        ended.set()
        figure("cluster.join_start_s", started, "s")
        figure("cluster.join_s", took, "s")
        figure("cluster.join_missing", await looking, "mailboxes")

        ended, began, leaver = asyncio.Event(), clock(), site.watchers.pop(0)
        looking = asyncio.ensure_future(site.lowest(mailboxes, ended))
        leaver.process.terminate()
        await leaver.process.wait()
        figure("cluster.leave_s", clock() - began, "s")
        await site.held(mailboxes)
        ended.set()
        figure("cluster.leave_held_s", clock() - began, "s")
        figure("cluster.leave_missing", await looking, "mailboxes")
        overlaps = (await site.sandbox.get("/eas/state"))["overlaps"]
        figure("cluster.overlaps", sum(overlaps.values()) if isinstance(overlaps, dict) else overlaps, "mailboxes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mailboxes", type=int, default=6000)
    asyncio.run(main(parser.parse_args().mailboxes))
