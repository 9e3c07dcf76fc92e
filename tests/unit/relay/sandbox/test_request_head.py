import pytest

from eas_watcher.http2.header_block import Header
from eas_watcher.http2.violations import ErrorCode, Violation
from relay.sandbox.request_head import check_trailers, join, read_head

HEAD: list[Header] = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"mail"), (b":path", b"/?a=1")]


def test_a_head_is_read_as_text_by_name() -> None:
    host: list[Header] = [header for header in HEAD if header[0] != b":authority"] + [(b"host", b"mail")]

    assert read_head([*HEAD, (b"te", b"Trailers"), (b"empty", b""), (b"user", "pä r".encode()), (b"odd", b"\xff")]) == {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "mail",
        ":path": "/?a=1",
        "te": "Trailers",
        "empty": "",
        "user": "pä r",
        "odd": "\ufffd",
    }
    assert read_head(host)["host"] == "mail"
    assert read_head([*HEAD, (b"host", b"mail")])["host"] == "mail"


def test_values_of_one_name_are_joined() -> None:
    names, values = ("cookie", "accept", "cookie", "accept", "from"), ("a=1", "x", "b=2", "y", "z")

    assert join(names, values) == {"cookie": "a=1; b=2", "accept": "x, y", "from": "z"}


@pytest.mark.parametrize(
    "headers",
    [
        HEAD[:3],
        [HEAD[0], HEAD[1], HEAD[3]],
        [*HEAD, HEAD[0]],
        [*HEAD, (b":status", b"200")],
        [*HEAD[:2], (b"accept", b"*"), *HEAD[2:]],
        [*HEAD[:3], (b":path", b"")],
        [*HEAD, (b"host", b"other")],
        [*HEAD, (b"host", b"mail"), (b"host", b"mail")],
        [*HEAD, (b"content-length", b"1"), (b"content-length", b"1")],
        [*HEAD, (b"Accept", b"*")],
        [*HEAD, (b"", b"*")],
        [*HEAD, (b"a b", b"*")],
        [*HEAD, (b"a:b", b"*")],
        [*HEAD, (b"\xc3\xa4", b"*")],
        [*HEAD, (b"connection", b"close")],
        [*HEAD, (b"te", b"gzip")],
        [*HEAD, (b"accept", b"a\nb")],
        [*HEAD, (b"accept", b"a\rb")],
        [*HEAD, (b"accept", b"a\0b")],
        [*HEAD, (b"accept", b" a")],
        [*HEAD, (b"accept", b"a\t")],
    ],
)
def test_a_head_that_breaks_a_rule_is_a_violation(headers: list[Header]) -> None:
    for _ in range(2):  # what is remembered of the names refuses them too
        with pytest.raises(Violation) as violation:
            read_head(headers)
        assert violation.value.code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("trailers", [[(b":path", b"/")], [(b"Upper", b"1")], [(b"upgrade", b"1")], [(b"a", b"1\n2")]])
def test_trailers_have_no_pseudo_headers_and_keep_the_rules(trailers: list[Header]) -> None:
    check_trailers([])
    check_trailers([(b"checksum", b"1")])
    with pytest.raises(Violation):
        check_trailers(trailers)
