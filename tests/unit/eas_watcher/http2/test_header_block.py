import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_watcher.http2.header_block import (
    NAMES_KEPT,
    NO_TABLE,
    STATIC,
    Header,
    HeaderReader,
    header_block,
    header_field,
    integer,
    string,
)
from eas_watcher.http2.violations import ErrorCode, Violation

NAMES = st.one_of(st.sampled_from([name for name, _ in STATIC]), st.binary(min_size=1, max_size=200))
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=200)))
LARGEST = 65_536


def read(block: bytes) -> list[Header]:
    return HeaderReader(LARGEST).read(block)


def their_block(headers: list[Header], *, huffman: bool = True) -> bytes:
    """Return what hpack's encoder writes once it knows that we have no table."""
    encoder = Encoder()
    encoder.header_table_size = 0
    block: bytes = encoder.encode(headers, huffman=huffman)
    return block


def test_the_static_table_is_that_of_the_specification() -> None:
    assert HeaderTable.STATIC_TABLE == STATIC


@given(HEADERS)
@settings(max_examples=40)
def test_another_implementation_reads_what_we_write(headers: list[Header]) -> None:
    decoder = Decoder(max_header_list_size=1_000_000)
    decoded = decoder.decode(NO_TABLE + header_block(headers), raw=True)

    assert [tuple(header) for header in decoded] == headers
    never = [type(header) is NeverIndexedHeaderTuple for header in decoded]
    assert never == [header not in STATIC for header in headers], "no other reader keeps a value either"


@given(HEADERS, st.booleans())
@settings(max_examples=40)
def test_what_another_implementation_writes_is_read(headers: list[Header], huffman: bool) -> None:
    reader = HeaderReader(1_000_000)

    assert reader.read(their_block(headers, huffman=huffman)) == headers
    assert reader.read(header_block(headers)) == headers


def test_a_literal_that_a_table_might_keep_is_read() -> None:
    assert read(b"\x40" + string(b"name") + string(b"value")) == [(b"name", b"value")]


def test_names_in_huffmans_code_are_remembered() -> None:
    reader = HeaderReader(LARGEST)
    names = [b"name-%d" % number for number in range(NAMES_KEPT + 10)]
    for _ in range(2):
        assert reader.read(their_block([(name, b"1") for name in names])) == [(name, b"1") for name in names]
    long = b"a-name-that-nobody-will-ever-use-again-because-it-is-far-too-long-for-any-header-whatever"
    assert HeaderReader(LARGEST).read(their_block([(long, b"1")])) == [(long, b"1")]


def test_headers_that_nobody_wants_are_left_out_undecoded() -> None:
    reader = HeaderReader(LARGEST, frozenset({b"retry-after"}))
    headers = [(b":status", b"503"), (b"server", b"some"), (b"retry-after", b"120"), (b"apns-id", b"abc")]

    assert reader.read(their_block(headers)) == [(b":status", b"503"), (b"retry-after", b"120")]
    assert reader.read(header_block(headers)) == [(b":status", b"503"), (b"retry-after", b"120")]
    assert reader.read(b"\x0f\x27\x82\xff\xff") == [], "server: what is no string in the code is not looked at"


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (b"\x80", "entry 0"),
        (b"\xbe", "entry 62"),
        (b"\x0f\x2f\x01x", "entry 62"),  # 15 + 47: a name of the table that we do not have
        (b"\x3f\xe1\x1f", "a table"),
        (b"\x88\x20", "a table"),
        (b"\x00\x01a\x05four", "ends early"),
        (b"\x00\x05four", "ends early"),
        (b"\x00", "ends early"),
        (b"\x00\x01a", "ends early"),
        (b"\xff", "ends early"),
        (b"\xff\x80\x80\x80\x80\x80\x01", "without end"),
        (b"\x08\x82\xff\xff", "padding"),
    ],
)
def test_what_is_no_block_without_a_table_is_refused(block: bytes, text: str) -> None:
    with pytest.raises(Violation, match=text) as refused:
        read(block)

    assert refused.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_block_that_is_cut_inside_of_a_header_is_refused() -> None:
    headers = [(b":status", b"200"), (b"apns-id", b"abc"), (b"x" * 200, b"y" * 300)]
    block = header_block(headers)
    for end in range(len(block)):
        if end in {len(header_block(headers[:count])) for count in range(3)}:
            assert read(block[:end]) == headers[: len(read(block[:end]))]
        else:
            with pytest.raises(Violation, match="ends early"):
                read(block[:end])


@pytest.mark.parametrize("wanted", [None, frozenset[bytes]()])
def test_a_list_of_headers_is_limited_whoever_wants_it(wanted: frozenset[bytes] | None) -> None:
    assert HeaderReader(100, wanted).read(header_field(b"name", b"v" * 64)) is not None
    with pytest.raises(Violation, match="longer") as refused:
        HeaderReader(100, wanted).read(header_field(b"name", b"v" * 65))
    assert refused.value.code is ErrorCode.ENHANCE_YOUR_CALM
    with pytest.raises(Violation, match="longer"):
        HeaderReader(1000, wanted).read(b"\x88" * 30)


@pytest.mark.parametrize(
    ("value", "written"),
    # [RFC 7541 C.1]
    [((10, 5), "0a"), ((1337, 5), "1f 9a 0a"), ((42, 8), "2a"), ((31, 5), "1f 00"), ((2, 4, 0x10), "12")],
)
def test_numbers_of_the_specification(value: tuple[int, ...], written: str) -> None:
    assert integer(*value) == bytes.fromhex(written)
