import pytest

from relay.sandbox.script_json import read_failure, read_mixture
from relay.sandbox.scripts import FCM_KINDS, KINDS, Answer, Delay, FcmFailure, GoAway, Page, Stall


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"kind": "answer", "status": 503, "reason": "x", "times": 3}, (Answer(503, "x"), 3)),
        ({"kind": "delay", "seconds": 0.5}, (Delay(0.5), 1)),
        ({"kind": "goaway", "graceful": True, "times": 0}, (GoAway(graceful=True), 0)),
        ({"kind": "page", "status": 403}, (Page(403), 1)),
    ],
)
def test_failures_are_read(fields: dict[str, object], failure: tuple[FcmFailure, int]) -> None:
    assert read_failure(fields, FCM_KINDS) == failure


@pytest.mark.parametrize(
    "fields",
    [{}, {"kind": "fire"}, {"kind": "stall", "times": -1}, {"kind": "stall", "times": "x"}, {"kind": "answer"}],
)
def test_failures_that_are_none_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kind|times|answer"):
        read_failure(fields, FCM_KINDS)


def test_a_kind_that_a_simulator_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is one of"):
        read_failure({"kind": "page"}, KINDS)


def test_a_mixture_is_read() -> None:
    mixture = read_mixture({"seed": 3, "failures": [{"kind": "stall", "share": 1}]}, KINDS)

    assert [mixture.next() for _ in range(3)] == [Stall()] * 3


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"failures": {}},
        {"failures": [{"kind": "stall"}]},
        {"failures": ["stall"]},
        {"failures": [{"kind": "stall", "share": 2}]},
        {"failures": [{"kind": "fire", "share": 0.5}]},
        {"seed": "x", "failures": []},
    ],
)
def test_mixtures_that_are_none_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"failures|share|kind"):
        read_mixture(fields, KINDS)
