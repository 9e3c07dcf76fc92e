from collections.abc import Hashable

import pytest

from eas_watcher.server.doubts import LOOK, LOOKS_KEPT, PACE, Doubts, read_look

HOUR = 3600.0
REST = 1800.0
RATE = 50.0
REFUSES = read_look(401, {"server": "nginx"})
ANSWERS = read_look(200, {"server": "nginx"})
FAILS = read_look(503, {"server": "nginx"})


def waiting(*names: str, others_accepted: bool = False) -> Doubts:
    """Return doubts that begin at 0."""
    doubts = Doubts()
    for name in names:
        doubts.begin(name, HOUR, REST, 0.0, others_accepted=others_accepted)
    return doubts


def tried(doubts: Doubts, until: float, step: float = 1.0) -> list[tuple[float, Hashable, float]]:
    """Return when which mailbox is tried, and how early, up to a moment."""
    moments, now = [], 0.0
    while now <= until:
        while (turn := doubts.next_try(now, RATE)) is not None:
            moments.append((now, *turn))
        now += step
    return moments


def test_without_a_sign_each_waits_out_its_time_and_the_server_is_asked_at_a_pace() -> None:
    doubts = waiting("ann", "ben", "cleo")
    assert (len(doubts), doubts.next_at) == (3, HOUR)

    assert tried(doubts, 6000.0) == [(HOUR, "ann", 0.0), (HOUR + PACE, "ben", 0.0), (HOUR + 2 * PACE, "cleo", 0.0)]
    assert (len(doubts), doubts.next_at, doubts.ring_at()) == (0, None, None)


def test_an_acceptance_releases_all_at_a_rate_but_none_within_the_lock_out_window() -> None:
    doubts = waiting("ann", "ben")
    assert doubts.accepted("dora", 60.0, was_refused=False)
    assert not doubts.accepted("dora", 70.0, was_refused=False)

    assert doubts.next_try(REST - 1.0, RATE) is None
    assert doubts.next_try(REST, RATE) == ("ann", HOUR - REST)
    assert doubts.next_try(REST, RATE) is None
    assert doubts.ring_at() == 0.0  # a look is due
    doubts.next_look(REST)
    doubts.looked(None, REST)
    assert doubts.ring_at() == pytest.approx(REST + 1.0 / RATE)
    assert doubts.next_try(REST + 1.0 / RATE, RATE) == ("ben", HOUR - REST - 1.0 / RATE)


@pytest.mark.parametrize(("mailbox", "began"), [("ann", 60.0), ("ben", 0.0)])
def test_an_acceptance_of_the_mailbox_itself_or_from_before_the_doubt_is_no_sign(mailbox: str, began: float) -> None:
    doubts = waiting("ann")
    doubts.accepted(mailbox, began, was_refused=True)

    assert doubts.next_try(REST, RATE) is None


def test_where_others_are_accepted_all_the_time_only_one_that_had_been_refused_is_a_sign() -> None:
    doubts = waiting("ann", others_accepted=True)
    assert doubts.others_accepted
    assert not waiting("ann").others_accepted
    doubts.accepted("ben", 60.0, was_refused=False)
    assert doubts.next_try(REST, RATE) is None

    doubts.accepted("ben", 60.0, was_refused=True)
    assert doubts.next_try(REST, RATE) == ("ann", HOUR - REST)


def test_a_change_of_the_server_has_one_mailbox_asked_for_all() -> None:
    doubts = waiting("ann", "ben")
    doubts.changed()

    assert [name for _, name, _ in tried(doubts, HOUR - 1)] == ["ann"]


def test_a_change_without_doubt_is_forgotten() -> None:
    doubts = Doubts()
    doubts.changed()
    doubts.begin("ann", HOUR, REST, 0.0, others_accepted=False)

    assert doubts.next_try(REST, RATE) is None


def look(doubts: Doubts, *found: object) -> list[bool]:
    """Take looks; return after which of them a mailbox is asked."""
    asked = []
    for number, each in enumerate(found):
        now = REST + number * LOOK
        assert doubts.next_look(now) is not None
        assert doubts.next_look(now) is None
        doubts.looked(each, now)  # type: ignore[arg-type]
        asked.append(doubts.next_try(now, RATE) is not None)
    return asked


def test_looks_follow_one_another_and_only_an_answer_that_was_not_seen_before_is_a_sign() -> None:
    doubts = waiting(*"abcdefgh")

    assert look(doubts, REFUSES, REFUSES, ANSWERS) == [False, False, True]
    assert look(waiting(*"abcdefgh"), REFUSES, ANSWERS, REFUSES, ANSWERS) == [False, True, False, False]
    assert doubts.next_look(REST + 2 * LOOK + LOOK - 1) is None


def test_a_server_with_a_fault_is_not_asked_but_once_the_fault_is_over() -> None:
    assert look(waiting(*"abcdefgh"), REFUSES, FAILS, FAILS, REFUSES, FAILS, None, REFUSES) == [
        False,
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_the_answers_that_are_known_are_few() -> None:
    doubts = waiting(*(f"m{number}" for number in range(60)))
    versions = [read_look(401, {"x-version": str(number)}) for number in range(LOOKS_KEPT + 1)]

    assert look(doubts, *versions, versions[1], versions[0])[-2:] == [False, True]


def test_a_mailbox_that_is_stopped_hands_its_look_on() -> None:
    doubts = waiting("ann", "ben")
    assert doubts.next_look(0.0) == "ann"

    doubts.end("ann")
    doubts.end("ann")

    assert doubts.next_look(0.0) == "ben"


def test_a_mailbox_that_looks_is_not_tried_meanwhile() -> None:
    doubts = waiting("ann")
    doubts.next_look(0.0)

    assert doubts.next_try(HOUR, RATE) is None
    assert doubts.ring_at() is None


def test_a_change_rings_when_the_lock_out_window_is_over() -> None:
    doubts = waiting("ann", "ben")
    doubts.next_look(0.0)
    doubts.looked(None, 0.0)
    assert doubts.ring_at() == LOOK
    doubts.next_look(LOOK)

    doubts.changed()
    assert doubts.ring_at() == REST


def test_a_look_has_the_names_and_versions_of_the_server_and_nothing_of_the_single_answer() -> None:
    headers = {
        "server": "nginx/1.24",
        "x-powered-by": "ASP.NET",
        "x-aspnet-version": "4.0",
        "ms-asprotocolversions": "14.1",
        "www-authenticate": 'Basic realm="mail"',
        "retry-after": "120",
        "date": "Sun, 29 Nov 2026 02:00:00 GMT",
        "x-request-id": "7",
        "set-cookie": "a=b",
    }

    same = read_look(401, headers | {"date": "later", "x-request-id": "8", "set-cookie": "c", "retry-after": "60"})

    assert read_look(401, headers) == same
    for name in ("server", "x-powered-by", "x-aspnet-version", "ms-asprotocolversions", "www-authenticate"):
        assert read_look(401, headers | {name: "other"}) != same
    assert read_look(200, headers) != same
    assert read_look(401, {"server": "nginx/1.24"}) != same
