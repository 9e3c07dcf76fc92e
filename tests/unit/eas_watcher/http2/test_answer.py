import pytest

from eas_watcher.http2 import answer as answer_module
from eas_watcher.http2.answer import (
    BLOCKS_KEPT,
    SHORT_BLOCK,
    Head,
    HeadReader,
    PartialAnswer,
    check_fields,
    check_interim,
    check_size,
    expected_size,
    read_head,
)
from eas_watcher.http2.header_block import Header, header_block
from eas_watcher.http2.violations import ErrorCode, Malformed, Violation

OK = (b":status", b"200")
LARGEST = 65_536


def read(*headers: Header) -> Head:
    return HeadReader(LARGEST).read(header_block(headers))


def test_the_status_leaves_the_headers() -> None:
    headers = [(b":status", b"449"), (b"server", b"x"), (b"set-cookie", b"")]

    assert read_head(headers) == Head(449, ((b"server", b"x"), (b"set-cookie", b"")), None)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"server", b"x"), OK],
        [OK, OK],
        [(b":status", b"")],
        [(b":status", b"20")],
        [(b":status", b"2000")],
        [(b":status", b"+20")],
        [(b":status", b"099")],
        [(b":status", b"600")],
        [(b":path", b"/")],
        [OK, (b":path", b"/")],
        [OK, (b"", b"x")],
        [OK, (b"Server", b"x")],
        [OK, (b"connection", b"close")],
        [OK, (b"transfer-encoding", b"chunked")],
        [OK, (b"server", b"x\r\nset-cookie: y")],
        [OK, (b"server", b"x\0")],
        [OK, (b"ser\nver", b"x")],
    ],
)
def test_malformed_heads_are_refused(headers: list[Header]) -> None:
    with pytest.raises(Malformed) as refused:
        read_head(headers)

    assert refused.value.code is ErrorCode.PROTOCOL_ERROR


def test_a_head_that_came_before_is_read_alike() -> None:
    head = read(OK, (b"server", b"some"))

    assert read(OK, (b"server", b"some")) is head
    with pytest.raises(Violation, match="longer than its limit"):
        HeadReader(60).read(header_block([OK, (b"server", b"some")]))


def test_a_reader_of_some_headers_reads_a_head_that_another_one_remembers() -> None:
    read(OK, (b"server", b"some"))

    assert HeadReader(LARGEST, frozenset()).read(header_block([OK, (b"server", b"some")])) == Head(200, (), None)


def test_answers_of_which_only_the_status_is_wanted_keep_their_own() -> None:
    heads = HeadReader(LARGEST, frozenset({b"retry-after"}))
    bare, full = header_block([OK]), header_block([OK, (b"retry-after", b"1")])

    found = [heads.read(block) for block in (bare, full, bare, header_block([(b":status", b"503")]))]
    assert found == [
        Head(200, (), None),
        Head(200, ((b"retry-after", b"1"),), None),
        Head(200, (), None),
        Head(503, (), None),
    ]
    for _ in range(2):
        with pytest.raises(Malformed, match="no number from 100 to 599"):
            heads.read(header_block([(b":status", b"099")]))


@pytest.mark.parametrize("name", [b"set-cookie", b"cookie", b"authorization"])
def test_a_head_with_a_header_of_one_mailbox_is_not_remembered(name: bytes) -> None:
    assert read(OK, (name, b"of-ann")).headers == ((name, b"of-ann"),)
    assert not any(b"of-ann" in block for block, _ in answer_module._heads)


def test_few_heads_are_remembered_and_none_of_long_blocks_or_malformed_ones() -> None:
    for number in range(BLOCKS_KEPT + 10):
        read(OK, (b"server", b"%d" % number))
    long = (b"server", b"x" * SHORT_BLOCK)
    read(OK, long)
    for _ in range(2):
        with pytest.raises(Malformed):
            read(OK, (b"upgrade", b"h2"))

    assert len(answer_module._heads) <= BLOCKS_KEPT
    assert (header_block([OK, long]), LARGEST) not in answer_module._heads


def test_trailers_have_no_status() -> None:
    check_fields([(b"server-timing", b"1")])
    with pytest.raises(Malformed):
        check_fields([OK])


@pytest.mark.parametrize(("header", "ends"), [(OK, True), ((b"server-timing", b"1"), False)])
def test_trailers_end_the_answer_and_have_no_status(header: Header, ends: bool) -> None:
    HeadReader(LARGEST).check_trailers(header_block([(b"server-timing", b"1")]), ends=True)
    with pytest.raises(Malformed):
        HeadReader(LARGEST).check_trailers(header_block([header]), ends=ends)


@pytest.mark.parametrize(("status", "ends"), [(101, False), (103, True)])
def test_an_interim_answer_does_not_end_its_stream(status: int, ends: bool) -> None:
    check_interim(Head(103, (), None), ends=False)
    with pytest.raises(Malformed):
        check_interim(Head(status, (), None), ends=ends)


@pytest.mark.parametrize(
    ("values", "size"),
    [([], None), ([b"0"], 0), ([b"12"], 12), ([b"12", b"12"], 12)],
)
def test_a_length_is_read(values: list[bytes], size: int | None) -> None:
    assert expected_size([(b"server", b"x"), *((b"content-length", value) for value in values)]) == size


@pytest.mark.parametrize("values", [[b""], [b"-1"], [b"1", b"2"], [b"1" * 19], [b"0x1"]])
def test_a_length_that_is_none_is_refused(values: list[bytes]) -> None:
    with pytest.raises(Violation, match="length"):
        expected_size([(b"content-length", value) for value in values])


@pytest.mark.parametrize(("size", "expected", "status"), [(5, None, 200), (5, 5, 200), (0, 5, 304), (0, 0, 200)])
def test_bodies_of_the_right_length(size: int, expected: int | None, status: int) -> None:
    check_size(size, Head(status, (), expected))


@pytest.mark.parametrize(("size", "expected", "status"), [(4, 5, 200), (6, 5, 200), (0, 5, 200), (1, 5, 304)])
def test_bodies_of_another_length_are_refused(size: int, expected: int, status: int) -> None:
    with pytest.raises(Violation, match="announced"):
        check_size(size, Head(status, (), expected))


@pytest.mark.parametrize("pieces", [[], [b"whole"], [b"two ", b"pieces"]])
def test_a_body_is_joined(pieces: list[bytes]) -> None:
    answer = PartialAnswer(Head(200, (), None))
    answer.pieces += pieces
    answer.size = len(b"".join(pieces))

    assert answer.body() == b"".join(pieces)


def test_a_body_that_ends_early_is_refused() -> None:
    answer = PartialAnswer(Head(200, (), 9))

    with pytest.raises(Violation):
        answer.body()
