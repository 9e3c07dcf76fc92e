"""The whole server: a real SOGo with ActiveSync, its daemons on loopback, its users and their mail.

All files are in one state directory, which is deleted; the machine's own PostgreSQL, Dovecot, nginx or SOGo, if any,
are neither used nor touched.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPSConnection
from pathlib import Path
from re import fullmatch
from shutil import rmtree
from ssl import create_default_context
from types import MappingProxyType
from typing import Final

from tests.interop import packages
from tests.interop.sogo import database, mail
from tests.interop.sogo.access_log import Request, read_requests
from tests.interop.sogo.configuration import (
    Layout,
    Ports,
    Settings,
    choose_ports,
    make_state,
    write_configuration,
)
from tests.interop.sogo.daemons import Service, build_daemon
from tests.interop.sogo.dav import Dav, basic
from tests.interop.sogo.undertaker import undertaker

PACKAGES: Final = ("sogo", "sogo-activesync", "dovecot-imapd", "memcached", "nginx", "postgresql")
PATH: Final = "/Microsoft-Server-ActiveSync"
PLAIN: Final = r"[A-Za-z0-9._-]{1,60}"  # the characters of names and passwords, because nothing quotes them
PATIENCE: Final = 30.0  # seconds until the server must answer after its start
STEP: Final = 0.1  # seconds between two looks
NOTED: Final = 0.2  # seconds without a new line in the log of nginx, far more than passes from an answer to its line
PASSWORD_CACHE: Final = 5.0  # seconds for which an old password may still be accepted, and the new one refused
POLL: Final = 5.0  # seconds between two looks of a held Ping at its folders


class SogoFailed(Exception):
    """The daemons run but do not serve."""


@dataclass(frozen=True, slots=True)
class User:
    """A user; his address is `name`@localhost."""

    name: str
    password: str = field(repr=False)


@contextmanager
def running_sogo(settings: Settings, keep: bool = False) -> Iterator["SogoServer"]:
    """Install missing packages, start a new server, and always end it; `keep` leaves its files.

    Raises Unavailable when this machine cannot run it.
    """
    packages.install(*PACKAGES)
    layout = make_state()
    with undertaker(layout.state, keep) as mourner:
        ports = choose_ports()
        write_configuration(layout, ports, settings)
        database.make_cluster(layout, ports, settings)
        server = SogoServer(layout, ports, settings, mourner.watch)
        try:
            server.start(Service.POSTGRES)
            database.make_database(ports.postgres)
            server.start()
            yield server
        finally:
            server.close()


class SogoServer:
    """The daemons, to start and stop, and the acts of other people and clients.

    Its methods block: acts for some hundredths of a second (calendar and address book up to 1.1 s), starts and stops
    for up to some seconds.
    """

    def __init__(self, layout: Layout, ports: Ports, settings: Settings, started: Callable[[int], None]) -> None:
        self.settings = settings
        self._layout = layout
        self._ports = ports
        self._daemons = {service: build_daemon(service, layout, ports, settings, started) for service in Service}
        self._users: dict[str, User] = {}
        self._imap = mail.Imap(ports.imap)
        self._tls = create_default_context(cafile=layout.ca_file)
        self._dav = Dav(ports.https, self._tls)

    @property
    def url(self) -> str:
        """The URL of ActiveSync; its certificate is valid for `localhost` and 127.0.0.1."""
        return f"https://localhost:{self._ports.https}{PATH}"

    @property
    def ca_file(self) -> Path:
        """The certificate authority that clients must trust, as PEM."""
        return self._layout.ca_file

    @property
    def logs(self) -> Path:
        """The folder of the daemons' logs."""
        return self._layout.log

    @property
    def users(self) -> Mapping[str, User]:
        """The users, with their present passwords, by name."""
        return MappingProxyType(self._users)

    def requests(self, name: str) -> list[Request]:
        """Return the answered ActiveSync requests of a user; OPTIONS counts as a command.

        nginx notes a request after its answer has left: the lines of the last ones are waited for.
        """
        log, known = self.logs / "nginx-access.log", -1
        while known != (present := log.stat().st_size if log.exists() else 0):
            known = present
            time.sleep(NOTED)
        return [request for request in read_requests(log, PATH) if request.user == name]

    def holds_ping(self, name: str) -> bool:
        """Return True if SOGo holds a Ping of a user now: it looked, found nothing, and has answered nothing since."""
        log = self.logs / f"{Service.SOGOD}.out"
        for line in reversed(log.read_text(errors="replace").splitlines()):
            if f"for user {name} in Ping" in line:
                return True
            if f"User={name}&" in line:
                return False
        return False

    def start(self, service: Service | None = None) -> None:
        """Start one service, or all that do not run; return when the server answers."""
        for each in [service] if service else Service:
            self._daemons[each].start()
        if all(daemon.running for daemon in self._daemons.values()):
            self._wait_for_answer(HTTPStatus.UNAUTHORIZED)  # by SOGo itself: the request has no credential

    def stop(self, service: Service | None = None, *, kill: bool = False) -> None:
        """Stop one service, or all; with `kill` a held Ping breaks off instead of being answered."""
        for each in [service] if service else reversed(Service):
            self._daemons[each].stop(kill=kill)

    def close(self) -> None:
        """Stop all for good and fast; PostgreSQL is asked to end, because a killed one leaves shared memory."""
        for service in reversed(Service):
            self._daemons[service].stop(kill=service is not Service.POSTGRES)

    def restart(self, service: Service | None = None, *, kill: bool = False) -> None:
        """Stop and start; restarting SOGOD also frees the workers that still hold Pings of clients that have gone."""
        self.stop(service, kill=kill)
        self.start(service)

    def add_user(self, name: str) -> User:
        """Create a user with empty folders."""
        if name in self._users:
            raise ValueError(f"there is a user {name} already")
        user = self._put_user(name, f"secret-of-{name}")
        self._imap.prepare(name, user.password)
        self._dav.prepare(name, user.password)
        return user

    def set_password(self, name: str, password: str) -> User:
        """Change a password and return when SOGo accepts the new one, up to PASSWORD_CACHE seconds later.

        Held Pings go on. Raises SogoFailed when the new one is never accepted.
        """
        self._users[name]  # a KeyError for an unknown user, before anything changes
        user = self._put_user(name, password)
        self._wait_for_answer(HTTPStatus.OK, user)
        return user

    def deliver(
        self,
        name: str,
        subject: str = "Hello",
        body: str = "Hello.",
        sender: str = "sender@example.com",
        mailbox: str = "INBOX",
    ) -> str:
        """Deliver one new mail to a mailbox of a user, the INBOX unless another is named; return its Message-ID."""
        return mail.deliver(self._layout.conf / "dovecot.conf", self._users[name].name, subject, body, sender, mailbox)

    def add_mailbox(self, name: str, mailbox: str) -> None:
        """Create one more mailbox of a user, as another client of his does."""
        self._imap.create(name, self._users[name].password, mailbox)

    def remove_mailbox(self, name: str, mailbox: str) -> None:
        """Remove a mailbox of a user."""
        self._imap.remove(name, self._users[name].password, mailbox)

    def mark_read(self, name: str) -> None:
        """Mark all mails of a user's INBOX as read, as another client of his does."""
        self._imap.set_read(name, self._users[name].password)

    def delete(self, name: str, n: int) -> None:
        """Delete the `n` oldest mails of a user's INBOX."""
        self._imap.delete(name, self._users[name].password, n)

    def delete_all(self, name: str) -> None:
        """Delete all mails of a user's INBOX."""
        self._imap.delete(name, self._users[name].password)

    def replace_inbox(self, name: str) -> None:
        """Replace a user's mail folders by new, empty ones with other ids, as a move to another mail store does."""
        rmtree(self._layout.mail / name / "Maildir")
        self._imap.prepare(name, self._users[name].password)

    def add_event(self, name: str, title: str = "Meeting") -> str:
        """Store one event in a user's calendar; return its name."""
        return self._dav.put_event(name, self._users[name].password, title)

    def add_contact(self, name: str, contact: str = "Ben Example") -> str:
        """Store one contact in a user's address book; return its name."""
        return self._dav.put_contact(name, self._users[name].password, contact)

    def _put_user(self, name: str, password: str) -> User:
        for word in (name, password):
            if not fullmatch(PLAIN, word):
                raise ValueError("use only letters, digits and . _ - in names and passwords")
        database.put_user(self._ports.postgres, name, password)
        self._users[name] = user = User(name, password)
        return user

    def _wait_for_answer(self, wanted: HTTPStatus, user: User | None = None) -> None:
        """Send OPTIONS until SOGo answers as wanted; raises SogoFailed when it never does."""
        end = time.monotonic() + PATIENCE
        while (status := self._ask(user)) != wanted:
            if time.monotonic() > end:
                raise SogoFailed(f"OPTIONS is answered with {status}:\n{self._daemons[Service.SOGOD].tail()}")
            time.sleep(STEP)

    def _ask(self, user: User | None) -> int:
        headers = {} if user is None else {"Authorization": basic(user.name, user.password)}
        connection = HTTPSConnection("localhost", self._ports.https, timeout=PATIENCE, context=self._tls)
        try:
            connection.request("OPTIONS", PATH, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()
