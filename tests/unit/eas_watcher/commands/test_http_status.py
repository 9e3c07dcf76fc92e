from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eas_watcher.commands.http_status import raise_for_http
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    Unauthorized,
    VersionRefused,
)
from eas_watcher.reasons import Reason
from eas_watcher.wbxml.element import FOLDERHIERARCHY
from eas_watcher.wbxml.encode import encode

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def failure(status: int, **headers: str) -> EasError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(EasError) as caught:
        raise_for_http(HttpReply(status, named, b"canary"), lambda: NOW)
    return caught.value


def wait(retry_after: str, status: int = 503) -> float | None:
    error = failure(status, retry_after=retry_after)
    assert isinstance(error, ServerBusy)
    return error.retry_after


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/vnd.ms-sync.wbxml", b"\x03"), ("", b""), ("text/html; charset=UTF-8", b"")],
)
def test_an_answer_with_status_200_is_read(content_type: str, body: bytes) -> None:
    raise_for_http(HttpReply(200, {"content-type": content_type}, body), lambda: NOW)
    raise_for_http(HttpReply(200, {}, body), lambda: NOW)


@pytest.mark.parametrize("content_type", ["text/html", "Text/HTML; charset=utf-8"])
def test_a_web_page_is_no_answer(content_type: str) -> None:
    assert isinstance(failure(200, content_type=content_type), ProtocolViolation)


@pytest.mark.parametrize(
    ("remedy", "statuses"),
    [
        (Unauthorized, (401,)),
        (AccessDenied, (301, 302, 303, 307, 308, 403, 404, 405, 407, 440, 441, 451, 456, 457)),
        (NotProvisioned, (449,)),
        (RequestRefused, (413,)),
        (VersionRefused, (400, 505)),
        (ServerBusy, (408, 409, 429, 500, 501, 502, 503, 504, 507, 599)),
        (ProtocolViolation, (100, 201, 204, 206, 402, 406, 410, 411, 415, 418, 600)),
    ],
)
def test_each_status_raises_the_error_that_it_means(remedy: type[EasError], statuses: tuple[int, ...]) -> None:
    for status in statuses:
        error = failure(status)
        assert type(error) is remedy
        assert str(status) in str(error)


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "http-403"), (404, "http-404"), (456, "http-456"), (302, "http-redirect"), (308, "http-redirect")],
)
def test_a_denial_names_its_code_for_operators(status: int, code: str) -> None:
    error = failure(status, location="https://elsewhere.example.com/")

    assert isinstance(error, AccessDenied)
    assert error.reason == code


@pytest.mark.parametrize(
    ("status", "remedy"), [(129, AccessDenied), (140, RemoteWipeRequested), (142, NotProvisioned), (111, ServerBusy)]
)
def test_the_body_of_a_403_may_have_the_common_status_that_is_its_cause(status: int, remedy: type[EasError]) -> None:
    body = encode(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("Status", str(status))))

    with pytest.raises(EasError, match=rf"HTTP 403 .*\b{status}\b") as caught:
        raise_for_http(HttpReply(403, {"content-type": "application/vnd.ms-sync.wbxml"}, body), lambda: NOW)

    assert type(caught.value) is remedy


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/vnd.ms-sync.wbxml", b"\x03\x01"),
        ("application/vnd.ms-sync.wbxml", b""),
        ("application/vnd.ms-sync.wbxml", encode(FOLDERHIERARCHY("FolderSync"))),
        ("application/vnd.ms-sync.wbxml", encode(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("Status", "1")))),
        ("application/vnd.ms-sync.wbxml", encode(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("Status", "9")))),
        ("text/html", encode(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("Status", "129")))),
    ],
)
def test_a_403_without_a_common_status_is_an_ordinary_403(kind: str, body: bytes) -> None:
    with pytest.raises(AccessDenied) as caught:
        raise_for_http(HttpReply(403, {"content-type": kind}, body), lambda: NOW)

    assert caught.value.reason == Reason.HTTP_403


def test_451_names_another_url() -> None:
    error = failure(451, x_ms_location=" https://eas2.example.com/Microsoft-Server-ActiveSync ")

    assert isinstance(error, Redirected)
    assert error.location == "https://eas2.example.com/Microsoft-Server-ActiveSync"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("1.5", 1.5),
        ("7.", 7.0),
        ("0", 1.0),
        ("0.25", 1.0),
        ("86400", 3600.0),
        ("Tue, 24 Nov 2026 12:05:00 GMT", 300.0),
        ("Tue, 24 Nov 2026 12:05:00 -0000", 300.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 1.0),
        ("Tue, 24 Nov 2099 12:00:00 GMT", 3600.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("05 Mar 99999999999999999999 12:61 06 GMT", None),
    ],
)
def test_reads_retry_after_in_all_its_forms(text: str, seconds: float | None) -> None:
    assert wait(text) == seconds


@given(st.text(max_size=40))
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_any_retry_after_is_a_bounded_wait_or_none(text: str) -> None:
    seconds = wait(text)

    assert seconds is None or 1 <= seconds <= 3600


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_every_busy_status_may_name_a_wait(status: int) -> None:
    assert wait("30", status) == 30.0


@pytest.mark.parametrize(("retry_after", "seconds"), [("", 60.0), ("5", 60.0), ("300", 300.0)])
def test_throttling_waits_at_least_a_minute(retry_after: str, seconds: float) -> None:
    error = failure(503, retry_after=retry_after, x_ms_asthrottle="CommandFrequency")

    assert isinstance(error, ServerBusy)
    assert error.retry_after == seconds


def test_a_full_mailbox_waits_a_quarter_of_an_hour() -> None:
    assert wait("1", 507) == 900.0


@pytest.mark.parametrize(("status", "reached"), [(503, False), (429, False), (409, True), (500, True), (504, True)])
def test_says_whether_the_server_may_have_acted(status: int, *, reached: bool) -> None:
    error = failure(status)

    assert isinstance(error, ServerBusy)
    assert error.reached is reached


@pytest.mark.parametrize(
    ("status", "shared"), [(503, True), (429, True), (502, True), (504, True), (500, False), (409, False)]
)
def test_says_which_failures_concern_all_mailboxes(status: int, *, shared: bool) -> None:
    error, throttled = failure(status), failure(status, x_ms_asthrottle="RecentCommands")

    assert isinstance(error, ServerBusy)
    assert isinstance(throttled, ServerBusy)
    assert (error.shared, throttled.shared) == (shared, False)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 409, 418, 449, 451, 456, 500, 503, 507])
def test_texts_quote_nothing_of_the_answer(status: int) -> None:
    error = failure(
        status,
        content_type="text/html; canary",
        location="https://canary.example.com",
        www_authenticate="canary",
        x_ms_asthrottle="canary",
        retry_after="canary",
    )

    assert "canary" not in str(error)
