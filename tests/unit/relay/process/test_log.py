import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from relay.process.log import FLOORS, configure

log = logging.getLogger("relay.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in FLOORS}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, floor in levels.items():
        logging.getLogger(name).setLevel(floor)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_json_line_has_timestamp_level_logger_event_and_fields(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    log.info("ping answered", extra={"mailbox": "00ff", "status": 2})

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "relay.test",
        "event": "ping answered",
        "mailbox": "00ff",
        "status": 2,
    }


def test_a_text_line_reads_from_left_to_right(stream: io.StringIO) -> None:
    configure("info", "text", stream)
    log.warning("watch waits", extra={"reason": "unreachable", "device_token": "canary"})

    assert "WARNING relay.test: watch waits device_token='<secret>' reason='unreachable'" in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_keeps_its_traceback(stream: io.StringIO, form: Any) -> None:
    configure("info", form, stream)
    try:
        fail("no such shard")
    except ValueError:
        log.exception("lost", extra={"shard": 3})

    assert "Traceback" in stream.getvalue()
    assert "no such shard" in stream.getvalue()


def test_levels_below_the_configured_one_are_silent(stream: io.StringIO) -> None:
    configure("warning", "json", stream)
    log.info("nothing")
    log.warning("something")

    assert [line["event"] for line in lines(stream)] == ["something"]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "name",
    ["password", "secret", "secret_hash", "device_token", "Authorization", "credential", "api_key", "Set-Cookie"],
)
def test_fields_named_like_secrets_are_hidden_at_any_depth(stream: io.StringIO, form: Any, name: str) -> None:
    configure("debug", form, stream)
    log.info("sent", extra={name: "canary", "outer": {"inner": [{name: "canary"}]}, "raw": {name: b"canary"}})

    assert "canary" not in stream.getvalue()
    assert stream.getvalue().count("<secret>") == 3


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "text",
    [
        "request with Authorization: Basic Y2FuYXJ5OmNhbmFyeQ==",
        "request with {'Authorization': 'Basic Y2FuYXJ5OmNhbmFyeQ==', 'User-Agent': 'x'}",
        "header bearer Y2FuYXJ5.Y2FuYXJ5",
        'authorization="Digest response=Y2FuYXJ5"',
    ],
)
def test_authorization_headers_in_texts_are_hidden(stream: io.StringIO, form: Any, text: str) -> None:
    configure("debug", form, stream)
    log.info("%s", text)
    log.info("sent", extra={"request": text, "parts": (text, ValueError(text))})
    try:
        fail(text)
    except ValueError:
        log.exception("failed")

    assert "Y2FuYXJ5" not in stream.getvalue()
    assert "<secret>" in stream.getvalue()


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_libraries_that_print_bodies_stay_at_their_floor_even_at_debug(stream: io.StringIO, name: str) -> None:
    configure("debug", "json", stream)
    child = logging.getLogger(f"{name}.child")
    child.setLevel(logging.DEBUG)
    try:
        logging.getLogger(name).debug("canary")
        child.debug("canary")
        child.error("refused")
    finally:
        child.setLevel(logging.NOTSET)

    assert [line["event"] for line in lines(stream)] == ["refused"]
    assert not logging.getLogger(name).isEnabledFor(logging.DEBUG)


def test_configuring_again_replaces_the_stream(stream: io.StringIO) -> None:
    configure("info", "json", io.StringIO())
    configure("info", "json", stream)
    log.info("once")

    assert len(lines(stream)) == 1


def test_texts_and_values_that_only_mention_secrets_are_not_hidden(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    log.info("credential refused", extra={"reason": "token-gone", "attempts": 2, "shares": {1: 0.5}, "late": None})

    (line,) = lines(stream)
    assert line["event"] == "credential refused"
    assert (line["reason"], line["attempts"], line["shares"], line["late"]) == ("token-gone", 2, {"1": 0.5}, None)


def test_a_field_never_replaces_the_text_of_the_event(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    log.info("watch stepped", extra={"event": "Woken", "level": 7})

    (line,) = lines(stream)
    assert (line["event"], line["level"]) == ("watch stepped", "info")
    assert (line["event_"], line["level_"]) == ("Woken", 7)


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+") as stream:
        yield stream


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        yield sock


def to_journal(stderr: TextIO, tmp_path: Path) -> None:
    found = os.fstat(stderr.fileno())
    stream = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    configure("debug", "journal", stderr, stream, str(tmp_path / "socket"))


def entry(journal: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())


def test_the_journal_gets_fields(stderr: TextIO, journal: socket.socket, tmp_path: Path) -> None:
    to_journal(stderr, tmp_path)
    log.warning("watch waits", extra={"reason": "unreachable", "status": 2, "event": "mine", "device_token": "canary"})

    assert entry(journal) == {
        "MESSAGE": "watch waits device_token='<secret>' event_='mine' reason='unreachable' status=2",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "push-relay",
        "RELAY_EVENT": "watch waits",
        "RELAY_LOGGER": "relay.test",
        "RELAY_REASON": "unreachable",
        "RELAY_STATUS": "2",
        "RELAY_EVENT_": "mine",
        "RELAY_DEVICE_TOKEN": "<secret>",
    }
    assert Path(stderr.name).read_text() == ""


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_the_journal_gets_the_priority_of_a_level(
    stderr: TextIO, journal: socket.socket, tmp_path: Path, level: str, priority: int
) -> None:
    to_journal(stderr, tmp_path)
    log.log(logging.getLevelNamesMapping()[level.upper()], "something")

    assert entry(journal)["PRIORITY"] == str(priority)


def test_the_journal_gets_a_traceback_with_the_message(stderr: TextIO, journal: socket.socket, tmp_path: Path) -> None:
    to_journal(stderr, tmp_path)
    try:
        fail("Authorization: Basic dTpwYXNzd29yZA==")
    except ValueError:
        log.exception("lost")

    received = journal.recv(65536).decode(errors="replace")
    assert received.count("Traceback") == 2  # MESSAGE, for people; RELAY_EXCEPTION
    assert "dTpwYXNzd29yZA" not in received


def test_what_the_journal_does_not_take_is_written_as_a_line(stderr: TextIO, tmp_path: Path) -> None:
    to_journal(stderr, tmp_path)
    log.info("ping answered", extra={"status": 2, "password": "canary"})

    line = json.loads(Path(stderr.name).read_text())
    assert (line["event"], line["status"], line["password"]) == ("ping answered", 2, "<secret>")


def test_where_standard_error_is_not_the_journal_it_gets_json(stream: io.StringIO) -> None:
    configure("info", "journal", stream, {"JOURNAL_STREAM": "8:1"})
    log.info("ping answered")

    assert [line["event"] for line in lines(stream)] == ["ping answered"]
