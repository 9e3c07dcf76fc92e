"""Administrators and the watch role: what is ordered in the store happens to real watches."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.admin.audit import AuditKey, Stamp
from relay.admin.values import Done, NotDone, Order
from relay.domain.model import RegistrationState
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from relay.store.administration import SqlAdminStore
from relay.store.wakeups import LocalWakeups
from tests.integration.watch_role import ANN, MAILBOX, WatchRole, open_watch_role
from tests.waiting import until


class Site:
    """A watch role, and the administrator beside it."""

    def __init__(self, role: WatchRole, wakeups: LocalWakeups) -> None:
        self.role = role
        self.admin = SqlAdminStore(role.database, wakeups)

    async def order(self, order: Order) -> Done | NotDone | None:
        return await self.admin.order(MAILBOX, order, self.stamp)

    async def maintain(self, *, on: bool) -> None:
        assert isinstance(await self.admin.maintain("main", self.stamp, on=on), Done)

    @property
    def stamp(self) -> Stamp:
        return Stamp("cleo", "cli", now(), (AuditKey(b"k" * 32),))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    wakeups = LocalWakeups()
    async with open_watch_role(tmp_path, wakeups=wakeups) as role:
        yield Site(role, wakeups)


async def test_a_pause_lets_the_ping_go_and_a_resume_holds_it_again(site: Site) -> None:
    phone = await site.role.judged(await site.role.register("first"))
    await until(lambda: site.role.eas.held == 1)

    await site.order(Order.PAUSE)
    await until(lambda: MAILBOX not in site.role.fleet and site.role.eas.held == 0)
    asked = site.role.requests("Ping")
    site.role.eas.deliver(ANN)
    assert (await site.role.view(phone.registration.id)).mailbox.state is WatchState.PAUSED

    await site.order(Order.RESUME)

    await until(lambda: site.role.eas.held == 1)
    assert site.role.requests("Ping") > asked
    assert sum(site.role.stats.changes.values()) == 1, "the mail that came meanwhile is told"


async def test_a_pause_outlives_a_restart(tmp_path: Path) -> None:
    async with open_watch_role(tmp_path) as role:
        key = (tmp_path / "sealing.pem").read_bytes()
        await role.judged(await role.register("first"))
        await until(lambda: role.eas.held == 1)
        await Site(role, LocalWakeups()).order(Order.PAUSE)

    wakeups = LocalWakeups()
    async with open_watch_role(tmp_path, key=key, wakeups=wakeups) as role:
        await until(lambda: role.mailboxes.shards == 256)
        assert role.eas.held == 0
        assert sum(role.eas.records.requests.values()) == 0


async def test_a_phone_that_registers_for_a_paused_mailbox_waits_for_the_resume(site: Site) -> None:
    await site.role.judged(await site.role.register("first"))
    await until(lambda: site.role.eas.held == 1)
    await site.order(Order.PAUSE)
    await until(lambda: site.role.eas.held == 0)
    asked = sum(site.role.eas.records.requests.values())

    second = await site.role.register("second")
    await site.role.seen(second, lambda view: view.candidate_pending)
    assert sum(site.role.eas.records.requests.values()) == asked

    await site.order(Order.RESUME)

    assert (await site.role.judged(second)).registration.state is RegistrationState.ACTIVE


async def test_a_retry_asks_the_server_before_its_time(site: Site) -> None:
    id_ = (await site.role.judged(await site.role.register("first"))).registration.id
    await until(lambda: site.role.eas.held == 1)
    site.role.eas.fail(ANN, FailurePlan(AnswerHttp(403), times=100))
    site.role.eas.deliver(ANN)
    await site.role.blocked(id_)
    site.role.eas.failures.clear()

    assert isinstance(await site.order(Order.RETRY), Done)

    await until(lambda: site.role.eas.held == 1)


async def test_maintenance_lets_all_pings_of_a_server_go_and_brings_them_back(site: Site) -> None:
    id_ = (await site.role.judged(await site.role.register("first"))).registration.id
    await until(lambda: site.role.eas.held == 1)

    await site.maintain(on=True)
    await until(lambda: site.role.eas.held == 0)
    asked = sum(site.role.eas.records.requests.values())
    mailbox = (await site.role.view(id_)).mailbox
    assert (mailbox.state, mailbox.reason) == (WatchState.WAITING, Reason.MAINTENANCE)
    assert sum(site.role.eas.records.requests.values()) == asked

    await site.maintain(on=False)

    await until(lambda: site.role.eas.held == 1)


async def test_a_forgotten_user_has_no_ping_and_no_row(site: Site) -> None:
    await site.role.judged(await site.role.register("first"))
    await until(lambda: site.role.eas.held == 1)

    await site.order(Order.FORGET)

    await until(lambda: site.role.eas.held == 0)

    async def gone() -> bool:
        return await site.admin.known([MAILBOX]) == frozenset()

    await until(gone)
    assert MAILBOX not in site.role.fleet


async def test_the_order_of_pause_and_resume_does_not_matter_to_the_one_ping(site: Site) -> None:
    await site.role.judged(await site.role.register("first"))
    await until(lambda: site.role.eas.held == 1)

    for order in (Order.PAUSE, Order.RESUME) * 5:
        await site.order(order)
        await asyncio.sleep(0)

    async def watched() -> bool:
        return site.role.eas.held == 1 and MAILBOX in site.role.fleet

    await until(watched)
