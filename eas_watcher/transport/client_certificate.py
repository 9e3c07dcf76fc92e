"""Own connections that a client certificate identifies: one TLS context per mailbox, the session of its server.

Connections are pooled by context, so no mailbox ever speaks on another one's. A server may ask late: TLS 1.3
post-handshake authentication is answered, since it is switched on here; TLS 1.2 renegotiation is answered by OpenSSL
unless the host's configuration forbids it [observed: OpenSSL 3.0, asyncio and uvloop, 2026-11].
"""

import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from eas_watcher.auth.certificate import CertificateCredential, refusal_in
from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import Unauthorized, Unreachable
from eas_watcher.ports import Transport


class IdentifiedTransport:
    """Carry the requests of one mailbox over connections of its own."""

    __slots__ = ("_credential", "_now", "_transport")

    def __init__(self, credential: CertificateCredential, transport: Transport, now: Callable[[], datetime]) -> None:
        """Take the certificate and a transport whose connections show it."""
        self._credential = credential
        self._transport = transport
        self._now = now

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any answer; raises CredentialVoid once the certificate has ended, Unauthorized when TLS refuses it."""
        self._credential.check_validity(self._now())
        try:
            return await self._transport.send(request)
        except Unreachable as error:
            why = next((found for text in _words(error) if (found := refusal_in(text)) is not None), None)
            if why is None:
                raise
            raise Unauthorized(f"the server refuses the client certificate: it {why} (TLS alert)") from error


def show_certificate(context: ssl.SSLContext, credential: CertificateCredential) -> None:
    """Let a client's context show a certificate; raises UnusableCredential when OpenSSL does not take it."""
    # IIS asks for certificates of some paths only, so after the handshake [RFC 8446 4.6.2].
    context.post_handshake_auth = True
    try:
        with _file((credential.chain + credential.key).encode()) as name:
            context.load_cert_chain(name)
    except ssl.SSLError as error:
        raise UnusableCredential("OpenSSL does not take the certificate or its key") from error


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Name a file that holds a key for a moment, in memory where the system can: the ssl module reads files only."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def _words(error: BaseException | None) -> Iterator[str]:
    """Give the texts of an error and its causes."""
    while error is not None:
        yield f"{error} {error.args}"
        error = error.__cause__ or error.__context__
