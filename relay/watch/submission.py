"""Hands a mail to a mail server over SMTP [RFC 6409], verified as every other server is."""

import smtplib
import ssl
from base64 import b64encode
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from typing import Final

from eas_watcher.own_thread import in_own_thread
from eas_watcher.transport.tls import client_context
from relay.domain.canary import Submission

SECONDS: Final = 20.0
"""Seconds that the mail server may take for each step."""
SUBJECT: Final = "Push relay canary"
TEXT: Final = "The push relay sends this mail to itself, to see that new mail is pushed. It may be deleted.\n"

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
    try:
        with _connect(to) as server:
            if to.user:
                _login(server, to)
            server.send_message(mail, to.sender, [to.recipient])
    except smtplib.SMTPRecipientsRefused as error:
        codes = {code for code, _ in error.recipients.values()}
        raise NotTaken(f"recipient-refused-{max(codes)}") from error
    except smtplib.SMTPResponseException as error:
        raise NotTaken(f"smtp-{error.smtp_code}") from error
    except ssl.SSLCertVerificationError as error:
        raise NotTaken(f"certificate: {error.verify_message}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotTaken(f"unreachable: {type(error).__name__}") from error


def _connect(to: Submission) -> smtplib.SMTP:
    # The name of this host is nobody's business: the domain of the sender names the client.
    me = _domain(to.sender)
    if to.tls == "none":
        return smtplib.SMTP(to.host, to.port, local_hostname=me, timeout=SECONDS)
    context = client_context(to.ca_file)
    if to.tls == "tls":
        return smtplib.SMTP_SSL(to.host, to.port, local_hostname=me, timeout=SECONDS, context=context)
    server = smtplib.SMTP(to.host, to.port, local_hostname=me, timeout=SECONDS)
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
    offered = server.esmtp_features.get("auth", "").upper().split()
    if "PLAIN" in offered:  # [RFC 4616 2]
        response = f"\0{to.user}\0{to.password}"
        code, _ = server.docmd("AUTH", f"PLAIN {_base64(response)}")
    elif "LOGIN" in offered:  # [MS-XLOGIN 2.2.1]
        code, _ = server.docmd("AUTH", f"LOGIN {_base64(to.user)}")
        if code == CONTINUE:
            code, _ = server.docmd(_base64(to.password))
    else:
        raise NotTaken("offers-no-login")
    if code != ACCEPTED:
        raise NotTaken(f"login-refused-{code}", credential=code >= PERMANENT)


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
