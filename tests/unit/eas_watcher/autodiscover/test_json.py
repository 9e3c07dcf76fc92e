import pytest

from eas_watcher.autodiscover.json import question, read_url
from eas_watcher.commands.request import HttpReply


def test_asks_without_anything_but_the_address() -> None:
    assert question("autodiscover.example.com", "ann+x@example.com") == (
        "https://autodiscover.example.com/autodiscover/autodiscover.json"
        "?Email=ann%2Bx%40example.com&Protocol=ActiveSync&RedirectCount=1"
    )


@pytest.mark.parametrize("protocol", ["ActiveSync", "activesync"])
def test_reads_the_url(protocol: str) -> None:
    body = f'{{"Protocol": "{protocol}", "Url": "https://mail.example.com/eas"}}'.encode()

    assert read_url(HttpReply(200, {}, body)) == "https://mail.example.com/eas"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"Protocol": "ActiveSync", "Url": "https://mail.example.com/eas"}'),
        (400, b'{"ErrorCode": "InvalidProtocol"}'),
        (200, b""),
        (200, b"<html>"),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (200, b'["ActiveSync"]'),
        (200, b'{"Url": "https://mail.example.com/eas"}'),
        (200, b'{"Protocol": "EWS", "Url": "https://mail.example.com/eas"}'),
        (200, b'{"Protocol": "ActiveSync"}'),
        (200, b'{"Protocol": "ActiveSync", "Url": ""}'),
        (200, b'{"Protocol": "ActiveSync", "Url": {"x": 1}}'),
    ],
)
def test_everything_else_is_no_answer(status: int, body: bytes) -> None:
    assert read_url(HttpReply(status, {}, body)) is None
