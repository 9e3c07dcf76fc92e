"""Connections to providers: from the right address, through a proxy if there is one, within a time limit.

Every connection to a provider is made here, so nothing can bypass a proxy. The dialler behaves the same on asyncio and
uvloop.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar, cast

from eas_watcher.transport.connecting import connect_any, in_order
from eas_watcher.transport.lookups import LookUp, LookupHangs, Lookups, look_up
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.tls import client_context, in_words, remedy_of
from relay.network import faults
from relay.network.http_connect import Answer, AnswerReader, NotHttp, request
from relay.network.route import Proxy, Route, authority

LIMIT: Final = 12.0
"""Seconds for a connection, TLS included; less than the limit of a push, so that a push ends with a named failure."""
LOOKUP: Final = 2 / 3
"""Share of the limit for the lookup of a name: a dead name server costs 5 s of it [resolv.conf(5)]."""

P = TypeVar("P", bound=asyncio.Protocol)


class Dialler:
    """The maker of all connections to one provider."""

    def __init__(self, route: Route, *, limit: float = LIMIT, look_up: LookUp = look_up) -> None:
        """Connect by a route, each time within `limit` seconds; `look_up` resolves names.

        Raises OSError when the CA file of the proxy cannot be read.
        """
        self._route = route
        self._limit = limit
        self._proxy_tls: ssl.SSLContext | None = None
        if route.proxy is not None and route.proxy.tls:
            self._proxy_tls = client_context(route.proxy.ca_file)
        self._sources = Sources(route.sources)
        self._lookups = Lookups(look_up)

    async def connect(self, make: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None) -> P:
        """Return a protocol made by `make` that is connected to a host, over TLS unless `tls` is None.

        Raises NotConnected for faults of the proxy or the source address, OSError for all others, TimeoutError.
        """
        if self._route.proxy is not None:
            return await self._through(self._route.proxy, make, host, port, tls)
        async with asyncio.timeout(self._limit):
            return await _start(make, await self._socket(host, port), tls, host)

    async def _through(
        self, proxy: Proxy, make: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None
    ) -> P:
        waited_for = "connection"
        tunnel: _Tunnel | None = None
        try:
            async with asyncio.timeout(self._limit):
                tunnel = await self._reach(proxy, request(proxy, host, port))
                waited_for = "answer to CONNECT"
                await _opened(proxy, tunnel, authority(host, port))
                waited_for = "TLS through its tunnel"
                return await tunnel.hand_over(make, tls, host)
        except BaseException as error:
            if tunnel is not None:
                tunnel.abort()
            if isinstance(error, TimeoutError):
                raise faults.proxy_timed_out(proxy, waited_for) from error
            raise

    async def _reach(self, proxy: Proxy, connect: bytes) -> "_Tunnel":
        """Connect to the proxy itself; raises NotConnected, and TimeoutError (an OSError) for the caller to name."""
        try:
            sock = await self._socket(proxy.host, proxy.port)
        except TimeoutError:
            raise
        except OSError as error:
            raise faults.proxy_away(proxy, error) from error
        try:
            return await _start(lambda: _Tunnel(connect), sock, self._proxy_tls, proxy.host)
        except ssl.SSLCertVerificationError as error:
            raise faults.proxy_not_trusted(proxy, error.verify_message, remedy_of(error)) from error
        except ssl.SSLError as error:
            raise faults.proxy_without_tls(proxy, in_words(error)) from error
        except TimeoutError:
            raise
        except OSError as error:
            raise faults.proxy_hangs_up(proxy) from error

    async def _socket(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of a host that answers, both kinds side by side [RFC 8305]."""
        try:
            found = await self._lookups.find(host, port, self._limit * LOOKUP)
        except LookupHangs as error:
            raise faults.lookup_hangs(host) from error
        found = [address for address in found if self._sources.serves(address[0])]
        if not found:
            raise faults.no_source(host, self._route.sources)
        return await connect_any(in_order(found, 0), self._make_socket)

    def _make_socket(self, family: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setblocking(False)  # noqa: FBT003 -- the socket module's signature
        try:
            self._sources.bind(sock)
        except OSError as error:
            sock.close()
            raise faults.source_unusable(error) from error
        return sock


class _Tunnel(asyncio.Protocol):
    """A connection to a proxy: it asks for a tunnel, then keeps its bytes until the real protocol takes over."""

    def __init__(self, connect: bytes) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._request = connect
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._early = b""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from it
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            self._early += data
            return
        try:
            answer = self._reader.feed(data)
        except NotHttp as error:
            self.answer.set_exception(error)
            return
        if answer is not None:
            self.answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed"))

    async def hand_over(self, make: Callable[[], P], tls: ssl.SSLContext | None, host: str) -> P:
        """Give the tunnel to a new protocol, over TLS with the host unless `tls` is None; raises OSError."""
        transport = self._transport
        if transport is not None and tls is not None and not self._ended:
            if self._early:
                raise ConnectionAbortedError("the tunnel speaks before it is spoken to")
            # A server may send bytes right after the handshake, before the new protocol is there; they are kept.
            loop = asyncio.get_running_loop()
            transport = self._transport = await loop.start_tls(transport, self, tls, server_hostname=host)
        if transport is None or self._ended or transport.is_closing():
            raise ConnectionResetError("closed while TLS was begun")
        protocol = make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._early:
            protocol.data_received(self._early)
        return protocol

    def abort(self) -> None:
        """Cut the connection to the proxy."""
        if self._transport is not None:
            self._transport.abort()


async def _opened(proxy: Proxy, tunnel: _Tunnel, target: str) -> None:
    """Wait until the proxy has opened the tunnel; raises NotConnected, and TimeoutError for the caller to name."""
    try:
        answer = await tunnel.answer
    except NotHttp as error:
        raise faults.proxy_not_http(proxy, str(error)) from error
    except TimeoutError:
        raise
    except OSError as error:
        raise faults.proxy_hangs_up(proxy) from error
    if not answer.opened:
        raise faults.proxy_refuses(proxy, target, answer.status, answer.schemes)


async def _start(make: Callable[[], P], sock: socket.socket, tls: ssl.SSLContext | None, host: str) -> P:
    """Return a protocol on a connected socket, over TLS unless `tls` is None; close the socket if that fails."""
    loop = asyncio.get_running_loop()
    try:
        _, protocol = await loop.create_connection(make, sock=sock, ssl=tls, server_hostname=host if tls else None)
    except BaseException:
        sock.close()
        raise
    return protocol
