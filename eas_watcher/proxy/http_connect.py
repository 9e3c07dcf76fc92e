"""CONNECT: the request for a tunnel, and the reading of a proxy's answer; no I/O."""

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from eas_watcher.proxy import faults
from eas_watcher.proxy.proxy import Proxy, Send, Talk, Ticket, authority

LARGEST: Final = 65536
"""Bytes of an answer's head at most; real ones have a few hundred, and a longer one may never end."""
LARGEST_PAGE: Final = 65536  # bytes of a page after a step of Negotiate at most; proxies send some thousand

INTERIM: Final = 8
"""Answers 1xx before the answer; proxies send none or one."""
STEPS: Final = 3
"""Requests with a token for one tunnel at most: Kerberos needs one, or two if the proxy chooses how it is spoken."""
BEGINNING: Final = b"HTTP/1."
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?", re.ASCII)
SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)", re.ASCII)
"""A challenge begins with its scheme; a parameter has "=" behind its name [RFC 9110 11.6.1]."""
SCHEMES: Final = 8  # of a challenge that an error names
TOKEN: Final = re.compile(r"Negotiate\s+([A-Za-z0-9+/]+={0,2})", re.ASCII | re.IGNORECASE)
LENGTH: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
WANTS_LOGIN: Final = 407


class NotHttp(Exception):
    """The peer is no HTTP proxy, or breaks the rules of HTTP; the text says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of a proxy's answer that matter."""

    status: int
    """Never 1xx: those are not the answer yet [RFC 9110 15.2]."""
    schemes: tuple[str, ...] = ()
    """The authentication schemes that the proxy offers, e.g. "Basic", "Negotiate"."""
    challenge: bytes = b""
    """The token of Negotiate that the proxy answers with; empty: it sent none."""
    page: int = 0
    """Bytes of the page that follows on a connection which stays; -1: the connection is of no use any more."""

    @property
    def goes_on(self) -> bool:
        """True if the proxy waits for one more token on the same connection."""
        return self.status == WANTS_LOGIN and bool(self.challenge) and self.page >= 0

    @property
    def opened(self) -> bool:
        """True if the tunnel is open, which any 2xx says [RFC 9110 9.3.6]."""
        return self.status // 100 == 2  # noqa: PLR2004  # 2xx


def connect(proxy: Proxy, host: str, port: int) -> Talk:
    """Ask an HTTP proxy for a tunnel to a host and port."""
    token = (yield Ticket(b"")) if proxy.negotiates else b""
    reader, steps = AnswerReader(), 1
    try:
        answer = yield from _ask(reader, request(proxy, host, port, token))
        while token and answer.goes_on and steps < STEPS:
            token = yield Ticket(answer.challenge)
            if token:
                yield from _skip(reader, answer.page)
                answer = yield from _ask(reader, request(proxy, host, port, token))
                steps += 1
    except NotHttp as error:
        raise faults.proxy_not_http(proxy, str(error)) from error
    if not answer.opened:
        raise faults.proxy_refuses(proxy, authority(host, port), answer.status, answer.schemes)


def _ask(reader: "AnswerReader", message: bytes) -> Generator[Send | Ticket, bytes, "Answer"]:
    answer = reader.feed((yield Send(message)))
    while answer is None:
        answer = reader.feed((yield Send(b"")))
    return answer


def _skip(reader: "AnswerReader", page: int) -> Talk:
    while not reader.skip(page):
        reader.add((yield Send(b"")))


def request(proxy: Proxy, host: str, port: int, token: bytes = b"") -> bytes:
    """Return the request for a tunnel to a host and port; it holds the proxy's credential, so never log it."""
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: push-relay"]
    authorization = f"Negotiate {b64encode(token).decode()}" if token else proxy.authorization
    if authorization:
        lines.append(f"Proxy-Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


class AnswerReader:
    """A reader of one answer after the other, whose bytes may come in parts of any size."""

    def __init__(self) -> None:
        self._head = b""
        self._interim = 0

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer when its head is whole; raises NotHttp.

        The bytes after the head of a refusal are its page, which is ignored. An open tunnel sends nothing by itself: it
        is for TLS, where the client speaks first.
        """
        self.add(data)
        while True:
            if not self._head.startswith(BEGINNING[: len(self._head)]):
                raise NotHttp("it does not answer in HTTP/1")
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                head, end, rest = self._head.partition(b"\n\n")
            if len(head) > LARGEST:
                raise NotHttp(f"its answer has more than {LARGEST} bytes of headers")
            if not end:
                return None
            self._head = rest
            answer = _read(head)
            if answer.status // 100 == 1:
                self._interim += 1
                if self._interim > INTERIM:
                    raise NotHttp("it sends answers 1xx without end")
                continue
            if answer.opened and rest:
                raise NotHttp("it sends bytes into the tunnel before the relay does")
            return answer

    def add(self, data: bytes) -> None:
        """Take bytes that belong to a page."""
        self._head += data

    def skip(self, page: int) -> bool:
        """Drop a page of so many bytes before the next answer; return False while it is not whole."""
        if len(self._head) < page:
            return False
        self._head = self._head[page:]
        return True


def _read(head: bytes) -> Answer:
    first, *lines = head.splitlines()
    found = STATUS_LINE.fullmatch(first)
    if found is None:
        raise NotHttp("its status line is none of HTTP/1")
    schemes: list[str] = []
    challenge, length, stays = b"", "", not first.startswith(b"HTTP/1.0")
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        value = value.strip()
        name = name.strip().lower()
        if name == "proxy-authenticate":
            schemes += SCHEME.findall(value)
            challenge = challenge or _token(value)
        elif name == "content-length":
            length = value
        elif name == "transfer-encoding":
            stays = False  # where its page ends only a reader of all HTTP finds
        elif name in {"connection", "proxy-connection"}:
            stays = stays and value.lower() != "close"
    page = int(length) if LENGTH.fullmatch(length) else -1
    if not stays or page > LARGEST_PAGE:
        page = -1
    return Answer(int(found[1]), tuple(dict.fromkeys(schemes))[:SCHEMES], challenge, page)


def _token(value: str) -> bytes:
    """Return the token in a challenge of Negotiate [RFC 4559 5]; empty: it has none."""
    found = TOKEN.fullmatch(value)
    if found is None:
        return b""
    try:
        return b64decode(found[1], validate=True)
    except Error:
        return b""
