"""The number of transactions that one mail costs, from the Ping's answer until the relay is quiet again."""

from pathlib import Path
from random import Random

from relay.domain.model import Platform
from relay.process.clock import now
from relay.push.dispatch import Dispatcher
from relay.store.outbox import SqlOutboxStore
from relay.store.wakeups import LocalWakeups
from tests.integration.watch_role import ANN, open_watch_role
from tests.transactions import quiet, recorded, touching
from tests.unit.relay.push.dispatching import Provider, running
from tests.waiting import until


async def test_a_mail_for_an_iphone_costs_one_commit_one_claim_and_one_settlement(tmp_path: Path) -> None:
    wakeups = LocalWakeups()
    providers = {platform: Provider(0.0) for platform in Platform}
    async with open_watch_role(tmp_path, wakeups=wakeups) as role:
        store = SqlOutboxStore(role.engine, wakeups)
        dispatchers = [Dispatcher(store, p, providers[p], wakeups, now, Random(1), "node") for p in Platform]
        with recorded(role.engine) as committed:
            async with running(*dispatchers):
                await role.judged(await role.register("phone"))
                await until(lambda: role.eas.held == 1)
                await quiet(committed)
                committed.clear()

                role.eas.deliver(ANN)
                await until(lambda: providers[Platform.APNS].sent)
                await quiet(committed)

                # Leases, notes of Pings and the mailbox's condition are other transactions, which cause no push.
                commit, claim, settlement = touching(committed, "outbox")
    assert [len(each) for each in (commit, claim, settlement)] == [6, 2, 4]
    assert commit[-1].startswith("INSERT INTO outbox")
    assert claim[-1].startswith("UPDATE outbox SET claimed_by")
    assert settlement[-1].startswith("DELETE FROM outbox")
