"""Changes of a mailbox without ActiveSync: deliver a mail, read it, delete it."""

import imaplib
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final, TypeVar

LDA: Final = "/usr/lib/dovecot/dovecot-lda"
PATIENCE: Final = 20.0  # seconds
MAILBOXES: Final = ("INBOX", "Drafts", "Sent", "Trash", "Junk")

R = TypeVar("R")


class MailFailed(Exception):
    """Dovecot refused something."""


def deliver(configuration: Path, user: str, subject: str, body: str, sender: str, mailbox: str = "INBOX") -> str:
    """Deliver one mail to a mailbox of the user as a mail server does, with dovecot-lda; return its Message-ID."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = f"{user}@localhost"
    mail["Subject"] = subject
    mail["Date"] = formatdate()
    mail["Message-ID"] = message_id = make_msgid(domain="localhost")
    mail.set_content(body)
    command = (LDA, "-c", str(configuration), "-d", user, "-f", sender, "-m", mailbox, "-e")
    done = subprocess.run(command, input=mail.as_bytes(), capture_output=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise MailFailed(f"dovecot-lda ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return message_id


class Imap:
    """A client that opens mailboxes through IMAP."""

    def __init__(self, port: int) -> None:
        self._port = port

    def prepare(self, user: str, password: str) -> None:
        """Create the user's mailboxes and make their changes visible.

        SOGo's mark of a mailbox is UIDNEXT-HIGHESTMODSEQ of a plain SELECT, where Dovecot gives the latter only for a
        mailbox that a client with CONDSTORE has opened before. Without it SOGo sees no change, ever
        [observed: SOGo 5.8 with Dovecot 2.3, 2026-11].
        """
        with self._session(user, password) as session:
            session.enable("CONDSTORE")
            for mailbox in MAILBOXES:
                _check(session.select(mailbox))

    def create(self, user: str, password: str, mailbox: str) -> None:
        """Create one more mailbox, and make its changes visible."""
        with self._session(user, password) as session:
            session.enable("CONDSTORE")
            _check(session.create(mailbox))
            _check(session.subscribe(mailbox))
            _check(session.select(mailbox))

    def remove(self, user: str, password: str, mailbox: str) -> None:
        """Remove a mailbox with its mails."""
        with self._session(user, password) as session:
            _check(session.unsubscribe(mailbox))
            _check(session.delete(mailbox))

    def set_read(self, user: str, password: str) -> None:
        """Mark all mails of the INBOX as read."""
        with self._inbox(user, password) as (session, uids):
            _store(session, uids, "\\Seen")

    def delete(self, user: str, password: str, n: int | None = None) -> None:
        """Delete the `n` oldest mails of the INBOX, or all."""
        with self._inbox(user, password) as (session, uids):
            _store(session, uids[:n], "\\Deleted")
            _check(session.expunge())

    @contextmanager
    def _inbox(self, user: str, password: str) -> Iterator[tuple[imaplib.IMAP4, Sequence[str]]]:
        """Open the INBOX; yield the session and the mails' UIDs, oldest first."""
        with self._session(user, password) as session:
            _check(session.select("INBOX"))
            found: Sequence[bytes] = _check(session.uid("SEARCH", "ALL"))
            yield session, found[0].decode().split()

    @contextmanager
    def _session(self, user: str, password: str) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4("127.0.0.1", self._port, timeout=PATIENCE) as session:
            session.login(user, password)
            yield session


def _store(session: imaplib.IMAP4, uids: Sequence[str], flag: str) -> None:
    if uids:
        _check(session.uid("STORE", ",".join(uids), "+FLAGS.SILENT", f"({flag})"))


def _check(answer: tuple[str, Sequence[R]]) -> Sequence[R]:
    """Return the result of an IMAP command; raises MailFailed unless it succeeded."""
    status, data = answer
    if status != "OK":
        raise MailFailed(f"IMAP answered {status}")
    return data
