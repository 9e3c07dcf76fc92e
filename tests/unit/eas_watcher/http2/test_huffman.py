import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.http2.huffman import ALL, END, lengths, unhuffman
from eas_watcher.http2.violations import ErrorCode, Violation

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def test_the_code_has_all_symbols_and_the_lengths_of_the_specification() -> None:
    found = {symbol: length for length, symbols in lengths() for symbol in symbols}

    assert found == dict(enumerate(REQUEST_CODES_LENGTH))
    assert len(found) == ALL
    assert found[END] == 30


@pytest.mark.parametrize(
    ("coded", "text"),
    [
        ("", b""),
        # [RFC 7541 C.4.1, C.4.2, C.6.1]
        ("f1e3 c2e5 f23a 6ba0 ab90 f4ff", b"www.example.com"),
        ("a8eb 1064 9cbf", b"no-cache"),
        ("d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    ],
)
def test_strings_of_the_specification(coded: str, text: bytes) -> None:
    assert unhuffman(bytes.fromhex(coded)) == text


@given(st.binary())
def test_every_string_is_read_back(text: bytes) -> None:
    assert unhuffman(ENCODER.encode(text)) == text


@pytest.mark.parametrize(
    "coded",
    [
        "ff",  # eight bits of padding
        "18",  # "a" and three bits that are not 1
        "1c",  # the same, in the middle of another code
        "ffff ffff",  # the end of the string, which is not written
        "1fff ffff ff",  # "a", then the end
    ],
)
def test_what_is_no_string_is_refused(coded: str) -> None:
    with pytest.raises(Violation) as refused:
        unhuffman(bytes.fromhex(coded))

    assert refused.value.code is ErrorCode.COMPRESSION_ERROR
