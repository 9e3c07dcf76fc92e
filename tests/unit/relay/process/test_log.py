import io
import json
import logging
from collections.abc import Iterator
from typing import Any

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
