"""Changes of a calendar or an address book by other clients: CalDAV and CardDAV requests to SOGo."""

import http.client
import itertools
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from http import HTTPMethod
from typing import Final

PATIENCE: Final = 30.0  # seconds
SPACING: Final = 1.1  # seconds between two changes of one folder, so that they fall into different whole seconds


class DavFailed(Exception):
    """SOGo refused a change."""


class Kind(Enum):
    """A user's own calendar and address book: path, content type, suffix."""

    EVENT = ("Calendar/personal", "text/calendar", "ics")
    CONTACT = ("Contacts/personal", "text/vcard", "vcf")


class Dav:
    """Another client of the same user, which stores items in folders.

    SOGo stamps the changes of calendars and address books with whole seconds and tells a device only of stamps greater
    than the last one it saw, so a second change in one second would never be told
    [observed: SOGo 5.8, 2026-11]. Changes of one folder are therefore spaced.
    """

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._port = port
        self._tls = tls
        self._numbers = itertools.count(1)
        self._changed_at: dict[tuple[str, Kind], float] = {}  # time.monotonic() after the last change
        self._lock = threading.Lock()

    def prepare(self, user: str, password: str) -> None:
        """Give the user's folders their first stamp: store an item and delete it.

        The first item ever of a folder without one would end no Ping [observed: SOGo 5.8, 2026-11].
        """
        for kind in Kind:
            name = self._store(user, password, kind, "Seed", spaced=False)
            self._change(HTTPMethod.DELETE, user, password, kind, name, "", spaced=False)

    def put_event(self, user: str, password: str, title: str) -> str:
        """Store one event; return its name."""
        return self._store(user, password, Kind.EVENT, title)

    def put_contact(self, user: str, password: str, name: str) -> str:
        """Store one contact; return its name."""
        return self._store(user, password, Kind.CONTACT, name)

    def _store(self, user: str, password: str, kind: Kind, title: str, *, spaced: bool = True) -> str:
        number = next(self._numbers)
        name = f"item-{number}.{kind.value[2]}"
        text = _event(name, title) if kind is Kind.EVENT else _contact(name, title)
        self._change(HTTPMethod.PUT, user, password, kind, name, text, spaced=spaced)
        return name

    def _change(
        self, method: HTTPMethod, user: str, password: str, kind: Kind, name: str, text: str, *, spaced: bool
    ) -> None:
        path, content_type, _ = kind.value
        headers = {
            "Authorization": basic(user, password),
            "Content-Type": f"{content_type}; charset=utf-8",
        }
        with self._lock, self._connection() as connection:
            last = self._changed_at.get((user, kind))
            if spaced and last is not None:
                time.sleep(max(0.0, last + SPACING - time.monotonic()))
            connection.request(method, f"/SOGo/dav/{user}/{path}/{name}", text.encode(), headers)
            answer = connection.getresponse()
            answer.read()
            self._changed_at[user, kind] = time.monotonic()
        if answer.status not in {http.client.OK, http.client.CREATED, http.client.NO_CONTENT}:
            raise DavFailed(f"SOGo answered {method} {path} with {answer.status}")

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPSConnection]:
        connection = http.client.HTTPSConnection("localhost", self._port, timeout=PATIENCE, context=self._tls)
        try:
            yield connection
        finally:
            connection.close()


def basic(user: str, password: str) -> str:
    """Return the value of the Authorization header [RFC 7617 2]."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _event(name: str, title: str) -> str:
    """Return an event [RFC 5545] in the future, because devices ask only for recent ones.

    After January 2038 SOGo would store it and report it to no device [observed: SOGo 5.8, 2026-11].
    """
    return _lines(
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//push-relay//interop//EN",
        "BEGIN:VEVENT",
        f"UID:{name}",
        "DTSTAMP:20260101T000000Z",
        "DTSTART:20370101T090000Z",
        "DTEND:20370101T100000Z",
        f"SUMMARY:{title}",
        "END:VEVENT",
        "END:VCALENDAR",
    )


def _contact(name: str, title: str) -> str:
    """Return a contact [RFC 6350]."""
    return _lines("BEGIN:VCARD", "VERSION:3.0", f"UID:{name}", f"FN:{title}", f"N:{title};;;;", "END:VCARD")


def _lines(*lines: str) -> str:
    return "".join(f"{line}\r\n" for line in lines)
