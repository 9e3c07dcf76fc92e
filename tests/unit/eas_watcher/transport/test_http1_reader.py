import gzip
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import ProtocolViolation
from eas_watcher.transport import http1_reader
from eas_watcher.transport.http1_reader import (
    CHUNK_LINE,
    CHUNKS,
    FRAMING,
    HEADS,
    HEADS_KEPT,
    INTERIM,
    LINES,
    PIECES,
    SHORT_HEAD,
    AnswerReader,
)

LARGEST = 2048
OK = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
LATER = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n"


def read(*pieces: bytes, method: str = "POST", largest: int = LARGEST) -> tuple[HttpReply | None, bool]:
    """Return the answer, None if it is not whole, and if the connection may carry another request."""
    reader = AnswerReader(method, largest)
    for piece in pieces:
        reply = reader.feed(piece)
        if reply is not None:
            return reply, reader.keep
    return reader.end(), reader.keep


def octets(answer: bytes) -> list[bytes]:
    return [answer[at : at + 1] for at in range(len(answer))]


@pytest.mark.parametrize(
    ("answer", "status", "body", "keep"),
    [
        (HELLO, 200, b"hello", True),
        (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
        (OK + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello", True),
        (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (OK + b"Connection: x, Close\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
        (OK + b"\r\nuntil the end", 200, b"until the end", False),
        (b"HTTP/1.0 404\r\n\r\n", 404, b"", False),
        (b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", 404, b"", True),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", 200, b"hello", True),
        (CHUNKED + b"3\r\nhel\r\n02;name=value\r\nlo\r\n000\r\n\r\n", 200, b"hello", True),
        (CHUNKED + b"A \r\n0123456789\r\n0\r\nX: y\r\nZ: y\r\n\r\n", 200, b"0123456789", True),
        (CHUNKED + b"0\r\nX: y\n\n", 200, b"", True),
        (CHUNKED.replace(b"chunked", b"Chunked") + b"0\r\n\r\n", 200, b"", True),
        (CONTINUE + HELLO, 200, b"hello", True),
        (CONTINUE * INTERIM + HELLO, 200, b"hello", True),
        (b"HTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
        (OK + b"X: y\r\n" * (LINES - 2) + b"Content-Length: 0\r\n\r\n", 200, b"", True),
        (OK + b"Content-Length: 0\r\nX: " + b"y" * (HEADS - 43) + b"\r\n\r\n", 200, b"", True),
        (b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", 999, b"", True),
    ],
)
def test_reads_an_answer_in_whatever_pieces_it_comes(answer: bytes, status: int, body: bytes, keep: bool) -> None:
    for pieces in ([answer], octets(answer)) if len(answer) < PIECES else ([answer],):
        reply, kept = read(*pieces)
        assert reply is not None
        assert (reply.status, reply.body, kept) == (status, body, keep)


def test_header_names_are_lower_case_and_the_last_of_a_name_counts_but_for_lists() -> None:
    reply, _ = read(
        OK
        + b"X-MS-RP:1 \r\nx-ms-rp:\t2\r\nMS-ASProtocolVersions: 2.5,14.0\r\nMS-ASProtocolVersions: 14.1\r\n"
        + b"MS-ASProtocolCommands: Sync,Provision\r\nMS-ASProtocolCommands: Ping\r\n"
        + b"WWW-Authenticate: Negotiate\r\nWWW-Authenticate: Basic realm=\xff\r\nEmpty:\r\n"
        + b"Set-Cookie: a=1; path=/\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    )

    assert reply is not None
    assert reply.headers == {
        "x-ms-rp": "2",
        "ms-asprotocolversions": "2.5,14.0,14.1",
        "ms-asprotocolcommands": "Sync,Provision,Ping",
        "www-authenticate": "Negotiate,Basic realm=\udcff",
        "empty": "",
        "set-cookie": "b=2",
        "content-length": "0",
    }
    assert reply.set_cookies == ("a=1; path=/", "b=2")


def test_the_answer_to_head_has_no_body() -> None:
    reply, keep = read(OK + b"Content-Length: 5\r\n\r\n", method="HEAD")

    assert reply is not None
    assert (reply.body, keep) == (b"", True)


@pytest.mark.parametrize("cut", range(len(HELLO)))
def test_the_end_of_the_connection_ends_no_answer_that_has_a_length(cut: int) -> None:
    assert read(HELLO[:cut]) == (None, cut >= HELLO.index(b"hello"))


@pytest.mark.parametrize("cut", range(1, 20))
def test_the_end_of_the_connection_ends_no_answer_in_chunks(cut: int) -> None:
    answer = CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"

    assert read(answer[:-cut])[0] is None


@pytest.mark.parametrize(
    "answer", [HELLO + b"H", HELLO + HELLO, CHUNKED + b"0\r\n\r\n\r\n", CONTINUE + HELLO + CONTINUE]
)
def test_a_connection_on_which_more_comes_carries_no_other_request(answer: bytes) -> None:
    reply, keep = read(answer)

    assert reply is not None
    assert not keep


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"220 mail.example.com ESMTP\r\n", "not HTTP"),
        (b"HTTX", "not HTTP"),
        (b"\r\n" + HELLO, "not HTTP"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.2 200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 1000 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 099 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 \x00\r\n\r\n", "not HTTP"),
        (OK + b"X : y\r\n\r\n", "not HTTP"),
        (OK + b" X: y\r\n\r\n", "not HTTP"),
        (OK + b"X: y\r\n folded\r\n\r\n", "not HTTP"),
        (OK + b": y\r\n\r\n", "not HTTP"),
        (OK + b"no header\r\n\r\n", "not HTTP"),
        (OK + b"X: \x00\r\n\r\n", "not HTTP"),
        (OK + b"X: y\rZ: y\r\n\r\n", "not HTTP"),
        (OK + b"X\xff: y\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "another protocol"),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "ambiguous"),
        (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (OK + b"Transfer-Encoding: identity\r\n\r\n", "ambiguous"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "ambiguous"),
        (OK + b"Content-Length: -5\r\n\r\n", "ambiguous"),
        (OK + b"Content-Length: +5\r\n\r\n", "ambiguous"),
        (OK + b"Content-Length: 5, 5\r\n\r\n", "ambiguous"),
        (OK + b"Content-Length: \r\n\r\n", "ambiguous"),
        (OK + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n", "ambiguous"),
        (CHUNKED + b"\r\n", "not HTTP"),
        (CHUNKED + b"-1\r\n", "not HTTP"),
        (CHUNKED + b"0x5\r\nhello\r\n", "not HTTP"),
        (CHUNKED + b"5\nhello\r\n", "not HTTP"),
        (CHUNKED + b"5\r\nhelloo", "not HTTP"),
        (CHUNKED + b"5\r\nhello\n0\r\n\r\n", "not HTTP"),
        (CHUNKED + b"5\r\nhello\r\r", "not HTTP"),
        (CHUNKED + b"1;" + b"x" * CHUNK_LINE, "not HTTP"),
        (CHUNKED + b"0\r\nno header\r\n\r\n", "not HTTP"),
        (CHUNKED + b"0\r\n" + b"T: x\r\n" * 20_000, "larger than 64 KiB"),
        (CHUNKED + b"0\r\n" + b"T: x\r\n" * LINES + b"T: x\r\n\r\n", "lines"),
        (CONTINUE * (INTERIM + 1), "interim"),
        (b"HTTP/1.1 102 x\n\n" * (INTERIM + 1), "interim"),
        (OK + b"X: " + b"y" * HEADS, "larger than 64 KiB"),
        (OK.replace(b"200", b"103") + b"X: " + b"y" * 40_000 + b"\r\n\r\n" + OK + b"X: " + b"y" * 30_000, "64 KiB"),
        (OK + b"X: y\r\n" * LINES + b"\r\n", "lines"),
        (OK + b"Content-Length: %d\r\n\r\n" % (LARGEST + 1), "larger than 2 KiB"),
        (OK + b"\r\n" + bytes(LARGEST + 1), "larger than 2 KiB"),
        (CHUNKED + b"801\r\n", "larger than 2 KiB"),
        (CHUNKED + b"400\r\n" + bytes(1024) + b"\r\n401\r\n", "larger than 2 KiB"),
        (CHUNKED + b"f" * 16 + b"\r\n", "larger than 2 KiB"),
        (CHUNKED + (b"1;" + b"x" * 1000 + b"\r\ny\r\n") * 100, "too large"),
    ],
)
def test_refuses_what_is_no_answer_or_beyond_a_limit(answer: bytes, error: str) -> None:
    for size in (len(answer), 1000):
        with pytest.raises(ProtocolViolation, match=error):
            read(*(answer[at : at + size] for at in range(0, len(answer), size)))
    assert FRAMING * LARGEST + HEADS < 100_000


@pytest.mark.parametrize(
    "answer",
    [
        LATER + b"Content-Length: %d\r\n\r\n" % (LARGEST + 1),
        LATER + b"\r\n" + bytes(LARGEST + 1),
        LATER + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + bytes(1024) + b"\r\n401\r\n",
        LATER + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        LATER + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(LARGEST + 1), mtime=0),
    ],
)
def test_the_body_of_an_error_is_left_out_if_it_is_too_large_or_unreadable(answer: bytes) -> None:
    reply, _ = read(answer)

    assert reply is not None
    assert (reply.status, reply.headers["retry-after"], reply.body) == (503, "7", b"")


def test_reads_what_is_compressed_though_nobody_asked_for_it() -> None:
    press = gzip.compress(b"hello", mtime=0)
    reply, _ = read(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(press) + press)

    assert reply is not None
    assert reply.body == b"hello"


@pytest.mark.parametrize(
    ("press", "error"),
    [(b"hello", "Content-Encoding"), (gzip.compress(bytes(LARGEST + 1), mtime=0), "larger than 2 KiB")],
)
def test_refuses_what_is_compressed_badly_or_too_well(press: bytes, error: str) -> None:
    with pytest.raises(ProtocolViolation, match=error):
        read(OK + b"Content-Encoding: gzip\r\n\r\n" + press)


def test_refuses_an_answer_that_drips() -> None:
    drip = octets(bytes(2 * PIECES))

    with pytest.raises(ProtocolViolation, match="too many pieces"):
        read(OK + b"Content-Length: %d\r\n\r\n" % (2 * PIECES), *drip, largest=2 * PIECES)
    assert read(OK + b"Content-Length: %d\r\n\r\n" % PIECES, *drip[:PIECES])[0] is not None


def test_takes_any_number_of_pieces_of_a_packets_length() -> None:
    reader = AnswerReader("POST", 8 << 20)
    reader.feed(OK + b"Content-Length: %d\r\n\r\n" % (8 << 20))
    replies = [reader.feed(bytes(1024)) for _ in range((8 << 20) // 1024)]

    assert replies[-1] is not None
    assert len(replies[-1].body) == 8 << 20


def test_refuses_a_body_in_too_many_chunks() -> None:
    reader = AnswerReader("POST", 8 << 20)
    assert reader.feed(CHUNKED + b"1\r\nx\r\n" * CHUNKS) is None

    with pytest.raises(ProtocolViolation, match="too many chunks"):
        reader.feed(b"1\r\nx\r\n")


@given(
    st.binary(max_size=300),
    st.lists(st.integers(1, 40), min_size=1),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_what_is_read_does_not_depend_on_chunks_and_pieces(body: bytes, sizes: list[int], cuts: list[int]) -> None:
    answer, at, turn = CONTINUE + CHUNKED, 0, 0
    while at < len(body):
        chunk = body[at : at + sizes[turn % len(sizes)]]
        answer += b"%x\r\n%b\r\n" % (len(chunk), chunk)
        at, turn = at + len(chunk), turn + 1
    answer += b"0\r\n\r\n"
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]

    reply, keep = read(*(answer[begin:end] for begin, end in pairwise(places)))

    assert reply is not None
    assert (reply.body, keep) == (body, True)


@given(st.binary(max_size=200))
def test_whatever_comes_is_an_answer_or_breaks_the_protocol(data: bytes) -> None:
    for beginning in (b"", OK, OK + b"Content-Length: 9\r\n\r\n", CHUNKED):
        try:
            read(beginning + data)
        except ProtocolViolation:
            continue


def test_a_head_that_came_before_is_read_alike() -> None:
    answer = OK + b"Content-Length: 2\r\nX: same\r\n\r\nok"
    (first, _), (second, _) = read(answer), read(answer)

    assert first is not None
    assert second is not None
    assert first == second
    assert first.headers is second.headers


@pytest.mark.parametrize("name", [b"Set-Cookie", b"WWW-Authenticate"])
def test_a_head_with_a_header_of_one_mailbox_is_not_remembered(name: bytes) -> None:
    read(OK + name + b": of-ann\r\nContent-Length: 0\r\n\r\n")

    assert not any(b"of-ann" in block for block in http1_reader._known)


def test_few_heads_are_remembered_and_no_long_ones() -> None:
    for number in range(HEADS_KEPT + 10):
        read(OK + b"X: %d\r\nContent-Length: 0\r\n\r\n" % number)
    read(OK + b"X: %b\r\nContent-Length: 0\r\n\r\n" % (b"long" * SHORT_HEAD))

    assert len(http1_reader._known) <= HEADS_KEPT
    assert not any(b"longlong" in block for block in http1_reader._known)
