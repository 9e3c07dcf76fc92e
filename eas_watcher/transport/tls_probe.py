"""A probe of a server's TLS: connections without a request."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from eas_watcher.errors import Unreachable
from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.http2_pool import ALPN, HTTP_1_1, HTTP_2
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.tls import in_words
from eas_watcher.transport.tunnel import through_no_proxy, tunnels_over

PATIENCE: Final = 20.0  # seconds for TCP and TLS


@dataclass(frozen=True, slots=True)
class Handshake:
    """The result of a TLS handshake."""

    version: str
    """In OpenSSL's spelling, e.g. "TLSv1.3"."""
    valid_until: datetime | None
    """The expiry of the server's certificate (aware UTC); None: unknown."""
    flaw: str = ""
    """Why newer software does not trust the certificate or its CA, in OpenSSL's words; empty: it does."""
    http2: bool = False
    """True if the server chose HTTP/2, which the client offered."""


async def shake_hands(
    host: str, port: int, tls: ssl.SSLContext, strict: ssl.SSLContext | None = None, proxy: Proxy | None = None
) -> Handshake:
    """Make a TLS handshake that offers HTTP/2, and one with `strict`, which checks the form of certificates too.

    Raises Unreachable, which says what is wrong with the certificate, if the first one fails.
    """
    found = await _shake_hands(host, port, tls, proxy)
    if strict is None:
        return found
    try:
        await _shake_hands(host, port, strict, proxy)
    except Unreachable as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return replace(found, flaw=error.__cause__.verify_message)
    return found


async def _shake_hands(host: str, port: int, tls: ssl.SSLContext, proxy: Proxy | None) -> Handshake:
    tls.set_alpn_protocols(ALPN)
    try:
        async with asyncio.timeout(PATIENCE):
            return await (_direct(host, port, tls) if proxy is None else _through(proxy, host, port, tls))
    except TimeoutError as error:
        raise Unreachable("no connection in time", reached=False) from error
    except NotConnected as error:
        raise through_no_proxy(error) from error
    except ssl.SSLError as error:
        raise Unreachable(in_words(error), reached=False) from error
    except OSError as error:
        raise Unreachable(f"no connection: {error.strerror or type(error).__name__}", reached=False) from error
    finally:
        tls.set_alpn_protocols([HTTP_1_1])  # for other users of the context, who speak nothing else


async def _direct(host: str, port: int, tls: ssl.SSLContext) -> Handshake:
    _, writer = await asyncio.open_connection(host, port, ssl=tls)
    found = _read(writer.get_extra_info("ssl_object"))
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return found


async def _through(proxy: Proxy, host: str, port: int, tls: ssl.SSLContext) -> Handshake:
    connector = Connector(Sources(()))
    tunnel = await tunnels_over(proxy, connector).open(host, port, asyncio.get_running_loop().time() + PATIENCE)
    try:
        await tunnel.secure(tls, host)
        return _read(tunnel.agreed)
    finally:
        tunnel.abort()
        await connector.close()


def _read(agreed: ssl.SSLObject) -> Handshake:
    version, certificate = agreed.version() or "TLS", agreed.getpeercert() or {}
    until = certificate.get("notAfter")
    valid_until = datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC) if isinstance(until, str) else None
    return Handshake(version, valid_until, http2=agreed.selected_alpn_protocol() == HTTP_2)
