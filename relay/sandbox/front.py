"""A reverse proxy before the API of a relay on this machine, over plain HTTP: browsers trust `localhost` as it is.

A service worker needs a secure context [W3C: Secure Contexts 3.1], and browsers do not take the certificate of the
sandbox unless somebody installs its CA.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from eas_watcher.transport.tls import client_context
from relay.http.kinds import Kind
from relay.http.listeners import open_listener
from relay.http.problems import document

OF_A_CONNECTION: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
    }
)
"""Headers that are not passed on [RFC 9110 7.6.1]; bodies are, decoded and with a length of their own."""
AWAY: Final = Kind(HTTPStatus.BAD_GATEWAY, "unreachable", "The relay does not run")
LARGEST: Final = 64 * 1024  # bytes of a request's body


@asynccontextmanager
async def open_front(relay: str, ca: Path, port: int) -> AsyncIterator[int]:
    """Pass requests on to a relay, whose URL is given, until the block ends; yield the port, which is on loopback."""
    timeout = aiohttp.ClientTimeout(total=70)  # a registration may wait 60 seconds for the mail server
    connector = aiohttp.TCPConnector(ssl=client_context(ca))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            headers = [(name, value) for name, value in request.headers.items() if name.lower() not in OF_A_CONNECTION]
            try:
                async with session.request(
                    request.method,
                    f"{relay}{request.raw_path}",
                    headers=headers,
                    data=await request.read(),
                    allow_redirects=False,
                ) as answer:
                    response = web.Response(status=answer.status, body=await answer.read())
                    for name, value in answer.headers.items():
                        if name.lower() not in OF_A_CONNECTION:
                            response.headers[name] = value
                    return response
            except (aiohttp.ClientError, TimeoutError):
                return document(AWAY, "start it: `relay serve --config sandbox/relay.toml`")

        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{path:.*}", forward)
        async with open_listener(app, "127.0.0.1", port) as taken:
            yield taken
