import pytest

from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import ProtocolViolation
from eas_watcher.transport.target import Endpoint, Origin, Target, http1_request, target_of


def asked(url: str, method: str = "POST", body: bytes = b"", **headers: str) -> HttpRequest:
    return HttpRequest(method, url, headers, body, 30.0)


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "path"),
    [
        ("https://mail.example.com/eas?x=%41#y", "mail.example.com", 443, "mail.example.com", "/eas?x=%41"),
        ("https://Mail.Example.com.:8443", "mail.example.com", 8443, "mail.example.com:8443", "/"),
        ("http://10.0.0.1:80?q", "10.0.0.1", 80, "10.0.0.1", "/?q"),
        ("https://[2001:DB8::1]:443/", "2001:db8::1", 443, "[2001:db8::1]", "/"),
        ("https://büro.example/", "xn--bro-hoa.example", 443, "xn--bro-hoa.example", "/"),
        ("http://mail_1:/", "mail_1", 80, "mail_1", "/"),
        ("https://h/eas??a=?", "h", 443, "h", "/eas??a=?"),
        ("https://h/eas?", "h", 443, "h", "/eas?"),
        ("https://h/eas#a?b", "h", 443, "h", "/eas"),
        ("https://h#a", "h", 443, "h", "/"),
    ],
)
def test_reads_a_url(url: str, host: str, port: int, authority: str, path: str) -> None:
    origin = Origin(url.startswith("https:"), Endpoint(host, port))

    assert target_of(asked(url)) == Target(origin, authority, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///eas",
        "ftp://mail.example.com/",
        "mail.example.com/eas",
        "https://ann:secret@mail.example.com/",
        "https://mail.example.com:0/",
        "https://mail.example.com:65536/",
        "https://mail.example.com:x/",
        "https://mail.example.com\\@evil.example/",
        "https://.example.com/",
        "https://mail..example.com/",
        "https://mail example.com/",
        "https://mail%2eexample.com/",
        "https://[::1/",
        "https://mail.example.com/a b",
        "https://mail.example.com/é",
        "https://mail.example.com/\r\nX: y",
        "https://mail.example.com/\x00",
        "https://mail.example.com/\x7f",
        "https://mail.example.com/?a b",
        "https://mail.example.com/?é",
        "https://mail.example.com?\r\nX: y",
        "https://mail.example.com/?\x7f",
    ],
)
def test_refuses_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(ProtocolViolation, match="no valid URL"):
        target_of(asked(url))


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b"])
def test_refuses_a_header_that_would_be_two(value: str) -> None:
    with pytest.raises(ProtocolViolation, match="line break"):
        target_of(asked("https://mail.example.com/", Cookie=value))


def test_writes_a_request() -> None:
    request = asked("https://mail.example.com/eas?Cmd=Ping", body=b"\x03\x01", Cookie="a=\udcff")

    assert http1_request(request, target_of(request)) == (
        b"POST /eas?Cmd=Ping HTTP/1.1\r\nHost: mail.example.com\r\nCookie: a=\xff\r\nContent-Length: 2\r\n\r\n\x03\x01"
    )


@pytest.mark.parametrize(("method", "length"), [("POST", b"Content-Length: 0\r\n"), ("OPTIONS", b""), ("GET", b"")])
def test_says_how_long_the_body_of_a_post_is_even_if_it_is_empty(method: str, length: bytes) -> None:
    request = asked("http://h/", method)

    assert http1_request(request, target_of(request)) == b"%b / HTTP/1.1\r\nHost: h\r\n%b\r\n" % (
        method.encode(),
        length,
    )
