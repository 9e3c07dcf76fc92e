"""Tunnels through a proxy, to mail servers and providers alike.

A tunnel leaves nothing behind: the protocol that uses it takes the transport over, so a held Ping costs no more memory
through a proxy that is reached without TLS than without one.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar, cast

from eas_watcher.errors import Unreachable
from eas_watcher.proxy import faults, http_connect, socks5
from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy, Send, Talk
from eas_watcher.reasons import Reason
from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.lookups import Address
from eas_watcher.transport.target import Endpoint
from eas_watcher.transport.tls import client_context, in_words, remedy_of

MOST_ADDRESSES: Final = 4  # of a name that the relay looks up, which are tried through a SOCKS5 proxy
UNREAD: Final = 131_072  # octets from a proxy that wait to be read; its answers have a few hundred
GOODBYE: Final = 1.0  # seconds that the end of TLS with the proxy may take

P = TypeVar("P", bound=asyncio.Protocol)
Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Returns a socket that is connected to a host and port; raises OSError."""
Find = Callable[[str, int], Awaitable[list[Address]]]
"""Returns the addresses of a host, at least one; raises OSError."""


class Negotiation(Protocol):
    """The tokens of Negotiate for one tunnel."""

    async def answer(self, challenge: bytes) -> bytes:
        """Return the token after a challenge, which is empty at first; empty: none follows. Raises NotConnected."""


class Tunnels:
    """Opens tunnels through one proxy."""

    def __init__(self, proxy: Proxy, dial: Dial, find: Find) -> None:
        """Connect to the proxy by `dial`; `find` looks up what the proxy is not to look up.

        Raises OSError when the CA file of the proxy cannot be read.
        """
        self.proxy = proxy
        self._dial = dial
        self._find = find
        self._tls = client_context(proxy.ca_file) if proxy.tls else None
        self._tickets: Callable[[], Negotiation] | None = None
        if proxy.negotiates:
            from eas_watcher.transport.kerberos import ProxyTickets  # noqa: PLC0415 -- needs the optional extra

            self._tickets = ProxyTickets(proxy).begin

    async def open(self, host: str, port: int, ends: float) -> "Tunnel":
        """Return a tunnel to a host; `ends` is a moment of the loop.

        Raises NotConnected.
        """
        waited = ["connection"]
        try:
            async with asyncio.timeout_at(ends):
                return await self._open(host, port, waited)
        except TimeoutError as error:
            raise faults.proxy_timed_out(self.proxy, waited[-1]) from error

    async def _open(self, host: str, port: int, waited: list[str]) -> "Tunnel":
        hosts = [host]
        if self.proxy.speaks == "socks5":
            hosts = [str(where[0]) for _, where in await self._found(host, port)]
        while True:
            try:
                return await self._admitted(hosts.pop(0), port, waited)
            except NotConnected as error:
                if error.reason != faults.CANNOT_REACH or not hosts:
                    raise

    async def _found(self, host: str, port: int) -> list[Address]:
        try:
            return (await self._find(host, port))[:MOST_ADDRESSES]
        except (NotConnected, TimeoutError):
            raise
        except OSError as error:
            raise faults.target_not_found(self.proxy, host, error) from error

    async def _admitted(self, host: str, port: int, waited: list[str]) -> "Tunnel":
        """Open a tunnel as soon as the credential may be shown to the proxy."""
        proxy, loop = self.proxy, asyncio.get_running_loop()
        if not proxy.authenticates:
            return await self._through(host, port, waited)
        refusals = proxy.refusals
        while (seconds := refusals.wait(loop.time())) or not refusals.begin():
            if seconds:
                raise faults.proxy_withheld(proxy, seconds)
            known: asyncio.Future[None] = loop.create_future()
            refusals.when_known(partial(_settle, known))
            await known
        accepted: bool | None = None
        try:
            tunnel = await self._through(host, port, waited)
            accepted = True
        except NotConnected as error:
            accepted = False if error.reason == faults.REFUSED else None
            raise
        finally:
            refusals.end(loop.time(), accepted=accepted)
        return tunnel

    async def _through(self, host: str, port: int, waited: list[str]) -> "Tunnel":
        proxy = self.proxy
        waited.append("connection")
        tunnel = await self._reach()
        try:
            waited.append("answer to SOCKS5" if proxy.speaks != "http" else "answer to CONNECT")
            await self._talk(tunnel, (http_connect if proxy.speaks == "http" else socks5).connect(proxy, host, port))
            tunnel.opened()
        except OSError as error:
            tunnel.abort()
            if isinstance(error, (NotConnected, TimeoutError)):
                raise
            raise faults.proxy_hangs_up(proxy) from error
        except BaseException:
            tunnel.abort()
            raise
        return tunnel

    async def _talk(self, tunnel: "Tunnel", talk: Talk) -> None:
        """Say what a talk wants to be said, until the tunnel is open."""
        negotiation = None if self._tickets is None else self._tickets()
        try:
            step = next(talk)
            while True:
                if isinstance(step, Send):
                    step = talk.send(await tunnel.ask(step.data))
                else:
                    step = talk.send(b"" if negotiation is None else await negotiation.answer(step.challenge))
        except StopIteration:
            return

    async def _reach(self) -> "Tunnel":
        """Connect to the proxy itself; raises NotConnected, and TimeoutError (an OSError) for the caller to name."""
        proxy = self.proxy
        try:
            sock = await self._dial(proxy.host, proxy.port)
        except (NotConnected, TimeoutError):
            raise
        except OSError as error:
            raise faults.proxy_away(proxy, error, name_unknown=isinstance(error, socket.gaierror)) from error
        try:
            return await connect_over(sock, Tunnel, self._tls, proxy.host)
        except ssl.SSLCertVerificationError as error:
            raise faults.proxy_not_trusted(proxy, error.verify_message, remedy_of(error)) from error
        except ssl.SSLError as error:
            raise faults.proxy_without_tls(proxy, in_words(error)) from error
        except TimeoutError:
            raise
        except OSError as error:
            raise faults.proxy_hangs_up(proxy) from error


class Tunnel(asyncio.Protocol):
    """A connection to a proxy, until a protocol takes it over."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = b""
        self._more: asyncio.Future[None] | None = None
        self._ended: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from it

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._came += data
        if len(self._came) > UNREAD:
            self.abort()
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection."""
        self._ended = exc or ConnectionResetError("closed")
        self._settle()

    async def ask(self, data: bytes) -> bytes:
        """Send bytes, and return what came since the last call, never empty; raises OSError."""
        if data and self._transport is not None:
            self._transport.write(data)
        while not self._came:
            if self._ended is not None:
                raise ConnectionResetError("closed") from self._ended
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        came, self._came = self._came, b""
        return came

    def opened(self) -> None:
        """Read no more until a protocol takes over; raises OSError if the connection has ended."""
        transport = self._there()
        if self._came:
            raise ConnectionAbortedError("the tunnel speaks before it is spoken to")
        transport.pause_reading()

    async def secure(self, tls: ssl.SSLContext, host: str) -> None:
        """Begin TLS with the server in the event loop's way; raises OSError."""
        loop = asyncio.get_running_loop()
        # A server may send bytes right after the handshake, before the new protocol is there; they are kept.
        self._transport = await loop.start_tls(self._there(), self, tls, server_hostname=host)

    @property
    def agreed(self) -> ssl.SSLObject:
        """What TLS with the server agreed on, after `secure`."""
        return cast("ssl.SSLObject", self._there().get_extra_info("ssl_object"))

    def hand_over(self, protocol: asyncio.Protocol | asyncio.BufferedProtocol) -> None:
        """Let a protocol take the connection over; raises OSError if it has ended."""
        transport = self._there()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._came and isinstance(protocol, asyncio.Protocol):
            protocol.data_received(self._came)
        transport.resume_reading()

    def _there(self) -> asyncio.Transport:
        if self._transport is None or self._ended is not None or self._transport.is_closing():
            raise ConnectionResetError("the tunnel is closed")
        return self._transport

    def abort(self) -> None:
        """Cut the connection to the proxy."""
        if self._transport is not None:
            self._transport.abort()

    def _settle(self) -> None:
        if self._more is not None:
            _settle(self._more)


def tunnels_over(proxy: Proxy, connector: Connector) -> Tunnels:
    """Return tunnels through a proxy that `connector` connects to."""
    return Tunnels(
        proxy,
        lambda host, port: connector.connect(Endpoint(host, port)),
        lambda host, port: connector.addresses(Endpoint(host, port)),
    )


def through_no_proxy(fault: NotConnected) -> Unreachable:
    """Return the fault of a proxy as the error of a request to a mail server, with the reason that says whose it is."""
    reason = Reason.PROXY_REFUSES if fault.lasting else Reason.PROXY_AWAY
    if fault.reason in {faults.CANNOT_REACH, faults.NOT_FOUND}:
        reason = Reason.UNREACHABLE
    return Unreachable(f"{fault.reason}: {fault.remedy}", reached=False, reason=reason)


async def connect_over(sock: socket.socket, make: Callable[[], P], tls: ssl.SSLContext | None, host: str) -> P:
    """Return a protocol on a connected socket, over TLS unless `tls` is None; close the socket if that fails."""
    loop = asyncio.get_running_loop()
    goodbye = None if tls is None else GOODBYE
    try:
        _, protocol = await loop.create_connection(
            make, sock=sock, ssl=tls, server_hostname=host if tls else None, ssl_shutdown_timeout=goodbye
        )
    except BaseException:
        sock.close()
        raise
    return protocol


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
