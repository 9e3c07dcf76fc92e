import json
from typing import Any

import pytest

from eas_watcher.names import CollectionClass
from relay.ops.health import PartState
from relay.ops.readings import Reading, is_listener, read, worst_of
from tests.fakes.metrics import Bench

URL = "http://127.0.0.1:9090"
PART = {"part": "database", "state": "degraded", "since": "2026-11-29T14:05:00+00:00", "reason": "slow", "remedy": "x"}


def health(*parts: dict[str, Any]) -> bytes:
    return json.dumps({"state": "ok", "parts": parts}).encode()


async def test_health_and_metrics_of_a_relay_are_read() -> None:
    bench = Bench()
    await bench.fill()
    bench.fleet.changes[CollectionClass.TASKS] = 3

    reading = read(URL, 5.0, health(PART), bench.metrics.render())

    assert (reading.state, reading.parts[0].reason) == (PartState.DEGRADED, "slow")
    assert reading.total("relay_changes_total") == 4
    assert reading.total("relay_changes_total", **{"class": "tasks"}) == 3
    assert reading.label("relay_build_info", "version") == "1.2.3"
    assert (reading.total("relay_nothing"), reading.label("relay_nothing", "x")) == (0, "")


@pytest.mark.parametrize(
    ("told", "metrics"),
    [
        (b"<html>", b""),
        (b"[]", b""),
        (b'{"parts": 5}', b""),
        (b'{"parts": [{"part": "x"}]}', b""),
        (health(PART | {"state": "asleep"}), b""),
        (health(PART), b"no metric at all\n"),
        (health(PART), b"\xff"),
    ],
)
def test_what_no_relay_says_is_refused(told: bytes, metrics: bytes) -> None:
    with pytest.raises(ValueError, match="answers, but not as a relay does"):
        read(URL, 5.0, told, metrics)


def test_a_process_that_says_nothing_has_failed() -> None:
    assert Reading(URL, 0.0, trouble="cannot be reached").state is PartState.FAILED
    assert Reading(URL, 0.0).state is PartState.OK


def test_the_worst_state_counts() -> None:
    assert worst_of([PartState.OK, PartState.FAILED, PartState.DEGRADED]) is PartState.FAILED
    assert worst_of([PartState.OK, PartState.DEGRADED]) is PartState.DEGRADED
    assert worst_of([]) is PartState.OK


@pytest.mark.parametrize("url", ["http://127.0.0.1:9090", "http://[::1]:9090/", "http://relay.example.com"])
def test_a_listener_is_named_by_host_and_port(url: str) -> None:
    assert is_listener(url)


@pytest.mark.parametrize(
    "url", ["https://relay:9090", "relay:9090", "http://", "http://x:99999", "http://x/metrics", ""]
)
def test_nothing_else_names_a_listener(url: str) -> None:
    assert not is_listener(url)
