"""Own how the relay listens: one aiohttp site per listener, closed with its block."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

GOODBYE: Final = 10.0  # seconds that requests under way may take when the relay stops; a verdict is waited for shorter


@asynccontextmanager
async def open_listener(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve an application until the block ends; give the port, which matters when `port` is 0. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Make a server's TLS context of PEM files, TLS 1.2 and newer."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context
