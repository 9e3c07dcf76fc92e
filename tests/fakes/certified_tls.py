"""A server that demands a client certificate: in the handshake, or only once it knows the path.

IIS does the latter where certificates are wanted for some paths only, by TLS 1.3 after the handshake [RFC 8446 4.6.2].
Unlike a server of asyncio it sends the client the reason for which it ends the connection.
"""

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PATIENCE = 20.0  # seconds for one message
ANSWER = b"HTTP/1.1 200 OK\r\nMS-ASProtocolVersions: 14.1\r\nContent-Length: 0\r\n\r\n"


@dataclass
class CertifiedServer:
    """Where the server listens, and its clients: the UID of each request's certificate, empty without one."""

    port: int
    met: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """How the requests with an invalid certificate ended."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/Microsoft-Server-ActiveSync"


@contextmanager
def serving_certified(context: ssl.SSLContext, *, late: bool = False) -> Iterator[CertifiedServer]:
    """Serve connections one after the other, in a thread: the ssl module asks late on blocking sockets only."""
    if late:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = late
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = CertifiedServer(listener.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(listener, context, server), name="certified server")
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def _serve(listener: socket.socket, context: ssl.SSLContext, server: CertifiedServer) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return  # the test is over
        plain.settimeout(PATIENCE)
        with (
            plain.dup() as spare,
            suppress(ConnectionError, TimeoutError),
            context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as connection,
        ):
            try:
                connection.do_handshake()
                _talk(connection, server, late=context.post_handshake_auth)
            except ssl.SSLError as error:
                server.refused.append(error.reason)
                _linger(spare)


def _linger(plain: socket.socket) -> None:
    """Wait until the client closes: a reset for bytes that it sent could overtake the reason of the refusal."""
    plain.settimeout(PATIENCE)
    plain.shutdown(socket.SHUT_WR)
    while plain.recv(4096):
        pass


def _talk(connection: ssl.SSLSocket, server: CertifiedServer, *, late: bool) -> None:
    """Answer requests until the client closes; a connection is asked late for its certificate once."""
    while _read_head(connection):
        if late:
            _ask(connection)
            late = False
        subject = (connection.getpeercert() or {}).get("subject", ())
        names = dict(pair for entry in subject if isinstance(entry, tuple) for pair in entry if isinstance(pair, tuple))
        server.met.append(str(names.get("userId", "")))
        connection.sendall(ANSWER)


def _ask(connection: ssl.SSLSocket) -> None:
    """Ask for the certificate and wait for it; raises SSLError when it is missing or invalid."""
    connection.verify_client_post_handshake()
    connection.do_handshake()  # sends the question
    connection.settimeout(0.0)
    try:
        while connection.getpeercert() is None:
            readable, _, _ = select.select([connection], [], [], PATIENCE)
            if not readable:
                raise TimeoutError
            with suppress(ssl.SSLWantReadError):
                connection.read(1)
    finally:
        connection.settimeout(PATIENCE)


def _read_head(connection: ssl.SSLSocket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octets = connection.recv(4096)
        if not octets:
            return b""
        head += octets
    return head
