"""The answers of a broken or hostile server, as functions of byte streams."""

import asyncio
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Final

from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, Element
from eas_watcher.wbxml.encode import encode
from tests.fakes.gzip_bomb import MEGABYTE, gzip_bomb
from tests.fakes.tls import Talk, read_request

HUGE: Final = 200 * MEGABYTE
OK: Final = b"HTTP/1.1 200 OK\r\n"
WBXML: Final = b"Content-Type: application/vnd.ms-sync.wbxml\r\n"
HEADER: Final = b"\x03\x01\x6a\x00"  # WBXML 1.3, unknown public id, UTF-8, no string table


def answer(body: bytes, *headers: bytes, status: bytes = OK) -> bytes:
    """Return an answer that is valid HTTP."""
    return status + WBXML + b"".join(headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def collection(*more: Element) -> Element:
    parts = AIRSYNC("SyncKey", "k2"), AIRSYNC("CollectionId", "5"), AIRSYNC("Status", "1"), *more
    return AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", *parts)))


GOOD: Final = {
    b"Cmd=FolderSync": encode(
        FOLDERHIERARCHY(
            "FolderSync",
            FOLDERHIERARCHY("Status", "1"),
            FOLDERHIERARCHY("SyncKey", "h2"),
            FOLDERHIERARCHY(
                "Changes",
                FOLDERHIERARCHY("Count", "1"),
                FOLDERHIERARCHY(
                    "Add",
                    FOLDERHIERARCHY("ServerId", "5"),
                    FOLDERHIERARCHY("ParentId", "0"),
                    FOLDERHIERARCHY("DisplayName", "Inbox"),
                    FOLDERHIERARCHY("Type", "2"),
                ),
            ),
        )
    ),
    b"Cmd=Sync": encode(
        collection(
            AIRSYNC("Commands", AIRSYNC("Add", AIRSYNC("ServerId", "5:1"), AIRSYNC("ApplicationData"))),
        )
    ),
    b"Cmd=Ping": encode(PING("Ping", PING("Status", "2"), PING("Folders", PING("Folder", "5")))),
}
"""Part of a request's first line -> the body of a good answer."""


def saying(*parts: bytes) -> Talk:
    """Answer every request with the same bytes, then hang up."""
    return repeating(b"", b"".join(parts), 1)


def repeating(head: bytes, piece: bytes, times: int | None = None, pause: float = 0.0) -> Talk:
    """Answer with a head and the same piece again and again, by default until the client hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        for _ in count() if times is None else range(times):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        writer.close()  # once all has left
        await writer.wait_closed()

    return talk


def inventing(random: Random, make: Callable[[Random, bytes], bytes]) -> Talk:
    """Answer each request with the bytes that `make` returns for its first line, on a connection that stays open."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            writer.write(make(random, request.partition(b"\r\n")[0]))
            await writer.drain()

    return talk


def random_body(random: Random, _: bytes) -> bytes:
    return answer(random.randbytes(random.randrange(1, 2000)))


def random_document(random: Random, _: bytes) -> bytes:
    """Return random bytes that begin like WBXML."""
    return answer(HEADER + random.randbytes(random.randrange(1, 2000)))


def mutated(random: Random, line: bytes) -> bytes:
    """Return a good answer with some bytes changed, dropped or doubled."""
    body = bytearray(next((good for part, good in GOOD.items() if part in line), b""))
    for _ in range(random.randrange(1, 4)):
        if not body:
            break
        at = random.randrange(len(body))
        match random.randrange(3):
            case 0:
                body[at] = random.randrange(256)
            case 1:
                del body[at : at + random.randrange(1, 9)]
            case _:
                body[at:at] = body[at : at + random.randrange(1, 9)]
    return answer(bytes(body))


def random_status(random: Random, _: bytes) -> bytes:
    """Return an answer with a random HTTP status and a random Retry-After."""
    status = random.choice([0, 99, 200, 204, 206, 299, 304, 418, 429, 500, 503, 599, 777, 999])
    wait = random.choice([b"-5", b"1e99", b"99999999999999", b"NaN", b"Fri, 31 Dec 9999 23:59:59 GMT", b"\xff"])
    return answer(b"", b"Retry-After: " + wait + b"\r\n", status=b"HTTP/1.1 %03d x\r\n" % status)


async def garble_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a TLS ClientHello with random bytes; for a server without TLS."""
    await reader.read(100)
    writer.write(Random(3).randbytes(5000))
    await writer.drain()


async def keep_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read and send nothing."""
    while await reader.read(65536):
        pass


def mean_talks() -> dict[str, Talk]:
    """Return all such functions for a server with TLS, by name."""
    chunked = OK + WBXML + b"Transfer-Encoding: chunked\r\n\r\n"
    press = gzip_bomb(HUGE // MEGABYTE)
    many = HEADER + b"\x45" + b"\x05" * (7 * MEGABYTE)  # Sync{ unknown empty elements ...
    return {
        "random body": inventing(Random(1), random_body),
        "random document": inventing(Random(2), random_document),
        "mutated answers": inventing(Random(3), mutated),
        "random status": inventing(Random(4), random_status),
        "random bytes": saying(Random(5).randbytes(100_000)),
        "nothing": saying(b""),
        "truncated body": saying(answer(GOOD[b"Cmd=Sync"])[:-5]),
        "truncated head": saying(OK + b"Content-Le"),
        "half a document": saying(answer(GOOD[b"Cmd=Sync"][:-5])),
        "a web page": saying(answer(b"<html>Sign in</html>").replace(b"application/vnd.ms-sync.wbxml", b"text/html")),
        "too short a length": saying(OK + WBXML + b"Content-Length: 3\r\n\r\n" + GOOD[b"Cmd=Sync"]),
        "too long a length": saying(OK + WBXML + b"Content-Length: 99999\r\n\r\n" + GOOD[b"Cmd=Sync"]),
        "a negative length": saying(OK + WBXML + b"Content-Length: -1\r\n\r\n" + GOOD[b"Cmd=Sync"]),
        "a length beyond all bounds": saying(OK + WBXML + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n"),
        "two lengths": saying(OK + b"Content-Length: 5\r\n" + answer(GOOD[b"Cmd=Sync"])[len(OK) :]),
        "a chunk without end": saying(chunked + b"f" * 7 + b"\r\n" + bytes(MEGABYTE)),
        "a chunk size without end": repeating(chunked, b"0" * 1000),
        "chunks without end": repeating(chunked, b"10000\r\n" + bytes(65536) + b"\r\n"),
        "tiny chunks without end": repeating(chunked, b"1\r\n\x00\r\n" * 500),
        "200 MB": repeating(OK + WBXML + b"Content-Length: %d\r\n\r\n" % HUGE, bytes(65536), HUGE // 65536),
        "200 MB until the end": repeating(OK + WBXML + b"\r\n", bytes(65536), HUGE // 65536),
        "a gzip bomb": saying(answer(press, b"Content-Encoding: gzip\r\n")),
        "gzip bombs in a row": repeating(
            chunked[:-2] + b"Content-Encoding: gzip\r\n\r\n", b"%x\r\n" % len(press) + press + b"\r\n"
        ),
        "half a gzip": saying(answer(press[:1000], b"Content-Encoding: gzip\r\n")),
        "no gzip at all": saying(answer(b"hello", b"Content-Encoding: gzip\r\n")),
        "headers without end": repeating(OK, b"X-More: of the same\r\n" * 100),
        "a header without end": repeating(OK + b"X-Long: ", b"x" * 10_000),
        "a status line without end": repeating(b"HTTP/1.1 200 ", b"O" * 10_000),
        "interim answers without end": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10),
        "an upgrade": saying(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + bytes(100)
        ),
        "cookies": saying(answer(b"", *(b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 4000) for n in range(100)))),
        "elements without end": saying(answer(many)),
        "deep elements": saying(answer(HEADER + b"\x45" * MEGABYTE)),
        "a string without end": saying(answer(HEADER + b"\x45\x03" + b"x" * (7 * MEGABYTE))),
        "a string table beyond all bounds": saying(answer(b"\x03\x01\x6a\x8f\xff\xff\xff\x7f")),
        "opaque data beyond all bounds": saying(answer(HEADER + b"\x45\xc3\x8f\xff\xff\xff\x7f")),
        "cookies of backslashes": saying(answer(b"", *[b'Set-Cookie: c="' + b"\\" * 8000 + b'"\r\n'] * 7)),
        "interim answers in blocks": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
        "answers after the answer": repeating(answer(b""), b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        "a fast drip": repeating(OK + WBXML + b"Content-Length: 100000\r\n\r\n", b"\x03", pause=0.0005),
        "a slow drip": repeating(OK + WBXML + b"Content-Length: 100000\r\n\r\n", b"\x03", pause=0.01),
        "silence": keep_silent,
    }
