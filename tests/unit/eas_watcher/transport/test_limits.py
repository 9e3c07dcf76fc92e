from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.errors import ProtocolViolation
from eas_watcher.transport.limits import BODY_LINES, FRAMING, HEADS, INTERIM, LINES, PIECE, PIECES, AnswerLimits

LARGEST = 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def passed(*pieces: bytes) -> bytes:
    limits = AnswerLimits(LARGEST)
    return b"".join(map(limits.pass_on, pieces))


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"hello",
        CONTINUE + HEAD + b"hello",
        CONTINUE * INTERIM + HEAD,
        b"HTTP/1.1 200 OK\nX: y\n\nbody",
        b"HTTP/1.0 404\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + CONTINUE * (INTERIM + 1),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (LINES - 2) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (HEADS - 24) + b"\r\n\r\n",
        HEAD + bytes(FRAMING * LARGEST + HEADS),
    ],
)
def test_passes_on_an_answer_within_the_limits(answer: bytes) -> None:
    assert passed(answer) == answer
    assert passed(*(answer[at : at + 1] for at in range(min(len(answer), 400))), answer[400:]) == answer


def test_holds_a_head_back_until_it_is_whole() -> None:
    limits = AnswerLimits(LARGEST)

    assert [limits.pass_on(piece) for piece in (HEAD[:-1], HEAD[-1:] + b"he", b"llo")] == [b"", HEAD + b"he", b"llo"]


def test_leaves_out_empty_lines_before_a_head() -> None:
    assert passed(b"\r\n\r", b"\n" + CONTINUE + b"\r\n" + HEAD) == CONTINUE + HEAD


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (CONTINUE * (INTERIM + 1), "interim"),
        (b"HTTP/1.1 102 x\n\n" * (INTERIM + 1), "interim"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEADS, "larger than 64 KiB"),
        (
            b"HTTP/1.1 103 x\r\nX: " + b"y" * (HEADS // 2) + b"\r\n\r\n" + HEAD[:-4] + b"\r\nX: " + b"y" * (HEADS // 2),
            "64 KiB",
        ),
        (b"\r\n" * HEADS, "larger than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LINES + b"\r\n", "lines"),
        (HEAD + bytes(FRAMING * LARGEST + HEADS + 1), "too large"),
        (HEAD + b"1\r\nx\r\n" * 20_000, "too large"),
        (b"220 mail.example.com ESMTP\r\n", "not HTTP"),
        (b"HTTX", "not HTTP"),
        (b"HTTP/1.1 1000 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 100Continue\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1\r\n\r\n", "not HTTP"),
    ],
)
def test_refuses_an_answer_beyond_a_limit(answer: bytes, error: str) -> None:
    with pytest.raises(ProtocolViolation, match=error):
        passed(answer)
    with pytest.raises(ProtocolViolation, match=error):
        passed(*(answer[at : at + 1000] for at in range(0, len(answer), 1000)))


def test_refuses_an_answer_that_drips() -> None:
    limits = AnswerLimits(LARGEST)
    limits.pass_on(HEAD)
    drip = (limits.pass_on(b"x") for _ in range(PIECES * 2))
    taken = sum(map(len, islice(drip, PIECES)))

    assert taken == PIECES
    with pytest.raises(ProtocolViolation, match="too many pieces"):
        b"".join(drip)


def test_takes_any_number_of_pieces_of_a_packets_length() -> None:
    limits = AnswerLimits(8 << 20)
    limits.pass_on(HEAD)
    for _ in range((8 << 20) // PIECE):
        limits.pass_on(bytes(PIECE))


def test_refuses_a_body_in_too_many_chunks() -> None:
    limits = AnswerLimits(LARGEST * 10_000)
    limits.pass_on(HEAD + b"1\r\nx\r\n" * (BODY_LINES // 2))

    with pytest.raises(ProtocolViolation, match="too many chunks"):
        limits.pass_on(b"1\r\nx\r\n")


@given(st.lists(st.binary(max_size=80)))
def test_what_is_passed_on_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    assert passed(CONTINUE[:9], CONTINUE[9:], HEAD, *pieces) == CONTINUE + HEAD + b"".join(pieces)
