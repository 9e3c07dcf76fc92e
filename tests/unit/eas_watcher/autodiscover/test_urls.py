import pytest

from eas_watcher.autodiscover.urls import LONGEST, eas_location, followed, host_and_port, resolved

HOSTS = frozenset({"mail.example.com", "mail.example.com:8443", "[2001:db8::1]"})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://mail.example.com/eas", "https://mail.example.com/eas"),
        ("https://MAIL.Example.com:443", "https://mail.example.com/Microsoft-Server-ActiveSync"),
        ("https://mail.example.com:8443/", "https://mail.example.com:8443/Microsoft-Server-ActiveSync"),
        ("https://mail.example.com/eas?User=ann&Cmd=Ping#x", "https://mail.example.com/eas"),
        ("https://[2001:DB8::1]/eas", "https://[2001:db8::1]/eas"),
    ],
)
def test_an_allowed_location_is_followed(text: str, url: str) -> None:
    assert eas_location(text, HOSTS) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/eas",
        "//mail.example.com/eas",
        "http://mail.example.com/eas",
        "https://",
        "https:///eas",
        "https://other.example.com/eas",
        "https://mail.example.com.other.example.com/eas",
        "https://mail.example.com:8444/eas",
        "https://mail.example.com:0/eas",
        "https://mail.example.com:99999/eas",
        "https://mail.example.com:x/eas",
        "https://mail.example.com@other.example.com/eas",
        "https://ann:secret@mail.example.com/eas",
        "https://other.example.com\\@mail.example.com/eas",
        "https://mail.example.com/e as",
        "https://mail.example.com/e\r\nX: y",
        "https://mail.example.com/ä",
        "https://[mail.example.com/eas",
        "https://mail.example.com/" + "x" * LONGEST,
    ],
)
def test_no_other_location_is_followed(text: str) -> None:
    assert eas_location(text, HOSTS) is None
    assert followed(text, HOSTS) is None


def test_a_followed_redirect_keeps_its_query() -> None:
    assert followed("https://MAIL.example.com/a?b=c#d", HOSTS) == "https://mail.example.com/a?b=c"


def test_host_and_port_names_a_host_without_the_usual_port() -> None:
    assert host_and_port("https://Mail.Example.com:443/x") == "mail.example.com"
    assert host_and_port("https://mail.example.com:8443") == "mail.example.com:8443"
    assert host_and_port("https://a_b<script>/") is None


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/a?b=c", "https://mail.example.com:8443/a?b=c"),
        ("//mail.example.com/a", "//mail.example.com/a"),
        ("https://other.example.com/a", "https://other.example.com/a"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_only_a_path_stays_at_the_host_that_was_asked(location: str, url: str) -> None:
    assert resolved(location, "https://mail.example.com:8443/autodiscover/autodiscover.xml") == url
