"""Requests with tickets over real TLS, against a server that ties each connection to its first user."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, Unreachable
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.negotiate import NegotiateTransport
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.failures import Cut, FailurePlan
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.fakes.tickets import FakeRealm
from tests.integration.eas_world import ANN, ONE_MAIL, hurried, hurry, world
from tests.waiting import until

BEN = "ben@example.com"


@dataclass
class Site:
    """A server that accepts tickets, and transports to it."""

    eas: EasSimulator
    realm: FakeRealm
    single_use: HttpTransport
    reusing: HttpTransport

    async def ask(self, user: str, transport: HttpTransport | None = None) -> HttpReply:
        transport_of_user = NegotiateTransport(transport or self.single_use, self.realm.tickets(user))
        return await transport_of_user.send(compose(account(self.eas, user), Options(), None, None))


def account(eas: EasSimulator, user: str) -> Account:
    name = user.partition("@")[0]
    return Account(MailboxId(name), eas.url, user, DeviceId(f"D{name}"), KerberosCredential(user, "signed"))


@asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    ca, realm = ThrowAwayCa(), FakeRealm()
    async with AsyncExitStack() as stack:
        eas = await stack.enter_async_context(open_eas_simulator(tls=ca.server_context()))
        for user in (ANN, BEN):
            eas.add_mailbox(user, "never used")
        identities = eas.identities
        identities.passwords, identities.persists, identities.ticket_of = False, True, realm.user_of
        single_use = await stack.enter_async_context(open_transport(ca.client_context(), reuse=False))
        reusing = await stack.enter_async_context(open_transport(ca.client_context()))
        yield Site(eas, realm, single_use, reusing)


def served(site: Site) -> dict[str, int]:
    """Return the number of answered requests of each user."""
    return {user: len(site.eas.records.log(user)) for user in (ANN, BEN)}


async def test_each_request_carries_a_token_of_its_own() -> None:
    async with open_site() as site:
        transport = NegotiateTransport(site.single_use, site.realm.tickets(ANN))
        for _ in range(3):
            reply = await transport.send(compose(account(site.eas, ANN), Options(), None, None))
            assert reply.status == 200

        assert len(set(site.eas.identities.tickets)) == 3
        assert site.realm.given == [(ANN, "HTTP@127.0.0.1")]


async def test_no_request_goes_over_a_connection_that_another_user_opened() -> None:
    async with open_site() as site:
        for user in (ANN, BEN, ANN, BEN):
            await site.ask(user)

        assert served(site) == {ANN: 2, BEN: 2}


async def test_a_stranger_is_never_taken_for_the_user_before() -> None:
    async with open_site() as site:
        await site.ask(ANN)

        assert (await site.single_use.send(compose(account(site.eas, BEN), Options(), None, None))).status == 401


async def test_the_server_of_these_tests_would_mix_users_up_on_a_kept_connection() -> None:
    async with open_site() as site:
        for user in (ANN, BEN):
            await site.ask(user, site.reusing)

        assert served(site) == {ANN: 2, BEN: 0}


async def test_a_ticket_for_a_key_that_has_changed_is_replaced_once() -> None:
    async with open_site() as site:
        transport = NegotiateTransport(site.single_use, site.realm.tickets(ANN))
        request = compose(account(site.eas, ANN), Options(), None, None)
        await transport.send(request)
        site.realm.key = 2

        assert (await transport.send(request)).status == 200
        assert len(site.eas.identities.tickets) == 3
        assert len(site.realm.given) == 2


async def test_a_fresh_ticket_that_is_refused_is_not_sent_again() -> None:
    async with open_site() as site:
        site.eas.identities.ticket_of = lambda _: None
        transport = NegotiateTransport(site.single_use, site.realm.tickets(ANN))

        with pytest.raises(AccessDenied, match="refuses the Kerberos ticket"):
            await transport.send(compose(account(site.eas, ANN), Options(), None, None))
        assert len(site.eas.identities.tickets) == 1


async def test_a_server_without_negotiate_is_named() -> None:
    async with open_site() as site:
        site.eas.identities.ticket_of, site.eas.identities.passwords = None, True

        with pytest.raises(AccessDenied, match="offers no Negotiate"):
            await site.ask(ANN)


async def test_without_a_ticket_nothing_is_sent() -> None:
    async with open_site() as site:
        site.realm.failure = AccessDenied("the relay may not act for this user", Reason.KERBEROS_DELEGATION)

        with pytest.raises(AccessDenied) as caught:
            await site.ask(ANN)
        assert caught.value.elsewhere
        assert not site.eas.identities.tickets


async def test_a_token_is_never_sent_twice_though_its_connection_broke() -> None:
    async with open_site() as site:
        site.eas.fail(ANN, FailurePlan(Cut(), "OPTIONS", times=2))

        with pytest.raises(Unreachable):
            await site.ask(ANN)
        assert len(site.eas.identities.tickets) == 1


@hurried
async def test_a_watch_with_tickets_tells_of_a_new_mail_and_of_what_the_kdc_refuses() -> None:
    realm = FakeRealm()
    async with world(Policy()) as eas, open_transport(eas.trusting, reuse=False) as single_use:
        identities = eas.simulator.identities
        identities.passwords, identities.persists, identities.ticket_of = False, True, realm.user_of
        transport = NegotiateTransport(single_use, realm.tickets(ANN))
        classes = frozenset({CollectionClass.EMAIL})
        eas.fleet.start(account(eas.simulator, ANN), transport, eas.ann.memory(classes), eas.policy)
        await eas.until_held()
        eas.simulator.deliver(ANN)
        await until(lambda: eas.ann.changes == ONE_MAIL)
        await eas.until_held(2)

        realm.failure = AccessDenied("the relay may not act for this user", Reason.KERBEROS_DELEGATION)
        eas.simulator.deliver(ANN)
        await until(lambda: eas.ann.conditions[-1].state is WatchState.BLOCKED)

        assert eas.ann.conditions[-1].reason == Reason.KERBEROS_DELEGATION
        assert len(set(identities.tickets)) == len(identities.tickets)


@hurried
async def test_a_server_that_refuses_tickets_is_shown_one_now_and_then_and_no_user_is_told() -> None:
    realm = FakeRealm()
    async with world(Policy()) as eas, open_transport(eas.trusting, reuse=False) as single_use:
        identities = eas.simulator.identities
        identities.passwords, identities.ticket_of = False, lambda _: None
        transport = NegotiateTransport(single_use, realm.tickets(ANN))
        classes = frozenset({CollectionClass.EMAIL})
        eas.fleet.start(account(eas.simulator, ANN), transport, eas.ann.memory(classes), eas.policy)
        for tries in range(1, 6):
            await until(lambda tries=tries: len(eas.ann.conditions) == tries)  # type: ignore[misc]
            condition = eas.ann.conditions[-1]
            assert (condition.state, condition.reason) == (WatchState.BLOCKED, Reason.KERBEROS_TICKET)
            assert len(identities.tickets) == tries
            hurry(condition.retry_in or 0.0)
        assert eas.ann.refusals == 0

        identities.ticket_of = realm.user_of
        hurry(1000.0)
        await eas.until_held()
