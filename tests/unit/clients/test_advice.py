import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from push_relay_client import Problem, Registration, Step, advise, advise_refusal
from push_relay_client.advice import wait


def seen(state: str = "active", by: str = "nobody", **other: Any) -> Registration:
    answer: Mapping[str, Any] = {"id": "r", "state": state, "remedy": {"by": by}, **other}
    return Registration.read(answer)


@pytest.mark.parametrize(
    ("registration", "step"),
    [
        (seen(), Step.NOTHING),
        (seen(credential={"pending": True, "refused": False}), Step.WAIT),
        (seen("verifying"), Step.WAIT),
        (seen("verifying", "user"), Step.ASK_USER),
        (seen("credential-refused", "user"), Step.ASK_USER),
        (seen("active", "user", mailbox={"state": "credential-refused"}), Step.ASK_USER),
        (seen("active", "administrator", mailbox={"state": "blocked"}), Step.TELL_ADMINISTRATOR),
        (seen("token-gone", "app"), Step.SEND_TOKEN),
        (seen("proving", "app"), Step.WAIT),
        (seen("proving", "app", quarantine={"reason": "BadDeviceToken"}), Step.SEND_TOKEN),
        (seen("active", "app"), Step.SEND_TOKEN),
        (seen("active", quarantine={"reason": "BadDeviceToken"}), Step.SEND_TOKEN),
        (seen("wiped", "user"), Step.WIPE),
        (seen("active", mailbox={"state": "wiping"}), Step.WIPE),
        (seen("active", mailbox={"state": "wiped"}), Step.WIPE),
    ],
)
def test_a_registration_says_what_the_app_does(registration: Registration, step: Step) -> None:
    assert advise(registration) is step


@pytest.mark.parametrize(
    ("status", "code", "step"),
    [
        (401, "not-authorized", Step.NOT_REGISTERED),
        (410, "wiped", Step.WIPE),
        (410, "gone", Step.REGISTER_AGAIN),
        (410, "of-a-later-relay", Step.NOT_REGISTERED),
        (403, "mailbox-wiped", Step.TELL_ADMINISTRATOR),
        (403, "enrolment-refused", Step.TELL_ADMINISTRATOR),
        (403, "credential-refused", Step.ASK_USER),
        (409, "replaced", Step.NOT_REGISTERED),
        (409, "mailbox-full", Step.TELL_ADMINISTRATOR),
        (403, "wrong-proof", Step.WAIT),
        (400, "invalid-request", Step.CORRECT_APP),
        (408, "too-slow", Step.REPEAT),
        (429, "too-many-refusals", Step.REPEAT),
        (503, "busy", Step.REPEAT),
        (502, "http-502", Step.REPEAT),
        (418, "of-a-later-relay", Step.CORRECT_APP),
    ],
)
def test_a_refusal_says_what_the_app_does(status: int, code: str, step: Step) -> None:
    assert advise_refusal(Problem(status, code)) is step


def test_every_code_of_the_api_that_passes_is_repeated() -> None:
    text = (Path(__file__).parents[3] / "docs/api.md").read_text(encoding="utf-8")
    codes = {code: int(status) for code, status in re.findall(r"^### `([a-z-]+)`\n(\d{3})\.", text, re.MULTILINE)}

    assert len(codes) > 20
    for code, status in codes.items():
        passes = status in {408, 429, 500, 503} or code == "broken-body"
        assert (advise_refusal(Problem(status, code)) is Step.REPEAT) is passes, code


def test_waits_double_up_to_an_hour_and_spread() -> None:
    waits = [wait(attempt, None, 1.0) for attempt in range(1, 20)]

    assert waits[:3] == [2.0, 4.0, 8.0]
    assert waits[-1] == 3600.0
    assert all(earlier <= later for earlier, later in pairwise(waits))
    assert wait(1, None, 0.0) == 1.0


def test_a_time_that_the_relay_named_is_never_shortened() -> None:
    assert wait(1, 30.0, 0.0) == 30.0
    assert wait(9, 30.0, 1.0) == 33.0
