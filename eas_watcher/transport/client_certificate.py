"""Connections with a client certificate: one TLS context per mailbox, with connections and sessions of its own.

So no mailbox uses the connection of another one, or resumes its TLS session. A server may ask for the certificate after
the handshake: by post-handshake authentication of TLS 1.3, which is switched on here, or by
renegotiation of TLS 1.2, which OpenSSL answers unless the host's configuration forbids it [observed: OpenSSL 3.0,
asyncio and uvloop, 2026-11].
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
from eas_watcher.ports import Done, HeldRequest, Transport


class IdentifiedTransport:
    """The transport of one mailbox over connections of its own."""

    __slots__ = ("_credential", "_now", "_transport")

    def __init__(self, credential: CertificateCredential, transport: Transport, now: Callable[[], datetime]) -> None:
        """Send through `transport`, whose connections show the certificate; `now` returns the time of day."""
        self._credential = credential
        self._transport = transport
        self._now = now

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any answer; raises CredentialVoid if the certificate has expired, Unauthorized if TLS refuses it."""
        self._credential.check_validity(self._now())
        try:
            return await self._transport.send(request)
        except Unreachable as error:
            refused = _refusal_in(error)
            if refused is None:
                raise
            raise refused from error

    async def hold(self, request: HttpRequest, done: Done) -> HeldRequest:
        """Hold a request; raises and reports what `send` raises."""
        self._credential.check_validity(self._now())

        def answered(result: HttpReply | Exception) -> None:
            refused = _refusal_in(result) if isinstance(result, Unreachable) else None
            done(refused or result)

        try:
            return await self._transport.hold(request, answered)
        except Unreachable as error:
            refused = _refusal_in(error)
            if refused is None:
                raise
            raise refused from error


def _refusal_in(error: Unreachable) -> Unauthorized | None:
    """Return what an error means if the server refuses the certificate by an alert of TLS; None: it does not."""
    why = next((found for text in _words(error) if (found := refusal_in(text)) is not None), None)
    return None if why is None else Unauthorized(f"the server refuses the client certificate: it {why} (TLS alert)")


def show_certificate(context: ssl.SSLContext, credential: CertificateCredential) -> None:
    """Make a client's context show a certificate; raises UnusableCredential when OpenSSL rejects it."""
    # IIS asks for a certificate for some paths only, so it asks after the handshake [RFC 8446 4.6.2].
    context.post_handshake_auth = True
    try:
        with _file((credential.chain + credential.key).encode()) as name:
            context.load_cert_chain(name)
    except ssl.SSLError as error:
        raise UnusableCredential("OpenSSL does not take the certificate or its key") from error


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Yield the name of a temporary file, in memory where the system can: the ssl module reads keys from files only."""
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
    """Yield the texts of an error and its causes."""
    while error is not None:
        yield f"{error} {error.args}"
        error = error.__cause__ or error.__context__
