"""Hands a mail to a mail server over SMTP [RFC 6409], verified as every other server is."""

import smtplib
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from typing import Any, Final

from eas_watcher.own_thread import in_own_thread
from eas_watcher.transport.tls import client_context
from relay.domain.canary import Submission

SECONDS: Final = 20.0
"""Seconds that the mail server may take for each step."""
LIMIT: Final = 60.0
"""Seconds for a mail as a whole."""
LARGEST: Final = 65_536
"""Bytes of all answers of a server before TLS, and after it; those of real ones have some hundred."""
SUBJECT: Final = "Push relay canary"
TEXT: Final = "The push relay sends this mail to itself, to see that new mail is pushed. It may be deleted.\n"

PLAIN: Final = "PLAIN"  # [RFC 4616 2]
LOGIN: Final = "LOGIN"  # [MS-XLOGIN 2.2.1]
ACCEPTED: Final = 235  # the login is good [RFC 4954 6]
CONTINUE: Final = 334  # the server waits for the next response [RFC 4954 4]
PERMANENT: Final = 500
"""From here on a reply code says that a repetition is of no use [RFC 5321 4.2.1]."""


class NotTaken(Exception):
    """The mail server did not take a mail; the text says why, without anything that the server said in words."""

    def __init__(self, why: str, *, credential: bool = False) -> None:
        """Set up; `credential`: the server refused user or password."""
        super().__init__(why)
        self.credential = credential


async def submit(to: Submission, identity: str, now: datetime) -> None:
    """Hand over one mail with a message id that is made of `identity`; raises NotTaken. It is never repeated here."""
    await in_own_thread(partial(_submit, to, _mail(to, identity, now)), "canary mail")


async def greet(to: Submission, limit: float) -> None:
    """Come as far as the login within `limit` seconds, without a password and a mail; raises NotTaken."""
    await in_own_thread(partial(_greet, to, limit), "canary greeting")


def _mail(to: Submission, identity: str, now: datetime) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = to.sender, to.recipient, SUBJECT
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{identity}@{_domain(to.sender)}>"
    mail["Auto-Submitted"] = "auto-generated"  # so that no out-of-office note answers it [RFC 3834 5]
    mail.set_content(TEXT)
    return mail


def _submit(to: Submission, mail: EmailMessage) -> None:
    """Raise NotTaken unless the server takes the mail."""
    with _session(to, LIMIT) as server:
        if to.user:
            _login(server, to)
        server.send_message(mail, to.sender, [to.recipient])


def _greet(to: Submission, limit: float) -> None:
    with _session(to, limit) as server:
        server.ehlo_or_helo_if_needed()
        if to.user:
            _mechanism(server)


class _Answers:
    """The lines of a server: LARGEST bytes at most, and none after a moment, however slowly each comes."""

    def __init__(self, sock: socket.socket, ends_at: float) -> None:
        self._sock = sock
        self._ends_at = ends_at
        self._held = b""
        self._room = LARGEST

    def readline(self, most: int) -> bytes:
        """Return a line of so many bytes at most; empty: the server has closed. Raises OSError."""
        while b"\n" not in self._held and len(self._held) < most:
            left = self._ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("the server answers too slowly")
            self._sock.settimeout(min(SECONDS, left))
            came = self._sock.recv(min(4096, self._room))
            if not came:
                break
            self._room -= len(came)
            if not self._room:
                raise OSError("the server answers without end")
            self._held += came
        end = min(self._held.find(b"\n") + 1 or len(self._held), most)
        line, self._held = self._held[:end], self._held[end:]
        return line

    def close(self) -> None:
        """Do nothing: the socket is the session's."""


class _Bounded(smtplib.SMTP):
    """A session whose server cannot hold it up by a byte now and then, nor fill the memory."""

    def __init__(self, to: Submission, limit: float, **more: Any) -> None:
        self._ends_at = time.monotonic() + limit
        # The name of this host is nobody's business: the domain of the sender names the client.
        me, patience = _domain(to.sender), min(SECONDS, limit)
        super().__init__(to.host, to.port, local_hostname=me, timeout=patience, **more)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Answers(self.sock, self._ends_at)
        return super().getreply()


class _BoundedTls(_Bounded, smtplib.SMTP_SSL):
    """The same over TLS from the first byte on."""


@contextmanager
def _session(to: Submission, limit: float) -> Iterator[smtplib.SMTP]:
    """Yield a session that is ready for a login; raises NotTaken for all that goes wrong in it."""
    try:
        server = _connect(to, limit)
        try:
            yield server
            with suppress(OSError):  # what the server says at the end is of no interest
                server.quit()
        finally:
            server.close()
    except smtplib.SMTPRecipientsRefused as error:
        codes = {code for code, _ in error.recipients.values()}
        raise NotTaken(f"recipient-refused-{max(codes)}") from error
    except smtplib.SMTPResponseException as error:
        raise NotTaken(f"smtp-{error.smtp_code}") from error
    except ssl.SSLCertVerificationError as error:
        raise NotTaken(f"certificate: {error.verify_message}") from error
    except OSError as error:
        raise NotTaken(f"unreachable: {type(error).__name__}") from error


def _connect(to: Submission, limit: float) -> smtplib.SMTP:
    if to.tls == "none":
        return _Bounded(to, limit)
    context = client_context(to.ca_file)
    if to.tls == "tls":
        return _BoundedTls(to, limit, context=context)
    server = _Bounded(to, limit)
    try:
        server.starttls(context=context)
    except smtplib.SMTPNotSupportedError as error:
        server.close()
        raise NotTaken("offers-no-starttls") from error
    except BaseException:
        server.close()
        raise
    return server


def _login(server: smtplib.SMTP, to: Submission) -> None:
    """Show the password once, in UTF-8; raise NotTaken unless the server takes it.

    The login of smtplib shows a refused password again by each other mechanism, which locks accounts out, and takes
    ASCII only.
    """
    server.ehlo_or_helo_if_needed()
    if _mechanism(server) == PLAIN:
        response = f"\0{to.user}\0{to.password}"
        code, _ = server.docmd("AUTH", f"PLAIN {_base64(response)}")
    else:
        code, _ = server.docmd("AUTH", f"LOGIN {_base64(to.user)}")
        if code == CONTINUE:
            code, _ = server.docmd(_base64(to.password))
    if code != ACCEPTED:
        raise NotTaken(f"login-refused-{code}", credential=code >= PERMANENT)


def _mechanism(server: smtplib.SMTP) -> str:
    """Return the mechanism for the login, out of those that the server offers; raises NotTaken."""
    offered = server.esmtp_features.get("auth", "").upper().split()
    for known in (PLAIN, LOGIN):
        if known in offered:
            return known
    raise NotTaken("offers-no-login")


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
