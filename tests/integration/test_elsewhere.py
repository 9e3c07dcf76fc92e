"""Mailboxes that are on another server than the configured one, over TLS: redirects and Autodiscover."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Memory, Partnership, WatchState
from eas_watcher.machine.remedies import HOPELESS
from eas_watcher.machine.state import RATE, Policy
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.http import open_transport
from relay.domain.model import RegistrationState
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from relay.watch.accounts import EasServer
from relay.watch.discovery import Discovery
from tests.fakes.eas import MemoryJournal
from tests.integration.eas_world import ANN, PASSWORD, hurried, hurry
from tests.integration.watch_role import PASSWORD as ROLE_PASSWORD
from tests.integration.watch_role import WatchRole, open_watch_role
from tests.unit.eas_watcher.running import Middle
from tests.waiting import until

LOCAL = "ann@localhost"
MAILBOX = MailboxId("ann")


@dataclass
class TwoServers:
    """Two servers that know ann; her watch starts at the first one."""

    first: EasSimulator
    second: EasSimulator
    journal: MemoryJournal
    fleet: Fleet
    admissions: Admissions
    transport: Transport

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset({host_and_port(self.first.url) or "", host_and_port(self.second.url) or ""})

    def start(self, *, follow: bool = True) -> None:
        hosts = self.hosts if follow else frozenset[str]()
        account = Account(MAILBOX, self.first.url, ANN, DeviceId("Dann"), BasicCredential(ANN, PASSWORD))
        memory = Memory(self.journal.partnership, tuple(self.journal.collections.values()))
        self.fleet.start(account, self.transport, memory, Policy(hosts=hosts))

    def start_discovered(self) -> None:
        """Watch a mailbox that Autodiscover found at the first server; at the second it would find another."""
        hosts = self.hosts | {url.replace("127.0.0.1", "localhost") for url in self.hosts}
        account = Account(MAILBOX, "", LOCAL, DeviceId("Dann"), BasicCredential(LOCAL, PASSWORD))
        memory = Memory(Partnership(url=self.first.url))
        policy = Policy(hosts=hosts, discovered=True)
        self.fleet.start(
            account, self.transport, memory, policy, Discovery(self.transport, hosts, self.admissions, RATE).watches
        )

    def know_nothing(self, server: EasSimulator) -> None:
        """Let a server know no mailbox any more: neither version of Autodiscover finds one."""
        for command in ("Autodiscover-v2", "Autodiscover"):
            server.fail(None, FailurePlan(AnswerHttp(404), command, 99))

    def asked(self, command: str) -> int:
        return self.first.records.requests[command] + self.second.records.requests[command]

    def send_on(self, times: int = 1, command: str | None = None) -> None:
        there = AnswerHttp(451, {"X-MS-Location": f"{self.second.url}?User=ann&Cmd=Sync"})
        self.first.fail(None, FailurePlan(there, command, times))


class Noting(HoldsInTask):
    """A transport that notes the cookies of each request."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.cookies: list[tuple[str, str]] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.cookies.append((request.url, request.headers.get("Cookie", "")))
        return await self._inner.send(request)


@asynccontextmanager
async def two_servers(*, reuse: bool = True) -> AsyncIterator[TwoServers]:
    """Open both; without `reuse`, no test finds a kept connection closed after it put the time forward past its end."""
    ca = ThrowAwayCa()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_eas_simulator(tls=ca.server_context()))
        second = await stack.enter_async_context(open_eas_simulator(tls=ca.server_context()))
        for server in (first, second):
            server.add_mailbox(ANN, PASSWORD)
            server.add_mailbox(LOCAL, PASSWORD)
        transport = await stack.enter_async_context(open_transport(ca.client_context(), reuse=reuse))
        journal = MemoryJournal()
        broken: list[MailboxId] = []
        admissions = Admissions(8, Middle(), now)
        fleet = Fleet(WatchContext(journal, Middle(), admissions), broken.append)
        stack.push_async_callback(fleet.stop_all)
        yield TwoServers(first, second, journal, fleet, admissions, transport)
        assert not broken
        assert not first.records.overlaps + second.records.overlaps
        assert not first.complaints  # the second does not know the keys of the first, and says so


async def test_a_mailbox_that_moved_is_watched_where_it_is_and_stays_there() -> None:
    async with two_servers() as world:
        world.start()
        await until(lambda: world.first.held == 1)

        world.send_on(command="Sync")
        world.first.deliver(ANN)
        await until(lambda: world.second.held == 1)
        assert world.journal.partnership.url == world.second.url
        world.second.deliver(ANN)
        await until(lambda: any(change.cls is CollectionClass.EMAIL for change in world.journal.changes))
        await until(lambda: world.second.held == 1)

        asked = sum(world.first.records.requests.values())
        await world.fleet.stop(MAILBOX)
        world.start()
        await until(lambda: world.second.records.requests["Ping"] > 1 and world.second.held == 1)
        assert sum(world.first.records.requests.values()) == asked


async def test_the_cookies_of_one_host_are_not_for_another() -> None:
    async with two_servers() as world:
        world.start()
        await until(lambda: world.first.held == 1)
        await world.fleet.stop(MAILBOX)
        world.transport = noting = Noting(world.transport)
        world.start()
        await until(lambda: world.first.held == 1 and any(cookie for _, cookie in noting.cookies))

        world.send_on(command="Sync")
        world.first.deliver(ANN)
        await until(lambda: world.second.held == 1)

        assert next(cookie for url, cookie in noting.cookies if url.startswith(world.second.url)) == ""


def test_a_mailbox_is_never_sent_to_a_host_that_nobody_named() -> None:
    @hurried
    async def scenario() -> None:
        async with two_servers() as world:
            world.send_on(times=2)
            world.start(follow=False)
            await until(lambda: world.journal.condition is not None)

            condition = world.journal.condition
            assert condition is not None
            assert (condition.state, condition.reason) == (WatchState.WAITING, "redirected")
            assert (host_and_port(world.second.url) or "x") in condition.detail
            hurry(3500)
            assert world.first.records.requests["OPTIONS"] == 1
            hurry(800)
            await until(lambda: world.first.records.requests["OPTIONS"] == 2)
            assert not world.second.records.requests

    scenario()


def test_two_servers_that_send_a_mailbox_to_each_other_get_a_rest() -> None:
    @hurried
    async def scenario() -> None:
        async with two_servers() as world:
            back = AnswerHttp(451, {"X-MS-Location": world.first.url})
            world.send_on(times=99)
            world.second.fail(None, FailurePlan(back, None, 99))
            world.start()
            await until(lambda: world.journal.condition is not None)

            assert world.journal.condition is not None
            assert world.journal.condition.reason == "redirected"
            assert sum(world.first.records.requests.values()) + sum(world.second.records.requests.values()) == 4

    scenario()


# --- Autodiscover


def discovering(*names: str) -> Callable[[Transport, EasSimulator], Mapping[str, EasServer]]:
    def more(transport: Transport, eas: EasSimulator) -> dict[str, EasServer]:
        hosts = frozenset(f"{name}:{eas.port}" for name in names)
        policy = Policy(hosts=hosts, discovered=True)
        discovery = Discovery(transport, hosts, Admissions(8, Middle(), now), RATE)
        return {"autodiscover": EasServer("", transport, policy, discovery=discovery)}

    return more


@pytest.fixture
async def role(tmp_path: Path) -> AsyncIterator[WatchRole]:
    async with open_watch_role(tmp_path, discovering("localhost", "127.0.0.1")) as opened:
        opened.eas.add_mailbox(LOCAL, ROLE_PASSWORD)
        yield opened


async def test_a_mailbox_of_a_domain_without_a_server_is_discovered_and_watched(role: WatchRole) -> None:
    view = await role.judged(await role.register("first", server="autodiscover", user=LOCAL))

    assert view.registration.state is RegistrationState.ACTIVE
    await until(lambda: role.eas.held == 1)
    assert await url_of(role, view.mailbox.id) == role.eas.url
    assert (role.requests("Autodiscover-v2"), role.requests("Autodiscover")) == (1, 0)


async def test_a_server_that_knows_version_1_only_is_asked_with_the_credential(role: WatchRole) -> None:
    role.eas.fail(None, FailurePlan(AnswerHttp(404), "Autodiscover-v2"))

    await role.judged(await role.register("first", server="autodiscover", user=LOCAL))

    await until(lambda: role.eas.held == 1)
    assert role.requests("Autodiscover") == 1


async def test_a_password_that_autodiscover_refuses_is_tried_once(role: WatchRole) -> None:
    role.eas.fail(None, FailurePlan(AnswerHttp(404), "Autodiscover-v2"))

    view = await role.judged(await role.register("first", "wrong", server="autodiscover", user=LOCAL))

    assert view.registration.state is RegistrationState.REFUSED
    assert role.eas.records.refusals[LOCAL] == 1
    assert role.requests("OPTIONS") == 0


async def test_a_known_mailbox_is_not_discovered_again(role: WatchRole) -> None:
    await role.judged(await role.register("first", server="autodiscover", user=LOCAL))
    await until(lambda: role.eas.held == 1)

    refused = await role.judged(await role.register("second", "wrong", server="autodiscover", user=LOCAL))

    assert refused.registration.state is RegistrationState.REFUSED
    assert role.requests("Autodiscover-v2") == 1
    assert role.eas.records.refusals[LOCAL] == 1


async def test_no_credential_goes_where_autodiscover_is_not_allowed_to_lead(tmp_path: Path) -> None:
    async with open_watch_role(tmp_path, discovering("localhost")) as role:
        role.eas.add_mailbox(LOCAL, ROLE_PASSWORD)  # at 127.0.0.1, as both versions say

        id_ = await role.register("first", server="autodiscover", user=LOCAL)
        mailbox = (await role.seen(id_, lambda view: view.mailbox.reason is Reason.AUTODISCOVER)).mailbox

        assert mailbox.state is WatchState.VERIFYING
        assert f"127.0.0.1:{role.eas.port}, which the settings do not allow" in mailbox.detail
        assert role.requests("OPTIONS") == 0


# --- searched again


async def url_of(role: WatchRole, mailbox: MailboxId) -> str | None:
    """Return the URL at which a mailbox was found."""
    record = await role.store.record(mailbox, now())
    assert record is not None
    return record.memory.partnership.url


def moved(role: WatchRole) -> str:
    """Let Autodiscover name another URL of the same server from now on; return it."""
    url = role.eas.url.replace("127.0.0.1", "localhost")
    answer = json.dumps({"Protocol": "ActiveSync", "Url": url})
    role.eas.fail(None, FailurePlan(AnswerHttp(200, {}, answer), "Autodiscover-v2", 99))
    return url


@pytest.mark.parametrize("status", [404, 451])
async def test_a_discovered_mailbox_whose_server_is_gone_goes_on_where_it_is_found(
    role: WatchRole, status: int
) -> None:
    view = await role.judged(await role.register("first", server="autodiscover", user=LOCAL))
    await until(lambda: role.eas.held == 1)
    url = moved(role)

    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(status), "Sync"))
    role.eas.deliver(LOCAL)

    await until(lambda: role.stats.changes[CollectionClass.EMAIL] == 1)
    await until(lambda: role.eas.held == 1)
    assert await url_of(role, view.mailbox.id) == url
    assert (role.requests("Autodiscover-v2"), role.requests("Autodiscover")) == (2, 0)


async def test_a_discovered_mailbox_that_is_nowhere_else_waits_and_says_that_it_was_looked_for(
    role: WatchRole,
) -> None:
    id_ = await role.register("first", server="autodiscover", user=LOCAL)
    await until(lambda: role.eas.held == 1)

    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(404), "Sync", 99))
    role.eas.deliver(LOCAL)

    mailbox = await role.blocked(id_)
    assert mailbox.reason == "http-404"
    assert mailbox.detail.endswith("(HTTP 404); looked for elsewhere: Autodiscover names the same URL")
    assert role.requests("Autodiscover-v2") == 2


async def test_autodiscover_sees_no_credential_of_an_account_without_a_try(role: WatchRole) -> None:
    role.eas.fail(None, FailurePlan(AnswerHttp(404), "Autodiscover-v2", 99))  # so it asks with the credential
    id_ = await role.register("first", "wrong 1", server="autodiscover", user=LOCAL)
    assert (await role.judged(id_)).registration.state is RegistrationState.REFUSED
    id_ = await role.register("second", "wrong 2", server="autodiscover", user=LOCAL)
    assert (await role.judged(id_)).registration.state is RegistrationState.REFUSED

    id_ = await role.register("third", "wrong 3", server="autodiscover", user=LOCAL)
    view = await role.seen(id_, lambda view: "could lock" in view.mailbox.detail or not view.candidate_pending)

    assert view.candidate_pending
    assert (role.requests("Autodiscover"), role.eas.records.refusals[LOCAL]) == (2, 2)


async def test_a_new_credential_is_shown_where_the_mailbox_is_now(role: WatchRole) -> None:
    await role.judged(await role.register("first", server="autodiscover", user=LOCAL))
    await until(lambda: role.eas.held == 1)
    url = moved(role)
    role.eas.add_mailbox(LOCAL, "another")  # replaces the password

    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(404), "OPTIONS"))
    view = await role.judged(await role.register("second", "another", server="autodiscover", user=LOCAL))

    assert view.registration.state is RegistrationState.ACTIVE
    assert await url_of(role, view.mailbox.id) == url
    assert role.eas.records.refusals[LOCAL] == 1  # the old password, to see whether it is void


async def test_a_search_for_the_watch_keeps_no_new_credential_from_being_proved(role: WatchRole) -> None:
    id_ = await role.register("first", server="autodiscover", user=LOCAL)
    await until(lambda: role.eas.held == 1)
    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(404), "Sync", 99))
    role.eas.deliver(LOCAL)
    await role.blocked(id_)  # the last search is recent, and found no other URL

    url = moved(role)
    role.eas.add_mailbox(LOCAL, "another")  # replaces the password
    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(404), "OPTIONS"))
    view = await role.judged(await role.register("second", "another", server="autodiscover", user=LOCAL))

    assert view.registration.state is RegistrationState.ACTIVE
    assert await url_of(role, view.mailbox.id) == url


async def test_a_mailbox_of_a_configured_server_is_never_looked_for(role: WatchRole) -> None:
    id_ = await role.register("first", user=LOCAL)
    await until(lambda: role.eas.held == 1)

    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(404), "Sync", 99))
    role.eas.deliver(LOCAL)

    assert "looked for" not in (await role.blocked(id_)).detail
    assert (role.requests("Autodiscover-v2"), role.requests("Autodiscover")) == (0, 0)


async def test_a_mailbox_is_never_looked_for_at_a_host_that_nobody_named(role: WatchRole) -> None:
    id_ = await role.register("first", server="autodiscover", user=LOCAL)
    await until(lambda: role.eas.held == 1)
    foreign = json.dumps({"Protocol": "ActiveSync", "Url": "https://mail.example.com"})
    role.eas.fail(None, FailurePlan(AnswerHttp(200, {}, foreign), "Autodiscover-v2", 99))

    role.eas.fail(LOCAL, FailurePlan(AnswerHttp(404), "Sync", 99))
    role.eas.deliver(LOCAL)

    mailbox = await role.blocked(id_)
    assert "Autodiscover leads to mail.example.com, which the settings do not allow" in mailbox.detail


def test_a_mailbox_whose_old_server_refuses_everybody_is_found_without_another_try_of_the_credential() -> None:
    @hurried
    async def scenario() -> None:
        async with two_servers(reuse=False) as world:
            world.know_nothing(world.first)
            world.start_discovered()
            await until(lambda: world.first.held == 1)
            await world.fleet.stop(MAILBOX)
            world.first.fail(None, FailurePlan(AnswerHttp(401), "OPTIONS", 99))
            world.start_discovered()
            for tries, seconds in ((2, 70), (3, 1000)):
                await until(lambda tries=tries: world.first.records.requests["OPTIONS"] == tries)  # type: ignore[misc]
                await until(lambda tries=tries: world.journal.refusals == tries - 1)  # type: ignore[misc]
                assert world.asked("Autodiscover-v2") == 0
                hurry(seconds)

            await until(lambda: world.second.held == 1)

            assert world.first.records.requests["OPTIONS"] == 1 + 3
            assert world.journal.refusals == 0
            assert world.asked("Autodiscover") == 0

    scenario()


def test_a_mailbox_whose_old_server_is_broken_for_good_is_found() -> None:
    @hurried
    async def scenario() -> None:
        async with two_servers(reuse=False) as world:
            world.know_nothing(world.first)
            world.first.fail(None, FailurePlan(AnswerHttp(500), "OPTIONS", 99))
            world.start_discovered()
            for tries in range(1, HOPELESS + 1):
                await until(lambda tries=tries: len(world.journal.commits) == tries)  # type: ignore[misc]
                assert world.asked("Autodiscover-v2") == 0
                hurry(1000)

            await until(lambda: world.second.held == 1)

            assert world.first.records.requests["OPTIONS"] == HOPELESS + 1

    scenario()


def test_a_mailbox_that_is_refused_and_found_nowhere_is_doubtful_after_its_third_try() -> None:
    @hurried
    async def scenario() -> None:
        async with two_servers(reuse=False) as world:
            world.know_nothing(world.first)
            world.know_nothing(world.second)
            world.first.fail(None, FailurePlan(AnswerHttp(401), "OPTIONS", 99))
            world.start_discovered()
            for tries, seconds in ((1, 70), (2, 1000)):
                await until(lambda tries=tries: world.journal.refusals == tries)  # type: ignore[misc]
                hurry(seconds)

            await until(lambda: world.journal.refusals == 3)

            condition = world.journal.condition
            assert condition is not None
            assert (condition.state, condition.reason) == (WatchState.WAITING, "http-401-doubtful")
            assert "looked for elsewhere: Autodiscover tells nothing without the credential" in condition.detail
            assert world.asked("OPTIONS") in {3, 4}, "the fourth looks at the server, without the credential"
            assert world.asked("Autodiscover") == 0

    scenario()
