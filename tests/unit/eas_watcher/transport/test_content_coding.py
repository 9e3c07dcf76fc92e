import gzip
import zlib

import pytest

from eas_watcher.errors import ProtocolViolation
from eas_watcher.transport.content_coding import decoded

RAW = zlib.compress(b"hello", wbits=-15)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"hello", ""),
        (b"hello", "br"),
        (b"hello", "identity"),
        (gzip.compress(b"hello", mtime=0), "gzip"),
        (gzip.compress(b"hello", mtime=0), " X-GZip"),
        (zlib.compress(b"hello"), "deflate"),
        (RAW, "deflate"),
    ],
)
def test_returns_what_a_body_holds(body: bytes, coding: str) -> None:
    assert decoded(body, coding, 5) == b"hello"


def test_an_empty_body_stays_empty_whatever_its_coding() -> None:
    assert decoded(b"", "gzip", 5) == b""


@pytest.mark.parametrize(
    ("body", "coding"), [(gzip.compress(bytes(10**6), mtime=0), "gzip"), (zlib.compress(bytes(6)), "deflate")]
)
def test_says_when_it_is_too_large(body: bytes, coding: str) -> None:
    assert decoded(body, coding, 5) is None


@pytest.mark.parametrize(
    ("body", "coding"), [(b"hello", "gzip"), (gzip.compress(b"hello", mtime=0)[:-9], "gzip"), (b"\xff\xff", "deflate")]
)
def test_refuses_what_is_not_what_its_coding_says(body: bytes, coding: str) -> None:
    with pytest.raises(ProtocolViolation, match="Content-Encoding"):
        decoded(body, coding, 5)
