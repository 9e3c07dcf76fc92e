"""CONNECT: the request for a tunnel, and the reading of a proxy's answer; no I/O."""

import re
from dataclasses import dataclass
from typing import Final

from relay.network.route import Proxy, authority

LARGEST: Final = 65536
"""Bytes of an answer's head at most; real ones have a few hundred, and a longer one may never end."""

INTERIM: Final = 8
"""Answers 1xx before the answer; proxies send none or one."""
BEGINNING: Final = b"HTTP/1."
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?", re.ASCII)
SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)", re.ASCII)
"""A challenge begins with its scheme; a parameter has "=" behind its name [RFC 9110 11.6.1]."""
SCHEMES: Final = 8  # of a challenge that an error names


class NotHttp(Exception):
    """The peer is no HTTP proxy, or breaks the rules of HTTP; the text says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of a proxy's answer that matter."""

    status: int
    """Never 1xx: those are not the answer yet [RFC 9110 15.2]."""
    schemes: tuple[str, ...] = ()
    """The authentication schemes that the proxy offers, e.g. "Basic", "Negotiate"."""

    @property
    def opened(self) -> bool:
        """True if the tunnel is open, which any 2xx says [RFC 9110 9.3.6]."""
        return self.status // 100 == 2  # noqa: PLR2004  # 2xx


def request(proxy: Proxy, host: str, port: int) -> bytes:
    """Return the request for a tunnel to a host and port; it holds the proxy's password, so never log it."""
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: push-relay"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


class AnswerReader:
    """A reader of one answer, whose bytes may come in parts of any size."""

    def __init__(self) -> None:
        self._head = b""
        self._interim = 0

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer when its head is whole; raises NotHttp.

        The bytes after the head of a refusal are its page, which is ignored. An open tunnel sends nothing by itself: it
        is for TLS, where the client speaks first.
        """
        self._head += data
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
            answer = _read(head)
            if answer.status // 100 == 1:
                self._interim += 1
                if self._interim > INTERIM:
                    raise NotHttp("it sends answers 1xx without end")
                self._head = rest
                continue
            if answer.opened and rest:
                raise NotHttp("it sends bytes into the tunnel before the relay does")
            return answer


def _read(head: bytes) -> Answer:
    first, *lines = head.splitlines()
    found = STATUS_LINE.fullmatch(first)
    if found is None:
        raise NotHttp("its status line is none of HTTP/1")
    schemes: list[str] = []
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() == "proxy-authenticate":
            schemes += SCHEME.findall(value.strip())
    return Answer(int(found[1]), tuple(dict.fromkeys(schemes))[:SCHEMES])
