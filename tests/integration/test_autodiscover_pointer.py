"""The last question of Autodiscover, over sockets: it has no TLS, so its answer may only choose among allowed hosts."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from socket import AF_INET, SOCK_STREAM, socket

import pytest
from aiohttp import web

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.machine.state import RATE
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.http import open_transport
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from relay.watch.discovery import Discovery
from tests.integration.eas_world import ANN, PASSWORD

NAMED = "autodiscover.example.com"
PATH = "/autodiscover/autodiscover.xml"


class Resolving(HoldsInTask):
    """A transport that sends requests for NAMED to loopback: no server at the TLS port, the pointer at the other."""

    def __init__(self, inner: Transport, tls: str, plain: str) -> None:
        self._inner = inner
        self._tls = tls
        self._plain = plain

    async def send(self, request: HttpRequest) -> HttpReply:
        url = request.url.replace(f"https://{NAMED}/", self._tls).replace(f"http://{NAMED}/", self._plain)
        return await self._inner.send(replace(request, url=url))


class Pointer:
    """A server that redirects every request, and keeps it."""

    def __init__(self) -> None:
        self.location = ""
        self.requests: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.Response(status=302, headers={"Location": self.location})


@dataclass
class Domain:
    """A domain without a host for Autodiscover of its own, and the mail server that it points to."""

    eas: EasSimulator
    pointer: Pointer
    transport: Transport

    async def find(self, host: str) -> str:
        account = Account(MailboxId("ann"), "", ANN, DeviceId("Dann"), BasicCredential(ANN, PASSWORD))
        admissions = Admissions(8, Random(1), now)
        return await Discovery(self.transport, frozenset({NAMED, host}), admissions, RATE).find(account)


@pytest.fixture
async def domain() -> AsyncIterator[Domain]:
    ca = ThrowAwayCa()
    async with AsyncExitStack() as stack:
        eas = await stack.enter_async_context(open_eas_simulator(tls=ca.server_context()))
        eas.add_mailbox(ANN, PASSWORD)
        closed = stack.enter_context(socket(AF_INET, SOCK_STREAM))
        closed.bind(("127.0.0.1", 0))  # reserved, and no process listens on it
        pointer = Pointer()
        plain = await stack.enter_async_context(serving_plainly(pointer))
        inner = await stack.enter_async_context(open_transport(ca.client_context()))
        yield Domain(eas, pointer, Resolving(inner, f"https://127.0.0.1:{closed.getsockname()[1]}/", plain))
        assert not eas.complaints


@asynccontextmanager
async def serving_plainly(pointer: Pointer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pointer.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_plain_redirect_to_an_allowed_host_leads_to_the_mailbox(domain: Domain) -> None:
    host = host_and_port(domain.eas.url) or ""
    domain.pointer.location = f"https://{host}{PATH}"

    assert await domain.find(host) == domain.eas.url

    [asked] = domain.pointer.requests
    assert (asked.method, asked.path) == ("GET", PATH)
    assert "Authorization" not in asked.headers
    assert domain.eas.records.requests["Autodiscover"] == 1


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_plain_redirect_to_anywhere_else_is_not_followed(domain: Domain, scheme: str) -> None:
    host = host_and_port(domain.eas.url) or ""
    foreign = host.replace("127.0.0.1", "localhost") if scheme == "https" else host
    domain.pointer.location = f"{scheme}://{foreign}{PATH}"

    with pytest.raises(Unreachable):
        await domain.find(host)

    assert len(domain.pointer.requests) == 1
    assert not domain.eas.records.requests
