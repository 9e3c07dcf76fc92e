import pytest

from eas_watcher.http2.answer import PartialAnswer, check_fields, check_size, expected_size, read_head
from eas_watcher.http2.header_block import Header
from eas_watcher.http2.violations import ErrorCode, Violation

OK = (b":status", b"200")


def test_the_status_leaves_the_headers() -> None:
    headers = [(b":status", b"449"), (b"server", b"x"), (b"set-cookie", b"")]

    assert read_head(headers) == 449
    assert headers == [(b"server", b"x"), (b"set-cookie", b"")]


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
    with pytest.raises(Violation) as refused:
        read_head(headers)

    assert refused.value.code is ErrorCode.PROTOCOL_ERROR


def test_trailers_have_no_status() -> None:
    check_fields([(b"server-timing", b"1")])
    with pytest.raises(Violation):
        check_fields([OK])


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
    check_size(size, expected, status)


@pytest.mark.parametrize(("size", "expected", "status"), [(4, 5, 200), (6, 5, 200), (0, 5, 200), (1, 5, 304)])
def test_bodies_of_another_length_are_refused(size: int, expected: int, status: int) -> None:
    with pytest.raises(Violation, match="announced"):
        check_size(size, expected, status)


@pytest.mark.parametrize("pieces", [[], [b"whole"], [b"two ", b"pieces"]])
def test_a_body_is_joined(pieces: list[bytes]) -> None:
    answer = PartialAnswer(200, [])
    answer.pieces += pieces
    answer.size = len(b"".join(pieces))

    assert answer.body() == b"".join(pieces)


def test_a_body_that_ends_early_is_refused() -> None:
    answer = PartialAnswer(200, [(b"content-length", b"9")])

    with pytest.raises(Violation):
        answer.body()
