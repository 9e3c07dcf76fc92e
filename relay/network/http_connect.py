"""Own the words of CONNECT: the request for a tunnel, and how a proxy's answer is read; no I/O."""

import re
from dataclasses import dataclass
from typing import Final

from relay.network.route import Proxy, authority

LARGEST: Final = 65536
"""Bytes of an answer's head; real ones have a few hundred, and what goes on for longer never ends."""

BEGINNING: Final = b"HTTP/1."
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?", re.ASCII)
SCHEME: Final = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)", re.ASCII)
"""A challenge begins with its scheme; a parameter has "=" behind its name [RFC 9110 11.6.1]."""
SCHEMES: Final = 8  # of a challenge that are told


class NotHttp(Exception):
    """Tell that what answers is no HTTP proxy, or one that breaks the rules; the text says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what matters of a proxy's answer."""

    status: int
    """Never 1xx, for those are not the answer yet [RFC 9110 15.2]."""
    schemes: tuple[str, ...] = ()
    """The ways to authenticate that it offers, e.g. "Basic", "Negotiate"."""

    @property
    def opened(self) -> bool:
        """Tell whether the tunnel is open: any 2xx says so [RFC 9110 9.3.6]."""
        return self.status // 100 == 2  # noqa: PLR2004  # 2xx


def request(proxy: Proxy, host: str, port: int) -> bytes:
    """Ask for a tunnel to a host and port; holds the proxy's password, so never log it."""
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: push-relay"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


class AnswerReader:
    """Take the bytes of an answer as they come, in parts of any size."""

    def __init__(self) -> None:
        self._head = b""

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer when its head is whole; raises NotHttp.

        What follows the head of a refusal is its page, which nobody needs. A tunnel says nothing by itself: it is TLS,
        where the client speaks first.
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
                self._head = rest
                continue
            if answer.opened and rest:
                raise NotHttp("it sends what nobody asked for into the tunnel")
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
