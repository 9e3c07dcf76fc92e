"""Mailboxes that a client certificate opens, over real TLS: demanded at once, or only when the path is known."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from eas_watcher.auth.certificate import CertificateCredential, read_pem
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import CredentialVoid, Unauthorized, Unreachable
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.transport.client_certificate import IdentifiedTransport, show_certificate
from eas_watcher.transport.http import HttpTransport, open_transport
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.fakes.certified_tls import serving_certified
from tests.integration.eas_world import ANN, ONE_MAIL, hurried, world
from tests.waiting import until

BEN = "ben@example.com"


def certificate(ca: ThrowAwayCa, user: str) -> CertificateCredential:
    return read_pem(user, ca.client_pem(user).decode(), "", now())


def identified(
    transport: HttpTransport, trusting: Callable[[], ssl.SSLContext], credential: CertificateCredential
) -> IdentifiedTransport:
    context = trusting()
    show_certificate(context, credential)
    return IdentifiedTransport(credential, transport.with_tls(context), now)


def options(url: str, credential: CertificateCredential) -> HttpRequest:
    return compose(Account(MailboxId("m"), url, credential.user, DeviceId("D1"), credential), Options(), None, None)


async def hold(transport: IdentifiedTransport, request: HttpRequest) -> HttpReply:
    answer: asyncio.Future[HttpReply | Exception] = asyncio.get_running_loop().create_future()
    await transport.hold(request, answer.set_result)
    result = await answer
    if isinstance(result, HttpReply):
        return result
    raise result


@asynccontextmanager
async def asking_at_once(ca: ThrowAwayCa) -> AsyncIterator[EasSimulator]:
    """Run a mail server that asks every client for a certificate, as Exchange does when it accepts them."""
    async with open_eas_simulator(tls=ca.server_context()) as eas:
        eas.identities.passwords, eas.identities.certificates = False, True
        for user in (ANN, BEN):
            eas.add_mailbox(user, "never used")
        yield eas


async def test_each_user_is_known_by_the_certificate_and_no_connection_is_shared() -> None:
    ca = ThrowAwayCa()
    async with asking_at_once(ca) as eas, open_transport(ca.client_context()) as transport:
        ann, ben = certificate(ca, ANN), certificate(ca, BEN)
        anns, bens = (identified(transport, ca.client_context, credential) for credential in (ann, ben))
        for _ in range(2):
            assert (await anns.send(options(eas.url, ann))).status == 200
            assert (await bens.send(options(eas.url, ben))).status == 200
        assert (await transport.send(options(eas.url, ann))).status == 401

        assert [len(eas.records.log(user)) for user in (ANN, BEN)] == [2, 2]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.both_loops
async def test_a_certificate_of_a_stranger_is_refused_in_words(version: ssl.TLSVersion) -> None:
    ca = ThrowAwayCa()
    served = ca.server_context()
    served.maximum_version = version
    with serving_certified(served) as server:
        async with open_transport(ca.client_context()) as transport:
            stranger = certificate(ThrowAwayCa("Somebody else's CA"), ANN)
            theirs = identified(transport, ca.client_context, stranger)
            with pytest.raises(Unauthorized, match=r"a CA that it does not trust \(TLS alert\)"):
                await theirs.send(options(server.url, stranger))
            with pytest.raises(Unauthorized, match=r"a CA that it does not trust \(TLS alert\)"):
                await hold(theirs, options(server.url, stranger))
    assert set(server.refused) == {"CERTIFICATE_VERIFY_FAILED"}
    assert not server.met


async def test_a_certificate_that_has_ended_is_not_even_shown() -> None:
    ca = ThrowAwayCa()
    async with asking_at_once(ca) as eas, open_transport(ca.client_context()) as transport:
        ann = certificate(ca, ANN)
        late = IdentifiedTransport(ann, transport, lambda: ann.valid_until + timedelta(seconds=1))

        with pytest.raises(CredentialVoid, match="expired on"):
            await late.send(options(eas.url, ann))
        with pytest.raises(CredentialVoid, match="expired on"):
            await hold(late, options(eas.url, ann))
        assert not eas.records.requests


@hurried
async def test_a_watch_with_a_certificate_tells_of_a_new_mail() -> None:
    ca = ThrowAwayCa()
    async with world(Policy()) as around, asking_at_once(ca) as eas, open_transport(ca.client_context()) as transport:
        ann = certificate(ca, ANN)
        account = Account(MailboxId("ann"), eas.url, ANN, DeviceId("Dann"), ann)
        memory = around.ann.memory(frozenset({CollectionClass.EMAIL}))
        around.fleet.start(account, identified(transport, ca.client_context, ann), memory, around.policy)
        await until(lambda: eas.held == 1)
        eas.deliver(ANN)
        await until(lambda: around.ann.changes == ONE_MAIL)
        await around.stop()
        assert not eas.complaints


async def test_a_server_may_ask_when_it_knows_the_path() -> None:
    ca = ThrowAwayCa()
    with serving_certified(ca.server_context(), late=True) as server:
        async with open_transport(ca.client_context()) as transport:
            ann = certificate(ca, ANN)
            anns = identified(transport, ca.client_context, ann)
            for _ in range(3):
                assert (await anns.send(options(server.url, ann))).status == 200
    assert server.met == [ANN] * 3


@pytest.mark.both_loops
async def test_a_late_refusal_is_read_as_one_of_the_certificate() -> None:
    ca = ThrowAwayCa()
    with serving_certified(ca.server_context(), late=True) as server:
        async with open_transport(ca.client_context()) as transport:
            stranger = certificate(ThrowAwayCa("Somebody else's CA"), ANN)
            theirs = identified(transport, ca.client_context, stranger)
            with pytest.raises(Unauthorized, match="TLS alert"):
                await theirs.send(options(server.url, stranger))
            with pytest.raises(Unauthorized, match="TLS alert"):
                await hold(theirs, options(server.url, stranger))
    assert set(server.refused) == {"CERTIFICATE_VERIFY_FAILED"}
    assert not server.met


async def test_whoever_has_no_certificate_is_not_served_late_either() -> None:
    ca = ThrowAwayCa()
    with serving_certified(ca.server_context(), late=True) as server:
        async with open_transport(ca.client_context()) as transport:
            with pytest.raises(Unreachable):
                await transport.send(options(server.url, certificate(ca, ANN)))
        assert not server.met
