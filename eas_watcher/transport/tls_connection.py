"""Connections to servers: TCP, TLS over it, and a receiver that gets what comes.

TLS runs through two memory buffers of OpenSSL's (ssl.MemoryBIO) instead of the event loop's own TLS, and all
connections read into one buffer: a connection that waits holds no buffer of its own. A held Ping costs half the memory
so, and a resumed session saves the server's certificates besides (`sessions.py`).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from errno import ECONNABORTED
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar, cast

from eas_watcher.errors import Unreachable
from eas_watcher.proxy.faults import NotConnected
from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.sessions import Sessions
from eas_watcher.transport.target import Endpoint
from eas_watcher.transport.tls import in_words
from eas_watcher.transport.tunnel import Tunnel, Tunnels, through_no_proxy

CONNECT: Final = 20.0  # seconds for DNS, TCP and TLS
TUNNEL: Final = 15.0
"""Seconds of these for a tunnel through a proxy: a proxy that hangs is named, and not taken for the mail server."""
GOODBYE: Final = 0.05
"""Seconds that an ended connection waits for the server to end it too: the next Ping may come at once."""
LINGER: Final = 5.0  # seconds that a last word to a server which does not read may wait
READ: Final = 65_536  # octets that are read at once
FEED: Final = 4096
"""Octets that OpenSSL gets at once: its buffer for them grows to the largest piece and never shrinks."""
RECORD: Final = 16_384  # octets in a TLS record at most [RFC 8446 5.1]
UNSENT: Final = 1_048_576  # octets that wait for a server which reads nothing; requests have a few thousand
UNPRODUCTIVE: Final = 262_144
"""Octets of TLS that may come without data between them: handshakes, tickets, new keys. A chain of certificates has up
to 20,000; each renegotiation costs as much CPU as a connection."""

R = TypeVar("R", bound="Receiver")


class Receiver(Protocol):
    """What handles the bytes of a connection."""

    def received(self, data: bytes) -> None:
        """Take what came, never empty."""

    def lost(self, error: Exception | None) -> None:
        """Note that the connection has ended, though nobody here ended it; None: the server ended it in order.

        Called once at most, and never after `close`, `abort` or `leave`.
        """


class Reading:
    """The buffer into which all connections of a process read: what came is used before the next read."""

    __slots__ = ("view",)

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ))


class Connection(asyncio.BufferedProtocol):
    """What connections with and without TLS have in common."""

    __slots__ = ("_leaving", "_reading", "_receiver", "_transport")

    alpn: str | None = None
    """The protocol that both sides agreed on in the TLS handshake; None: none, so HTTP/1.1."""
    _unwritten = b""
    """Data that waits for TLS."""

    def __init__(self, reading: Reading) -> None:
        """Make the protocol of a socket."""
        self._reading = reading
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._leaving: asyncio.Future[None] | None = None

    def begin(self, receiver: Receiver) -> None:
        """Hand everything to `receiver` from now on."""
        self._receiver = receiver

    @property
    def open(self) -> bool:
        """True until either side has ended the connection."""
        return self._receiver is not None

    @property
    def unsent(self) -> int:
        """How many octets the server has not taken yet."""
        unsent = len(self._unwritten)
        return unsent if self._transport is None else unsent + self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send data; what is written to a connection that has ended is dropped."""
        if self._transport is None or self._receiver is None:
            return
        self._transport.write(data)
        if self.unsent > UNSENT:
            self._fail(ConnectionAbortedError("the server reads nothing"))

    def close(self) -> None:
        """End the connection in order and at once, without a call of `lost`."""
        self._receiver = None
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # a server that reads nothing would keep the connection
            return
        self._say_goodbye()
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once, without a call of `lost` and without a word to the server."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    async def leave(self) -> None:
        """End the connection in order; return when the server has ended it too, or some milliseconds later."""
        self._receiver = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._say_goodbye()
        if transport.can_write_eof():  # TLS to a proxy cannot
            transport.write_eof()
        loop = asyncio.get_running_loop()
        self._leaving = loop.create_future()
        timer = loop.call_later(GOODBYE, transport.abort)
        try:
            await self._leaving
        finally:
            timer.cancel()
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's signature
        """Return the buffer of all connections."""
        return self._reading.view

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what came."""
        if self._receiver is not None:
            self._receiver.received(bytes(self._reading.view[:nbytes]))

    def eof_received(self) -> None:
        """Note that the server has ended the connection."""
        self._finish()
        self.end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop all references, so that no cycle of them stays."""
        self._transport = None
        self.end(exc)
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(None)
        self._leaving = None

    def end(self, error: Exception | None) -> None:
        """Tell the receiver, once, that the connection has ended."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(error)

    def _fail(self, error: Exception) -> None:
        """End a connection that is of no use any more."""
        if self._transport is not None:
            self._transport.abort()
        self.end(error)

    def _finish(self) -> None:
        """Close a connection that the server has ended; one that still does not read would keep the socket for ever."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
            self._transport.close()

    def _say_goodbye(self) -> None:
        """Send what TLS says before the end."""


class PlainConnection(Connection):
    """A connection without TLS."""

    __slots__ = ("_made",)

    def __init__(self, reading: Reading, made: Callable[[Connection], None]) -> None:
        """Call `made` before the first byte comes."""
        super().__init__(reading)
        self._made: Callable[[Connection], None] | None = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to receive."""
        super().connection_made(transport)
        made, self._made = self._made, None
        if made is not None:
            made(self)


class Dialling(NamedTuple):
    """Who waits for a handshake."""

    made: Callable[[Connection], None]
    failed: Callable[[Exception], None]
    keep: Callable[[ssl.SSLObject], None]
    """Keeps the session of a full handshake."""


class TlsConnection(Connection):
    """A connection with TLS."""

    __slots__ = ("_dialling", "_incoming", "_keep", "_outgoing", "_tls", "_unproductive", "_unwritten", "alpn")

    def __init__(
        self, reading: Reading, tls: ssl.SSLContext, host: str, session: ssl.SSLSession | None, dialling: Dialling
    ) -> None:
        """Prepare a handshake; the server's certificate must have the name `host`."""
        super().__init__(reading)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = tls.wrap_bio(
            # As bytes: Python would apply IDNA to a text, which takes long.
            self._incoming,
            self._outgoing,
            server_hostname=host.encode("ascii"),
            session=session,
        )
        self._dialling: Dialling | None = dialling
        """None: the handshake is over."""
        self._keep: Callable[[ssl.SSLObject], None] | None = None
        """What keeps the session, until data has come after a full handshake."""
        self._unwritten = b""
        """Data that waits for the end of a renegotiation."""
        self._unproductive = 0
        self.alpn: str | None = None

    def write(self, data: bytes) -> None:
        """Send data; what is written to a connection that has ended is dropped."""
        if self._receiver is None:
            return
        self._unwritten += data
        self._encrypt()
        if self.unsent > UNSENT:
            self._fail(ConnectionAbortedError("the server reads nothing"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        super().connection_made(transport)
        self._advance()

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt what came, and hand it on."""
        for at in range(0, nbytes, FEED):
            if self._receiver is None and self._dialling is None:
                return
            self._unproductive += self._incoming.write(self._reading.view[at : min(at + FEED, nbytes)])
            if self._unproductive > UNPRODUCTIVE:
                self._fail(ConnectionAbortedError("the server sends TLS without data"))
                return
            self._advance()

    def eof_received(self) -> None:
        """Note the end of the server's bytes; HTTP says whether an answer was whole, for many servers end TLS so."""
        if self._dialling is not None:
            self._incoming.write_eof()
            self._advance()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free what OpenSSL holds."""
        self._tls = self._keep = None
        super().connection_lost(exc)

    def _advance(self) -> None:
        """Let OpenSSL work on what came, and send what it has to say."""
        if self._tls is None:
            return
        try:
            if self._dialling is not None:
                self._tls.do_handshake()
                self._established(self._tls, self._dialling)
            while self._receiver is not None and (tls := self._readable()) is not None:
                data = tls.read(RECORD)
                self._flush()
                if not data:
                    self._ended_by_server()
                    return
                self._unproductive = 0
                if self._keep is not None:
                    self._keep(tls)
                    self._keep = None
                self._receiver.received(data)
            if self._unwritten:
                self._encrypt()
        except ssl.SSLWantReadError:
            self._flush()
            if self._unwritten or self._unproductive:
                self._encrypt()
        except ssl.SSLError as error:
            self._flush()  # the alert that tells the server why
            self._fail(error)

    def _readable(self) -> ssl.SSLObject | None:
        """Return the TLS state while it has something to decrypt or to hand on; None: a read would raise an error.

        Such an error takes longer than most records.
        """
        tls = self._tls
        return tls if tls is not None and (self._incoming.pending or tls.pending()) else None

    def _established(self, tls: ssl.SSLObject, dialling: Dialling) -> None:
        """Hand the connection over; the end of the handshake leaves with the first request, if that comes at once."""
        self._dialling = None
        self._unproductive = 0
        self.alpn = tls.selected_alpn_protocol()
        if not tls.session_reused:
            self._keep = dialling.keep
        dialling.made(self)
        asyncio.get_running_loop().call_soon(self._flush)  # behind the task that waits for the connection

    def _encrypt(self) -> None:
        """Send what waits, as far as TLS allows it now.

        To write nothing sends nothing; it makes OpenSSL free the 16 KiB in which it would have answered a ticket.
        """
        data = self._unwritten
        try:
            while self._tls is not None:
                data = data[self._tls.write(data) :]
                self._flush()
                if not data:
                    break
        except ssl.SSLWantReadError:
            self._flush()  # a renegotiation is under way: the rest goes out after it
        except ssl.SSLError as error:
            self._flush()
            self._unwritten = b""
            self._fail(error)
            return
        self._unwritten = data

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())

    def _fail(self, error: Exception) -> None:
        """Close once all is sent that is to be: the server may learn the reason from an alert."""
        if self._transport is not None:
            if isinstance(error, ssl.SSLError):
                self._transport.close()
                asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
            else:
                self._transport.abort()
        self.end(error)

    def end(self, error: Exception | None) -> None:
        """Tell who waits for the handshake, or the receiver."""
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.failed(error or ConnectionAbortedError(ECONNABORTED, "closed during the handshake"))
        super().end(error)

    def _ended_by_server(self) -> None:
        self._say_goodbye()
        self._finish()
        self.end(None)

    def _say_goodbye(self) -> None:
        if self._tls is not None and self._dialling is None:
            with suppress(ssl.SSLError):  # "want read": the server's goodbye has not come
                self._tls.unwrap()
            self._flush()


class Dialler:
    """Makes the connections of one TLS identity: whom it trusts, and which client certificate it shows if any."""

    def __init__(
        self, tls: ssl.SSLContext, connector: Connector, reading: Reading, tunnels: Tunnels | None = None
    ) -> None:
        """Connect through `connector`, or by `tunnels` that do; no session of another context or route is resumed."""
        self._tls = tls
        self._connector = connector
        self._reading = reading
        self._tunnels = tunnels
        self._sessions = Sessions(lambda: asyncio.get_running_loop().time())

    def with_tls(self, tls: ssl.SSLContext) -> "Dialler":
        """Return a dialler of another TLS identity to the same network."""
        return Dialler(tls, self._connector, self._reading, self._tunnels)

    async def dial(self, endpoint: Endpoint, make: Callable[[Connection], R], *, secure: bool = True) -> R:
        """Connect, and return the receiver that `make` returned for the connection, which has begun to receive.

        Raises Unreachable, which is certain not to have reached the server. Not `secure`: without TLS.
        """
        async with self._connector.slot(endpoint):
            try:
                async with asyncio.timeout(CONNECT):
                    return await self._dial(endpoint, make, secure)
            except TimeoutError as error:
                raise Unreachable("no connection in time", reached=False) from error
            except NotConnected as error:
                raise through_no_proxy(error) from error
            except OSError as error:
                raise Unreachable(f"no connection: {describe(error)}", reached=False) from error

    async def _dial(self, endpoint: Endpoint, make: Callable[[Connection], R], secure: bool) -> R:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[R] = loop.create_future()

        def made(connection: Connection) -> None:
            if ended.done():
                connection.abort()
                return
            receiver = make(connection)
            connection.begin(receiver)
            ended.set_result(receiver)

        def failed(error: Exception) -> None:
            self._sessions.forget(endpoint)
            if not ended.done():
                ended.set_exception(error)

        way = await self._way(endpoint)
        connection: Connection = PlainConnection(self._reading, made)
        try:
            if secure:
                dialling = Dialling(made, failed, partial(self._sessions.keep, endpoint))
                session = self._sessions.get(endpoint)
                connection = TlsConnection(self._reading, self._tls, endpoint.host, session, dialling)
            if isinstance(way, socket.socket):
                await loop.create_connection(lambda: connection, sock=way)
            else:
                way.hand_over(connection)
            return await ended
        except BaseException as error:
            ended.cancel()  # nobody waits for it any more
            connection.end(ConnectionAbortedError(str(error)))  # a receiver that was made, but not returned
            connection.abort()
            if isinstance(way, socket.socket):
                way.close()
            else:
                way.abort()
            raise

    async def _way(self, endpoint: Endpoint) -> socket.socket | Tunnel:
        """Return what leads to an endpoint: a socket, or a tunnel through the proxy; raises OSError."""
        if self._tunnels is None:
            return await self._connector.connect(endpoint)
        ends = asyncio.get_running_loop().time() + TUNNEL
        return await self._tunnels.open(endpoint.host, endpoint.port, ends)


def describe(error: OSError) -> str:
    """Return the text of an error of the network or of TLS, without addresses that change."""
    if isinstance(error, ssl.SSLError):
        return in_words(error)
    return error.strerror or type(error).__name__
