"""TCP connections to a host: its addresses, in which order they are tried, and the options of the sockets."""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from eas_watcher.places import Places
from eas_watcher.transport.lookups import Address, LookUp, Lookups, look_up_usable
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.target import Endpoint

REMEMBERED: Final = 60.0  # seconds that the addresses of a host are used before DNS is asked again
LOOKUP: Final = 12.0
"""Seconds for a name; less than those of a connection, so that a silent name server is named. A dead one costs 5 s of
them [resolv.conf(5)]."""
STAGGER: Final = 0.25  # seconds until the next address is tried beside one that does not answer [RFC 8305 8]
AT_ONCE: Final = 100
"""Connections to one endpoint that are made at the same time: a fleet that returns must not exhaust its server, and a
handshake costs this host about a millisecond."""
TCP_IDLE, TCP_INTERVAL, TCP_PROBES = 60, 15, 4  # seconds, seconds, count: a dead peer is noticed after two minutes
UNACKNOWLEDGED: Final = (TCP_IDLE + TCP_INTERVAL * TCP_PROBES) * 1000
"""Milliseconds that sent bytes may stay unacknowledged: a request into a dead connection waits no longer [RFC 5482].

Linux lets it end unanswered probes too [tcp(7)]: less time than all of them take would make one lost probe the last.
"""

KEPT_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, int(getattr(socket, option)), value)
        for option, value in (
            ("TCP_KEEPIDLE", TCP_IDLE),
            ("TCP_KEEPINTVL", TCP_INTERVAL),
            ("TCP_KEEPCNT", TCP_PROBES),
            ("TCP_USER_TIMEOUT", UNACKNOWLEDGED),
        )
        if hasattr(socket, option)
    ),
)
"""The options of a socket, as far as this host has them: level, option, value."""


class Host:
    """The addresses of one endpoint, and how many connections to it are being made."""

    __slots__ = ("addresses", "slots", "turn", "until")

    def __init__(self) -> None:
        """Know none yet."""
        self.addresses: list[Address] = []
        self.until = 0.0  # loop.time()
        self.turn = 0
        self.slots = Places(AT_ONCE)


class Connector:
    """Makes TCP connections, from the source addresses in turn."""

    def __init__(self, sources: Sources, look_up: LookUp = look_up_usable) -> None:
        """Look names up with `look_up`, each at the first connection to it."""
        self._sources = sources
        self._lookups = Lookups(look_up)
        self._hosts: dict[Endpoint, Host] = {}

    def slot(self, endpoint: Endpoint) -> Places:
        """Return what to hold while a connection to an endpoint is made."""
        return self._host(endpoint).slots

    async def close(self) -> None:
        """Ask no more."""
        await self._lookups.close()

    async def connect(self, endpoint: Endpoint) -> socket.socket:
        """Return a connected socket; raises OSError, that of the first address if none takes the connection.

        Servers with several addresses get connections in turn. An address that does not answer soon is not waited for:
        the next one is tried beside it [RFC 8305].
        """
        return await connect_any(await self.addresses(endpoint), self._make_socket)

    async def addresses(self, endpoint: Endpoint) -> list[Address]:
        """Return the addresses of a host, the one whose turn it is first; raises OSError."""
        loop = asyncio.get_running_loop()
        known = self._host(endpoint)
        if known.until <= loop.time():
            known.addresses = await self._lookups.find(endpoint.host, endpoint.port, LOOKUP)
            known.until = loop.time() + REMEMBERED
        known.turn = (known.turn + 1) % len(known.addresses)
        return in_order(known.addresses, known.turn)

    def _host(self, endpoint: Endpoint) -> Host:
        known = self._hosts.get(endpoint)
        if known is None:
            known = self._hosts[endpoint] = Host()
        return known

    def _make_socket(self, family: int) -> socket.socket:
        sock = kept_alive_socket(family)
        try:
            self._sources.bind(sock)
        except BaseException:
            sock.close()
            raise
        return sock


async def connect_any(addresses: Sequence[Address], make_socket: Callable[[int], socket.socket]) -> socket.socket:
    """Return a socket that is connected to one of the addresses; `make_socket` makes one of an address family.

    The first address is tried first; one that does not answer soon is not waited for: the next one is tried beside it
    [RFC 8305]. Raises OSError, that of the first address if none takes the connection.
    """
    if len(addresses) == 1:
        return await _attempt(addresses[0], make_socket)
    loop = asyncio.get_running_loop()
    left = deque(addresses)
    attempts: list[asyncio.Task[socket.socket]] = []
    running: set[asyncio.Task[socket.socket]] = set()
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None and (left or running):
            if left:
                attempts.append(loop.create_task(_attempt(left.popleft(), make_socket), name="connect"))
                running.add(attempts[-1])
            _, running = await asyncio.wait(
                running, timeout=STAGGER if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((each for each in attempts if _succeeded(each)), None)
    finally:
        for each in attempts:
            each.cancel()
        await asyncio.wait(attempts)
        for each in attempts:
            if each is not winner and _succeeded(each):
                each.result().close()
    if winner is not None:
        return winner.result()
    raise next(error for each in attempts if (error := each.exception()) is not None)


async def connect_socket(sock: socket.socket, where: tuple[Any, ...]) -> None:
    """Connect a socket that does not block to an address, which is numeric; raises OSError.

    `loop.sock_connect` would look the address up first, on uvloop in a thread that a silent name server may hold.
    """
    failed = sock.connect_ex(where)
    if failed == errno.EINPROGRESS:
        loop, number = asyncio.get_running_loop(), sock.fileno()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(number, _settle, writable)
        try:
            await writable
        finally:
            loop.remove_writer(number)
        failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))


def in_order(addresses: Sequence[Address], turn: int) -> list[Address]:
    """Return addresses from the one whose turn it is, both kinds (IPv4, IPv6) alternating [RFC 8305 4]."""
    if len(addresses) == 1:
        return list(addresses)
    turned = [*addresses[turn:], *addresses[:turn]]
    first = [each for each in turned if each[0] == turned[0][0]]
    others = [each for each in turned if each[0] != turned[0][0]]
    ordered: list[Address] = []
    while first or others:
        ordered += first[:1] + others[:1]
        del first[:1], others[:1]
    return ordered


def kept_alive_socket(family: int) -> socket.socket:
    """Return a socket that notices when the peer vanishes without a word, as often happens during a long hold."""
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setblocking(False)  # noqa: FBT003 -- the socket module's signature
    for level, option, value in KEPT_ALIVE:
        sock.setsockopt(level, option, value)
    return sock


def _succeeded(attempt: "asyncio.Task[socket.socket]") -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None


async def _attempt(address: Address, make_socket: Callable[[int], socket.socket]) -> socket.socket:
    family, where = address
    sock = make_socket(family)
    try:
        await connect_socket(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _settle(writable: "asyncio.Future[None]") -> None:
    if not writable.done():
        writable.set_result(None)
