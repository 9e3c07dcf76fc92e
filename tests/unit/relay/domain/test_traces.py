from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import pytest

from eas_watcher.machine.memory import Change
from eas_watcher.names import CollectionClass
from relay.domain.model import DuePush, Mark
from relay.domain.outcome import Delivered, PushEnd, Refused, RetryLater, Shadowed, TokenGone
from relay.domain.traces import Span, Traces, Tracing
from tests.unit.relay.push.pushes import due_push

AT: Final = datetime(2026, 11, 29, 12, 0, 0, 123456, UTC)
LATER: Final = AT + timedelta(seconds=2)
PUSH: Final = replace(due_push(), first_at=AT, mark=Mark.EMAIL, attempts=1)


def traced(ratio: float = 1.0, seed: int = 1) -> tuple[Traces, list[Span]]:
    spans: list[Span] = []
    return Traces(spans.append, ratio, lambda: LATER, Random(seed)), spans


def pushed(push: DuePush, end: PushEnd) -> Sequence[Span]:
    traces, spans = traced()
    traces.pushed(push, AT + timedelta(seconds=1), end)
    return spans


def test_a_commit_is_the_root_of_the_pushes_that_report_it() -> None:
    traces, spans = traced()
    changes = (Change(CollectionClass.EMAIL, 2), Change(CollectionClass.CALENDAR, 1))

    traces.committed(AT - timedelta(seconds=1), AT, [changes, (Change(CollectionClass.EMAIL, 1),)])
    (commit, *pushes) = [*spans, *pushed(PUSH, Delivered("id"))]

    assert (commit.name, commit.parent) == ("commit changes", None)
    assert (commit.began, commit.ended) == (AT - timedelta(seconds=1), LATER)
    assert commit.attributes == {"relay.mailboxes": 2, "relay.items": 4}
    assert [each.trace for each in pushes] == [commit.trace] * 2
    assert pushes[0].parent == commit.id


def test_a_push_lasts_from_its_first_change_and_its_send_from_the_claim() -> None:
    push, send = pushed(PUSH, Delivered("id"))

    assert (push.name, push.began, push.ended) == ("push", AT, LATER)
    assert (send.name, send.began, send.ended) == ("send", AT + timedelta(seconds=1), LATER)
    assert send.parent == push.id != send.id
    assert push.attributes == {
        "relay.provider": PUSH.platform.value,
        "relay.mark": "email",
        "relay.failed_tries": 1,
        "relay.outcome": "delivered",
    }
    assert send.attributes == {"relay.provider": PUSH.platform.value}


@pytest.mark.parametrize("mark", [Mark.TEST, Mark.CHALLENGE, Mark.ATTENTION])
def test_a_push_that_reports_no_items_is_a_root_itself(mark: Mark) -> None:
    push, _ = pushed(replace(PUSH, mark=mark), Delivered("id"))

    assert push.parent is None


@pytest.mark.parametrize(
    ("end", "failed"),
    [
        (Delivered("id"), False),
        (Shadowed(), False),
        (TokenGone("Unregistered"), True),
        (RetryLater("busy"), True),
        (Refused("BadTopic", ""), True),
    ],
)
def test_what_did_not_arrive_has_failed(end: PushEnd, *, failed: bool) -> None:
    assert [span.failed for span in pushed(PUSH, end)] == [failed, failed]


def test_nothing_of_a_phone_or_its_user_is_in_a_span() -> None:
    canary = replace(PUSH, device_token="canary-token", nonce="canary-nonce", app="canary.app", locale="canary")

    assert "canary" not in repr(pushed(canary, Refused("canary-reason", "canary")))
    assert PUSH.registration_id not in repr(pushed(canary, Delivered("canary-id")))


def test_processes_agree_on_what_is_sampled_and_keep_about_the_share() -> None:
    one, spans = traced(0.25, seed=1)
    other, others = traced(0.25, seed=2)
    for number in range(2000):
        at = AT + timedelta(microseconds=number)
        one.committed(at, at, [(Change(CollectionClass.EMAIL, 1),)])
        other.pushed(replace(PUSH, first_at=at), at, Delivered("id"))

    assert {span.trace for span in spans} == {span.trace for span in others}
    assert 400 < len(spans) < 600


def test_spans_of_tries_of_one_push_have_ids_of_their_own() -> None:
    traces, spans = traced()
    traces.pushed(PUSH, AT, RetryLater("busy"))
    traces.pushed(PUSH, AT, Delivered("id"))

    assert len({span.id for span in spans}) == 4
    assert len({span.trace for span in spans}) == 1


def test_the_present_moment_is_that_of_the_clock() -> None:
    assert traced()[0].now() == LATER


def test_headers_are_not_shown() -> None:
    assert "canary" not in repr(Tracing("https://otel.example.com", None, {"Authorization": "canary"}))
