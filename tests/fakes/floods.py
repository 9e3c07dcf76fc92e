"""Hostile providers: an APNs that floods its connections with frames, and HTTP/1.1 answers that never serve a push.

Run as a program, `python -m tests.fakes.floods PEM KIND`, it serves in a process of its own and prints its port.
"""

import asyncio
import ssl
import sys
from typing import Final

from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.fakes.gzip_bomb import gzip_bomb

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CHUNK: Final = 65_536  # bytes that are written at once
INTERIM: Final = b"\x08\x03100"  # :status 100, never indexed with the name of entry 8 [RFC 7541 6.2.2]
ENTRY: Final = b"\x40\x01a\x7f\x81\x1e" + b"b" * 4001  # a header a of 4,001 bytes that enters the table
BOMB: Final = ENTRY + b"\xbe" * 12_000  # the entry 12,000 times, one byte each


def _bytes(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in frames)


FRAMES: Final = {
    "ping": _bytes(PingFrame(0, b"12345678")),
    "settings": _bytes(SettingsFrame(0, {4: 65_535}), SettingsFrame(0, {4: 65_536})),
    "many-settings": _bytes(SettingsFrame(0))[:3].replace(b"\0\0\0", (6 * 2700).to_bytes(3))
    + _bytes(SettingsFrame(0))[3:]
    + b"\x00\xff\x00\x00\x00\x01" * 2700,
    "window-update": _bytes(WindowUpdateFrame(0, window_increment=1)),
    "priority": _bytes(PriorityFrame(1, depends_on=0, stream_weight=1)),
    "empty-data": _bytes(DataFrame(1)),
    "padding": _bytes(DataFrame(1, b"", pad_length=200, flags=["PADDED"])),
    "interim": _bytes(HeadersFrame(1, INTERIM, flags=["END_HEADERS"])),
    "hpack-bomb": _bytes(HeadersFrame(1, BOMB, flags=["END_HEADERS"])),
    "reset": _bytes(RstStreamFrame(1, error_code=8)),
    "goaway": _bytes(GoAwayFrame(0, last_stream_id=2**31 - 1)),
    "unknown": _bytes(ExtensionFrame(type=0xBB, stream_id=0, body=b"")),
    "push-promise": _bytes(PushPromiseFrame(1, promised_stream_id=2, data=b"\x82\x84\x87", flags=["END_HEADERS"])),
}
"""One turn of each flood of HTTP/2, repeated for ever once a request has come."""

HONEST: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
OK: Final = b"HTTP/1.1 200 OK\r\n"
ANSWERS: Final[dict[str, tuple[bytes, bytes]]] = {
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim-headers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: " + b"x" * 4000 + b"\r\n\r\n"),
    "endless-head": (OK, b"x-more: " + b"y" * 8000 + b"\r\n"),
    "cookies": (OK + (b'Set-Cookie: a="' + b"\\" * 8000 + b"\r\n") * 60 + b"Content-Length: 0\r\n\r\n", b""),
    "endless-body": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b"z" * 0x4000 + b"\r\n"),
    "tiny-chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
    "bomb": (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip_bomb(200), b""),
}
"""The beginning of each answer of HTTP/1.1, and what follows for ever."""


async def flood_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> None:
    """Greet a client, and flood it once it has sent a request."""
    writer.write(_bytes(SettingsFrame(0, {3: 100})))
    await reader.readexactly(len(PREFACE))
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3]))
        if head[3] == HeadersFrame.type:
            break
    await _pour(writer, FRAMES[kind])


async def flood_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> None:
    """Answer the first request with a flood, or all of them if the kind is "honest"."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
        if kind != "honest":
            break
        writer.write(HONEST)
    beginning, more = ANSWERS[kind]
    writer.write(beginning)
    if more:
        await _pour(writer, more)
    await reader.read()


async def _pour(writer: asyncio.StreamWriter, turn: bytes) -> None:
    chunk = turn * max(1, CHUNK // len(turn))
    while not writer.is_closing():
        writer.write(chunk)
        await writer.drain()


async def serve(kind: str, tls: ssl.SSLContext) -> asyncio.Server:
    """Serve floods of a kind on a free port; kinds of HTTP/1.1 begin with "http1:"."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flood, name = (flood_http1, kind.removeprefix("http1:")) if kind.startswith("http1:") else (flood_http2, kind)
        try:
            await flood(reader, writer, name)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has given up
        finally:
            writer.transport.abort()

    return await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)


async def _main(pem: str, kind: str) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    tls.set_alpn_protocols(["http/1.1"] if kind.startswith("http1:") else ["h2"])
    server = await serve(kind, tls)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
