from pathlib import Path

import pytest

from relay.domain.model import Environment, Lane
from relay.domain.outcome import Delivered, Outcome, OutcomeKind, Reach, Refused, RetryLater, TokenGone
from relay.domain.ports.outbox import Capacity
from relay.push.breaker import IN_A_ROW
from relay.push.fcm.config import FcmAccount
from relay.push.fcm.projects import BUSY_WAIT, PROBE_WAIT, Projects
from tests.unit.relay.push.pushes import due_push
from tests.unit.relay.push.test_backoff import MIDDLE

MAIL = FcmAccount(frozenset({"com.example.mail", "com.example.beta"}), Path("fcm.json"))
OTHER = FcmAccount(frozenset({"com.example.other"}), Path("other.json"), "fcm.accounts.other")
QUOTA = RetryLater("QUOTA_EXCEEDED", 60.0, "look at the quotas", provider=True, reach=Reach.ANSWERED)
NO_TOKEN = RetryLater("token-refused: internal_failure", provider=True)
SLOTS = 10  # of each project


def of_two() -> Projects:
    return Projects([MAIL, OTHER], 2 * SLOTS, MIDDLE)


def end(
    projects: Projects,
    outcome: Outcome | None,
    times: int = 1,
    now: float = 0.0,
    *,
    first: int = 1,
    of_project: bool = True,
) -> None:
    """Let pushes to several phones of the first project end in this way."""
    for number in range(first, first + times):
        push = due_push(number)
        assert projects.admit(MAIL.table, push, now) is None
        projects.ended(MAIL.table, push, outcome, now, of_project=of_project)


def lanes(projects: Projects, now: float) -> dict[Lane, int]:
    return {each.lane: each.slots for each in projects.capacities(now)}


@pytest.mark.parametrize("failure", [QUOTA, NO_TOKEN])
def test_a_project_that_cannot_push_rests_with_all_its_apps_and_the_other_goes_on(failure: RetryLater) -> None:
    projects = of_two()

    end(projects, failure, IN_A_ROW)

    assert projects.states["fcm"].away
    waits = projects.admit("fcm", due_push(9), 1.0)
    assert waits is not None
    assert (waits.reason, waits.reach) == (f"fcm-project-rests: {failure.reason}", Reach.HERE)
    assert waits.remedy == failure.remedy
    assert {lane.app for lane, slots in lanes(projects, 1.0).items() if not slots} == MAIL.apps
    assert not projects.states["fcm.accounts.other"].away
    assert projects.admit("fcm.accounts.other", due_push(10), 1.0) is None


def test_one_phone_alone_never_rests_its_project() -> None:
    projects = of_two()

    for now in range(50):
        end(projects, QUOTA, 1, float(now))

    assert not projects.states["fcm"].away


def test_one_push_probes_a_project_that_rests_and_its_answer_lets_the_others_return() -> None:
    projects = of_two()
    end(projects, NO_TOKEN, IN_A_ROW)
    probe, now = due_push(9), 10.0

    assert projects.admit("fcm", probe, now) is None
    second = projects.admit("fcm", due_push(10), now)
    assert second is not None
    assert second.after == PROBE_WAIT
    projects.ended("fcm", probe, Delivered(), now, of_project=False)

    assert not projects.states["fcm"].away
    assert projects.admit("fcm", due_push(11), now) is None
    assert projects.admit("fcm", due_push(12), now) is None or projects.states["fcm"].in_flight <= SLOTS
    third = next(waits for number in range(20, 20 + SLOTS) if (waits := projects.admit("fcm", due_push(number), now)))
    assert (third.reason, third.reach) == ("fcm-project-busy", Reach.HERE)


def test_a_probe_that_shows_nothing_of_its_project_leaves_the_turn_to_the_next_push() -> None:
    projects = of_two()
    end(projects, NO_TOKEN, IN_A_ROW)

    end(projects, None, now=10.0, of_project=False)
    end(projects, RetryLater("timed-out", provider=True), now=10.0, of_project=False)

    assert projects.states["fcm"].away
    assert projects.admit("fcm", due_push(9), 10.0) is None


@pytest.mark.parametrize(
    "answer",
    [Delivered(), TokenGone("UNREGISTERED"), Refused("INVALID_ARGUMENT", ""), RetryLater("x", reach=Reach.ANSWERED)],
)
def test_any_answer_about_a_single_push_shows_that_the_project_serves(answer: Outcome) -> None:
    projects = of_two()

    for _ in range(3):
        end(projects, QUOTA, IN_A_ROW - 1)
        end(projects, answer, of_project=False)

    assert not projects.states["fcm"].away


def test_a_slow_project_leaves_half_of_the_slots_to_the_others() -> None:
    projects = of_two()
    pushes = [due_push(number) for number in range(SLOTS)]
    assert lanes(projects, 0.0) == {}

    assert [projects.admit("fcm", push, 0.0) for push in pushes] == [None] * SLOTS

    assert projects.admit("fcm", due_push(99), 0.0) == RetryLater("fcm-project-busy", BUSY_WAIT, reach=Reach.HERE)
    assert lanes(projects, 0.0) == {Lane(Environment.PRODUCTION, app): 0 for app in MAIL.apps}
    for push in pushes[: SLOTS // 2]:
        projects.ended("fcm", push, Delivered(), 0.0, of_project=False)
    assert set(projects.capacities(0.0)) == {
        Capacity(Lane(Environment.PRODUCTION, app), SLOTS // 2) for app in MAIL.apps
    }
    assert projects.states["fcm"].outcomes == {OutcomeKind.DELIVERED: SLOTS // 2}
    assert projects.states["fcm"].in_flight == SLOTS // 2


def test_a_changed_service_account_is_tried_at_once() -> None:
    projects = of_two()
    end(projects, NO_TOKEN, IN_A_ROW)
    assert projects.admit("fcm", due_push(9), 0.5) is not None

    projects.hurry("fcm", 0.5)

    assert projects.admit("fcm", due_push(9), 0.5) is None


def test_a_project_that_is_alone_never_rests_and_has_all_slots() -> None:
    alone = Projects([MAIL], SLOTS, MIDDLE)

    end(alone, QUOTA, 3 * IN_A_ROW)

    assert not alone.several
    assert not alone.states["fcm"].away
    assert [alone.admit("fcm", due_push(number), 0.0) for number in range(2 * SLOTS)] == [None] * 2 * SLOTS
    assert list(alone.capacities(0.0)) == []
    assert alone.states["fcm"].outcomes == {OutcomeKind.RETRY_LATER: 3 * IN_A_ROW}
