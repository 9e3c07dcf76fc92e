"""Headers and small bodies of a hostile server: each is read, or breaks the protocol, and none takes long."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import process_time

import pytest

from eas_watcher.auth.bearer import read_challenge, read_schemes
from eas_watcher.auth.grant import OAuthClient, audience_of, read_issued
from eas_watcher.auth.negotiate import read_refusal
from eas_watcher.autodiscover import json, pox
from eas_watcher.autodiscover.urls import eas_location, followed
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import SMALL, HttpReply
from eas_watcher.errors import EasError
from eas_watcher.retry_after import retry_after

NOW = datetime(2026, 11, 29, tzinfo=UTC)
LINE = 8190  # octets of one header, the most that aiohttp reads
JOINED = 60_000  # octets of a header that came in several lines
CPU = 1.0  # seconds; they take 33 ms at most
HOSTS = {"mail.example.com"}
CLIENT = OAuthClient("https://login.example.com/token", "client")


def options(text: str) -> object:
    return Options().read(HttpReply(200, {"ms-asprotocolversions": text, "ms-asprotocolcommands": text}, b""))


def wait(text: str) -> object:
    return retry_after(text, NOW)


def issued(body: bytes) -> object:
    return read_issued(HttpReply(200, {}, body), CLIENT, NOW)


def url(body: bytes) -> object:
    return json.read_url(HttpReply(200, {}, body))


def follow(text: str) -> object:
    return eas_location(text, HOSTS), followed(text, HOSTS)


def long(*units: str, length: int, before: str = "") -> list[str]:
    return [before + unit * (length // len(unit)) for unit in units]


def check(read: Callable[[str], object] | Callable[[bytes], object], hostile: str | bytes) -> None:
    began = process_time()
    with suppress(EasError):
        read(hostile)  # type: ignore[arg-type]  # each reader gets its own kind
    assert process_time() - began < CPU


@pytest.mark.parametrize(
    "text",
    [
        *long("9", " ", "(", "()", "1 ", "a,", "-", ":", "1:", "\\(", "\u0661", length=LINE),
        "9." + "9" * LINE,
        "Fri, 31 Dec " + "9" * 4000 + " 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -9999",
    ],
)
def test_a_wait(text: str) -> None:
    check(wait, text)


@pytest.mark.parametrize("read", [read_challenge, read_schemes, read_refusal, options])
@pytest.mark.parametrize(
    "text",
    [
        *long('a="b",', ",", " ", "a=", 'a=" ', 'a="\\"', "\\", length=JOINED, before="Bearer "),
        *long("a ", "a,", '"', "a", "1.,", "14.1,", "9", ".", length=JOINED),
        'Bearer a="' + "\\" * JOINED,
        'Basic realm="' + 'x"' * (JOINED // 2),
        "Negotiate " + "A" * JOINED,
    ],
)
def test_a_header_of_many_lines(read: Callable[[str], object], text: str) -> None:
    check(read, text)


@pytest.mark.parametrize("read", [issued, url])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * SMALL,
        b'{"a":' * (SMALL // 5),
        b'{"a":1,' * (SMALL // 7),
        b'{"access_token":' + b"9" * SMALL + b"}",
        b'{"access_token":"a","token_type":"bearer","expires_in":"' + b"9" * SMALL + b'"}',
        b'{"access_token":"a","token_type":"bearer","expires_in":1e' + b"9" * 1000 + b"}",
        b'"' + b"\\u0041" * (SMALL // 6) + b'"',
        b"\xff\xfe" + b"[\0" * (SMALL // 2),
    ],
)
def test_json(read: Callable[[bytes], object], body: bytes) -> None:
    check(read, body)


@pytest.mark.parametrize("text", ["a." + urlsafe_b64encode(b"[" * 100_000).decode() + ".c", "." * SMALL])
def test_a_token(text: str) -> None:
    check(audience_of, text)


@pytest.mark.parametrize(
    "body",
    [
        b"<a>" * (pox.LARGEST // 3),
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
        b"<a " + b"".join(b"a%d='x' " % number for number in range(5000)) + b"/>",
        b"<a " + b"".join(b"xmlns:n%d='u%d' " % (number, number) for number in range(2500)) + b"/>",
        b"<a xmlns='" + b"u" * 3000 + b"'>" + b"<b/>" * 12_000 + b"</a>",
        b"<a b='" + b"x" * 60_000 + b"'/>",
        b"<" + b"a" * 65_000 + b">",
        b"<a>" + b"&lt;" * 15_000 + b"</a>",
        b"<a>" + b"x\n" * 30_000 + b"</a>",
        b"<?xml version='1.0' encoding='utf-16'?>" + b"<a>" * 1000,
        b"<Autodiscover><Response><Action><Settings><Server>" + b"<Url>x</Url>" * 5000,
    ],
)
def test_xml(body: bytes) -> None:
    check(pox.read, body)


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "a" * LINE,
        "https://[" + ":" * LINE + "]/",
        "https://mail.example.com:" + "9" * 5000 + "/",
        "https://mail.example.com/" + "a" * LINE,
        "https://" + "a." * 800 + "/",
    ],
)
def test_a_location(text: str) -> None:
    check(follow, text)
