from dataclasses import replace

import pytest

from eas_watcher.heartbeat import Heartbeat
from eas_watcher.server.idle_timeout import IdleTimeout, Lesson, PathKnowledge

CONFIGURED = Heartbeat()
SHORT = Heartbeat(225, cut_off=225)


def cut(*cuts: tuple[float, float], path: PathKnowledge | None = None) -> PathKnowledge:
    """Return the knowledge after Pings were cut: the moment of each, and the seconds that it survived."""
    path = path or PathKnowledge()
    for now, survived in cuts:
        path = path.cut(SHORT, survived, now)
    return path


def test_a_mailbox_starts_as_configured_while_nothing_is_known() -> None:
    assert PathKnowledge().start(CONFIGURED) is CONFIGURED


def test_a_mailbox_starts_with_the_heartbeat_that_others_have_survived() -> None:
    grown = replace(CONFIGURED, interval=900, expiries=1)

    assert PathKnowledge().held(grown, 900.0).start(CONFIGURED) == replace(grown, expiries=0)


def test_a_ping_that_ended_early_proves_nothing() -> None:
    assert PathKnowledge().held(CONFIGURED, 400.0) == PathKnowledge()


def test_a_heartbeat_that_was_lowered_after_a_cut_is_not_passed_on() -> None:
    assert PathKnowledge().held(SHORT, 225.0) == PathKnowledge()


def test_cuts_after_the_same_time_show_an_idle_timeout() -> None:
    path = cut((1000.0, 298.0), (1100.0, 301.6), (1300.0, 300.1))

    assert path.cut_off == IdleTimeout(298.0, 301.6)
    assert path.start(CONFIGURED) == SHORT
    assert path.describe("main") == (
        "Pings to main are cut after 298\N{EN DASH}302 s: an idle timeout of 300 s lies on the path"
    )


def test_says_one_number_when_there_is_one() -> None:
    path = cut((1000.0, 60.1), (1100.0, 60.0), (1300.0, 60.2))

    assert path.describe("main") == "Pings to main are cut after 60 s: an idle timeout of 60 s lies on the path"


def test_nothing_is_kept_before_a_ping_has_survived() -> None:
    assert PathKnowledge().lesson is None
    assert cut((1000.0, 300.0)).lesson is None


def test_the_next_process_starts_with_the_heartbeat_that_survived_in_this_one() -> None:
    lesson = PathKnowledge().held(replace(CONFIGURED, interval=900, expiries=1), 900.0).lesson
    assert lesson == Lesson(900)
    recalled = PathKnowledge.recalled(lesson)

    assert recalled.start(CONFIGURED) == Heartbeat(900)
    assert recalled.lesson == lesson


def test_the_next_process_knows_what_cuts_pings_until_a_longer_one_survives() -> None:
    path = cut((1.0, 300.0), (50.0, 300.0), (100.0, 300.0))
    assert path.lesson == Lesson(225, IdleTimeout(300.0, 300.0))
    recalled = PathKnowledge.recalled(path.lesson)

    assert recalled.start(CONFIGURED) == SHORT
    assert recalled.describe("main") == path.describe("main") != ""
    assert recalled.held(SHORT, 225.0).lesson == path.lesson
    assert recalled.held(CONFIGURED, 600.0).lesson == Lesson(600)


def test_a_remembered_heartbeat_stays_within_the_present_settings() -> None:
    configured = Heartbeat(300, minimum=240, maximum=480)

    assert PathKnowledge.recalled(Lesson(900)).start(configured) == replace(configured, interval=480)
    assert PathKnowledge.recalled(Lesson(63, IdleTimeout(85.0, 85.0))).start(configured) == replace(
        configured, interval=240, cut_off=240
    )


def test_says_how_often_each_mailbox_asks_when_that_is_often() -> None:
    path = PathKnowledge.recalled(Lesson(63, IdleTimeout(85.0, 85.0)))

    assert path.describe("main").endswith("85 s lies on the path, and each mailbox asks again every 63 s")


@pytest.mark.parametrize(
    "cuts",
    [
        [(1000.0, 300.0), (1100.0, 300.0)],
        [(1000.0, 300.0), (1100.0, 307.0), (1200.0, 293.0)],
        [(1000.0, 300.0), (1000.1, 300.0), (1000.2, 300.0), (1000.3, 300.0)],
        [(1000.0, 10.0), (1100.0, 10.0), (1200.0, 10.0)],
    ],
    ids=["too few", "too different", "one event", "too soon"],
)
def test_other_cuts_show_no_idle_timeout(cuts: list[tuple[float, float]]) -> None:
    path = cut(*cuts)

    assert (path.cut_off, path.describe("main")) == (None, "")
    assert path.start(CONFIGURED) is CONFIGURED


def test_a_cut_of_another_kind_in_between_hides_nothing() -> None:
    assert cut((1.0, 300.0), (50.0, 77.0), (100.0, 300.0), (150.0, 500.0), (200.0, 300.0)).cut_off == IdleTimeout(
        300, 300
    )


def test_a_ping_that_survives_longer_disproves_it() -> None:
    path = cut((1.0, 300.0), (50.0, 300.0), (100.0, 300.0))
    longer = Heartbeat(600)

    assert path.held(SHORT, 225.0) == path
    assert path.held(longer, 600.0) == PathKnowledge(longer)


def test_knows_which_cuts_an_idle_timeout_explains() -> None:
    assert [IdleTimeout(298.0, 301.0).covers(seconds) for seconds in (296.0, 297.0, 302.0, 303.0)] == [
        False,
        True,
        True,
        False,
    ]
