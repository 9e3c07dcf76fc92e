"""Promise 4 over several processes: a bad password costs three tries in all, although each watch process is killed."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess, open_relay
from tests.ports import free_port
from tests.site import ANN, PASSWORD, Site
from tests.waiting import until

BEN: Final = "ben@example.com"
OTHER_IPHONE: Final = "5b" * 32
TAKEOVER: Final = 90.0  # seconds; a limit: leases are renewed every 3 s
OWNER: Final = 'SELECT owner FROM shard JOIN mailbox ON shard = number WHERE "user" = $1'
LOGGED: Final = 4000  # characters of the log that an error repeats


@dataclass
class Processes:
    """The processes of a site whose roles share a PostgreSQL database, and a way to look into the database."""

    site: Site
    database: str
    stack: AsyncExitStack
    watches: list[RelayProcess] = field(default_factory=list)

    async def start(self, role: str) -> RelayProcess:
        port = free_port()
        environ = {**self.site.environ, "RELAY__DATABASE__URL": self.database, "RELAY__OPS__PORT": str(port)}
        relay = open_relay(self.site.sandbox.toml, port, role=role, environ=environ)
        return await self.stack.enter_async_context(relay)

    async def watch(self) -> None:
        """Start another watch process; it gets its share of the mailboxes."""
        self.watches.append(await self.start("watch"))

    async def query(self, statement: str, *values: str) -> Any:
        connection = await asyncpg.connect(self.database)
        try:
            return await connection.fetchrow(statement, *values)
        finally:
            await connection.close()

    async def stored(self) -> tuple[str, int]:
        """Return state and counted refusals of Ann's mailbox."""
        state, refusals = await self.query('SELECT state, refusals FROM mailbox WHERE "user" = $1', ANN)
        return state, refusals

    async def until_stored(self, state: str, refusals: int) -> None:
        async def is_stored() -> bool:
            return await self.stored() == (state, refusals)

        try:
            await until(is_stored, TAKEOVER)
        except AssertionError as error:
            raise AssertionError(f"not {(state, refusals)}: {await self.found()}") from error

    async def found(self) -> str:
        """Return what may explain the state of Ann's mailbox: its row, her shard, the processes and their log."""
        row = await self.query(
            "SELECT state, refusals, reason, detail, next_try_at, now(), owner, epoch "
            'FROM mailbox JOIN shard ON shard = number WHERE "user" = $1',
            ANN,
        )
        ended = {watch.process.pid: watch.process.returncode for watch in self.watches}
        return f"{dict(row)}, watch processes {ended}, log:\n{self.watches[-1].log.read_text()[-LOGGED:]}"

    async def owner(self) -> str | None:
        """Return the node that has Ann's shard."""
        (node,) = await self.query(OWNER, ANN)
        return str(node) if node else None

    async def shared(self) -> bool:
        """Return True if every watch process has its share of the shards."""
        counts = "SELECT array_agg(n) FROM (SELECT count(owner) AS n FROM shard GROUP BY owner) AS shares"
        (shares,) = await self.query(counts)
        return len(shares) == len(self.watches) and max(shares) - min(shares) <= 1

    async def kill_owner(self, *, due: bool) -> None:
        """Kill the watch process that has Ann's mailbox, and end its lease; with `due` also Ann's wait.

        Else that is an hour from now on: on a busy host a minute is over before the next process has its share.
        """
        await until(self.shared, TAKEOVER)  # a process that is still taking shards may know the old wait already
        connection = await asyncpg.connect(self.database)
        try:
            async with connection.transaction():
                # Who takes her shard finds the new wait: nobody can before this ends, whatever lease is over by then.
                node = await connection.fetchval(f"{OWNER} FOR UPDATE OF shard", ANN)
                (owner,) = [watch for watch in self.watches if f"-{watch.process.pid}-" in node]
                self.watches.remove(owner)
                owner.kill()
                await owner.process.wait()
                moment = "since" if due else "now() + interval '1 hour'"
                await connection.execute(f"UPDATE mailbox SET next_try_at = {moment} WHERE next_try_at IS NOT NULL")  # noqa: S608 - ours
                if due:
                    await connection.execute("UPDATE tries SET last_at = last_at - interval '1 day'")
                ended = "UPDATE node SET alive_until = now() - interval '1 second' WHERE id = $1"
                await connection.execute(ended, node)
        finally:
            await connection.close()

        async def taken() -> bool:
            return await self.owner() not in {None, node}

        await until(taken, TAKEOVER)
        await until(lambda: self.site.sandbox.eas.held == 1, TAKEOVER)  # Ben's


async def test_a_password_that_went_bad_is_tried_three_times_by_all_processes(site: Site, database: str) -> None:
    state, eas = site.sandbox.folder / "state", site.sandbox.eas
    write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")
    for user in (ANN, BEN):
        eas.add_mailbox(user, PASSWORD)
    async with AsyncExitStack() as stack:
        roles = Processes(site, database, stack)
        await roles.start("api")
        await roles.watch()
        assert (await site.register())[0] == 201
        assert (await site.register(BEN, device={"platform": "apns", "token": OTHER_IPHONE, "app": APP}))[0] == 201
        await site.held(2)
        await roles.watch()
        await until(roles.shared, TAKEOVER)  # a watch that is handed over forgets a refusal that is on its way
        eas.add_mailbox(ANN, "a new one")
        site.deliver()
        await roles.until_stored("waiting", 1)
        before = len(eas.log(ANN))

        await roles.kill_owner(due=False)  # the wait of a minute goes on at the next
        assert (await roles.stored(), len(eas.log(ANN))) == (("waiting", 1), before)

        for tries, expected in ((1, ("waiting", 2)), (2, ("credential-refused", 3))):
            await roles.watch()
            await roles.kill_owner(due=True)
            await roles.until_stored(*expected)
            assert len(eas.log(ANN)) == before + tries

        await roles.watch()
        await roles.kill_owner(due=True)  # no try is due any more
        assert await roles.stored() == ("credential-refused", 3)

    assert len(eas.log(ANN)) == before + 2
    assert eas.records.refusals[ANN] == 3
    assert not eas.records.overlaps
