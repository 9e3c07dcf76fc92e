from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from relay.domain.handover import NOBODY, NewPush, Offer, holds, taken
from relay.domain.model import DuePush, Environment, Lane, Mark, Platform
from relay.domain.pacing import Pacing
from tests.unit.relay.push.pushes import due_push

NOW = datetime(2026, 11, 29, 8, tzinfo=UTC)
OFFER = Offer("node/apns", NOW + timedelta(minutes=1), 3)
ENDPOINT = '{"endpoint":"https://push.example.org/1"}'


def new(push: DuePush, pushed_at: datetime | None = None, *, quarantined: bool = False) -> NewPush:
    return NewPush(push, pushed_at, quarantined)


def test_as_many_pushes_are_taken_as_the_platform_has_slots() -> None:
    apns = [due_push(number) for number in range(1, 6)]
    fcm = [due_push(number, platform=Platform.FCM) for number in range(6, 8)]
    offers = {Platform.APNS: OFFER, Platform.FCM: replace(OFFER, slots=1)}

    assert taken(map(new, [*apns, *fcm]), offers, NOW) == [*apns[:3], fcm[0]]


def test_nothing_is_taken_for_a_platform_that_offers_nothing() -> None:
    assert taken([new(due_push())], {Platform.FCM: OFFER}, NOW) == []


def test_a_push_in_quarantine_waits_for_its_recheck() -> None:
    assert taken([new(due_push(), quarantined=True)], {Platform.APNS: OFFER}, NOW) == []


def test_a_push_of_a_shut_lane_is_left_and_takes_no_slot() -> None:
    sick, well = due_push(1, app="com.example.sick"), due_push(2)
    offer = replace(OFFER, slots=1, shut=frozenset({Lane(Environment.PRODUCTION, "com.example.sick")}))

    assert taken(map(new, [sick, well]), {Platform.APNS: offer}, NOW) == [well]


def test_a_push_that_its_pace_would_delay_is_left_to_the_claim() -> None:
    offer = replace(OFFER, pacing=Pacing(coalesce=60.0))
    soon, late = NOW - timedelta(seconds=59), NOW - timedelta(seconds=60)
    notice = due_push(3, mark=Mark.ATTENTION)

    found = taken([new(due_push(1), soon), new(due_push(2), late), new(notice, soon)], {Platform.APNS: offer}, NOW)

    assert found == [due_push(2), notice]


def test_with_timing_privacy_only_notices_leave_at_once() -> None:
    offer = replace(OFFER, pacing=Pacing(jitter=5.0, random=Random(1)))
    notice = due_push(2, mark=Mark.TEST)

    assert taken(map(new, [due_push(1), notice]), {Platform.APNS: offer}, NOW) == [notice]


def test_a_process_that_does_not_push_takes_nothing() -> None:
    offers = NOBODY.offer()
    NOBODY.take(offers, [])

    assert taken([new(due_push())], offers, NOW) == []


@pytest.mark.parametrize(
    ("lane", "inside"),
    [
        (Lane(Environment.PRODUCTION), True),
        (Lane(Environment.SANDBOX), False),
        (Lane(Environment.PRODUCTION, "com.example.mail"), True),
        (Lane(Environment.PRODUCTION, "com.example.other"), False),
        (Lane(Environment.PRODUCTION, service="push.example.org"), True),
        (Lane(Environment.PRODUCTION, service="example.org"), False),
        (Lane(Environment.PRODUCTION, retried=False), True),
        (Lane(Environment.PRODUCTION, retried=True), False),
    ],
)
def test_a_lane_holds_pushes_by_environment_app_service_and_earlier_tries(lane: Lane, *, inside: bool) -> None:
    push = due_push(device_token=ENDPOINT)

    assert holds(lane, push) is inside
    assert holds(lane, replace(push, attempts=1)) is (inside if lane.retried is None else not inside)
