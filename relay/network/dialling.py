"""Connections to providers: from the right address, through a proxy if there is one, within a time limit.

Every connection to a provider is made here, so nothing can bypass a proxy. The dialler behaves the same on asyncio and
uvloop.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

from eas_watcher.proxy.faults import proxy_timed_out
from eas_watcher.transport.connecting import connect_any, in_order
from eas_watcher.transport.lookups import Address, LookUp, LookupHangs, Lookups, look_up
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.tunnel import Tunnels, connect_over
from relay.network import faults
from relay.network.route import Route

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
        self._sources = Sources(route.sources)
        self._lookups = Lookups(look_up)
        self._tunnels = None if route.proxy is None else Tunnels(route.proxy, self._socket, self._find)

    async def connect(self, make: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None) -> P:
        """Return a protocol made by `make` that is connected to a host, over TLS unless `tls` is None.

        Raises NotConnected for faults of the proxy or the source address, OSError for all others, TimeoutError.
        """
        if self._tunnels is not None:
            return await self._through(self._tunnels, make, host, port, tls)
        async with asyncio.timeout(self._limit):
            return await connect_over(await self._socket(host, port), make, tls, host)

    async def _through(
        self, tunnels: Tunnels, make: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None
    ) -> P:
        ends = asyncio.get_running_loop().time() + self._limit
        tunnel = await tunnels.open(host, port, ends)
        try:
            if tls is not None:
                async with asyncio.timeout_at(ends):
                    await tunnel.secure(tls, host)
            protocol = make()
            tunnel.hand_over(protocol)
        except TimeoutError as error:
            tunnel.abort()
            raise proxy_timed_out(tunnels.proxy, "TLS through its tunnel") from error
        except BaseException:
            tunnel.abort()
            raise
        return protocol

    async def _socket(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of a host that answers, both kinds side by side [RFC 8305]."""
        found = [address for address in await self._find(host, port) if self._sources.serves(address[0])]
        if not found:
            raise faults.no_source(host, self._route.sources)
        return await connect_any(in_order(found, 0), self._make_socket)

    async def _find(self, host: str, port: int) -> list[Address]:
        try:
            return await self._lookups.find(host, port, self._limit * LOOKUP)
        except LookupHangs as error:
            raise faults.lookup_hangs(host) from error

    def _make_socket(self, family: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setblocking(False)  # noqa: FBT003 -- the socket module's signature
        try:
            self._sources.bind(sock)
        except OSError as error:
            sock.close()
            raise faults.source_unusable(error) from error
        return sock
