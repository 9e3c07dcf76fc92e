"""Measure a TLS handshake of a mail server's client, full and resumed, in memory: its parts, and the server's part.

A resumed one is `handshake.resumed.prepare_us`, in which Python copies the session, and `handshake.resumed.shake_us`.
"""

import argparse
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.sandbox.certificates import ThrowAwayCa
from tests.bench.site import figure

HOST = "mail.example.com"
Side = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]
"""The TLS of one side, what it gets, and what it says."""


class Clock:
    """The CPU time of each part, in seconds."""

    def __init__(self) -> None:
        """Begin with none."""
        self.spent: dict[str, float] = {}
        self._since = process_time()

    def spend(self, part: str) -> None:
        """Count the time since the last call for a part; empty: for none."""
        now = process_time()
        self.spent[part] = self.spent.get(part, 0.0) + now - self._since
        self._since = now


def shake(clock: Clock, client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None) -> Side:
    """Make one connection; return the client's side after the first byte of the server."""
    clock.spend("")
    came, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(came, said, server_hostname=HOST, session=session)
    clock.spend("prepare")
    heard, told = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(heard, told, server_side=True)
    for _ in range(2):  # flights of each side [RFC 8446 2]
        with suppress(ssl.SSLWantReadError):
            ours.do_handshake()
        heard.write(said.read())
        clock.spend("shake")
        with suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        came.write(told.read())
        clock.spend("server")
    theirs.write(b"x")
    came.write(told.read())
    clock.spend("server")
    ours.read()
    clock.spend("shake")
    return ours, came, said


def measure(times: int) -> None:
    """Print the figures."""
    authority = ThrowAwayCa()
    client, server = authority.client_context(), authority.server_context(HOST)
    session: ssl.SSLSession | None = None
    for kind in ("full", "resumed"):
        clock = Clock()
        for _ in range(times):
            tls, *_rest = shake(clock, client, server, session)
            if tls.session_reused != (kind == "resumed"):
                raise SystemExit(f"a handshake was not {kind}")
        session = tls.session
        for part in ("prepare", "shake", "server"):
            figure(f"handshake.{kind}.{part}_us", clock.spent[part] / times * 1e6, "us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=500)
    measure(parser.parse_args().times)
