"""How health and metrics of a process are asked for over HTTP, and what is said of a listener that does not answer."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from relay.http.listeners import open_listener
from relay.ops.app import create_ops_app
from relay.ops.health import Finding, Health, Part, PartState
from relay.ops.readings import ALIVE, READY, ask, probe
from tests.fakes.metrics import Bench
from tests.ports import free_port


@pytest.fixture(params=["127.0.0.1", "::1"])
async def listener(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    bench = Bench()
    await bench.fill()
    part = Part("database", lambda: Finding(PartState.FAILED, "is away", "start it"), essential=True)
    app = create_ops_app(Health([part], bench.clock), bench.metrics)
    async with open_listener(app, request.param, 0) as port:
        yield f"http://[{request.param}]:{port}" if ":" in request.param else f"http://{request.param}:{port}"


async def test_a_process_says_how_it_is(listener: str) -> None:
    reading = await asyncio.to_thread(ask, listener, 1.0)

    assert (reading.trouble, reading.state) == ("", PartState.FAILED)
    assert reading.total("relay_pings_held") == 1
    assert await asyncio.to_thread(probe, listener, ALIVE) == ""
    assert await asyncio.to_thread(probe, listener, READY) == "answers 503 to /readyz"


async def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert (await asyncio.to_thread(ask, url, 1.0)).trouble == "cannot be reached: Connection refused"
    assert await asyncio.to_thread(probe, url, ALIVE) == "cannot be reached: Connection refused"


async def test_somebody_else_listens() -> None:
    app = web.Application()
    app.router.add_get("/healthz", _hello)
    app.router.add_get("/metrics", _hello)
    async with open_listener(app, "127.0.0.1", 0) as port:
        reading = await asyncio.to_thread(ask, f"http://127.0.0.1:{port}", 1.0)

    assert reading.trouble == "answers, but not as a relay does"


async def _hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def test_a_listener_that_says_nothing_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        assert (await asyncio.to_thread(ask, url, 1.0, 0.05)).trouble == "gives no answer in time"


async def test_a_listener_that_speaks_no_http_is_named() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        assert (await asyncio.to_thread(ask, url, 1.0)).trouble == "answers, but not as HTTP"
