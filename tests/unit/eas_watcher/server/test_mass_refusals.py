from collections.abc import Hashable

from eas_watcher.server.mass_refusals import LEAST, REMEMBERED, SKEW, WINDOW, MassRefusals

WATCHED = 100


def refused(*names: Hashable, watched: int = WATCHED, now: float = 0.0) -> MassRefusals:
    refusals = MassRefusals()
    for name in names:
        refusals.refused(name, watched, now)
    return refusals


def test_a_few_refused_mailboxes_concern_their_users() -> None:
    assert not refused(*range(9)).suspected
    assert not refused(*range(LEAST - 1), watched=LEAST).suspected


def test_many_mailboxes_refused_within_minutes_make_the_server_suspected() -> None:
    assert refused(*range(10)).suspected
    assert refused(*range(LEAST), watched=LEAST).suspected


def test_one_mailbox_counts_once() -> None:
    assert not refused(*[1] * 50).suspected


def test_refusals_long_ago_do_not_count() -> None:
    refusals = refused(*range(9))
    refusals.refused(9, WATCHED, WINDOW + 1)

    assert (refusals.suspected, len(refusals)) == (False, 1)


def test_refusals_before_a_restart_count() -> None:
    refusals = MassRefusals()
    for name in range(9):
        refusals.known(name, 0.0, 0.0)
    assert not refusals.suspected

    refusals.refused(9, WATCHED, 1.0)
    assert refusals.suspected


def test_one_confirmation_after_a_minute_the_next_after_a_quarter_of_an_hour() -> None:
    refusals = refused(*range(10), now=1000.0)

    moments = [now for now in range(1000, 4000) if refusals.confirm(float(now))]

    assert moments == [1060, 1960, 2860, 3760]


def test_a_refused_mailbox_that_is_accepted_ends_the_suspicion() -> None:
    refusals = refused(*range(10))

    refusals.accepted(3, 2.0)

    assert (refusals.suspected, len(refusals)) == (False, 9)


def test_more_accepted_than_refused_mailboxes_end_the_suspicion() -> None:
    refusals = refused(*range(10))
    for name in range(100, 110):
        refusals.accepted(name, 2.0)
    assert refusals.suspected

    refusals.accepted(110, 2.0)
    assert not refusals.suspected


def test_a_mailbox_that_was_accepted_since_does_not_count() -> None:
    refusals = refused(*range(9))
    refusals.accepted(0, 2.0)

    refusals.refused(9, WATCHED, 1.0)

    assert not refusals.suspected


def test_after_a_confirmation_that_was_given_up_the_next_one_goes_at_once() -> None:
    refusals = refused(*range(10), now=1000.0)
    assert refusals.confirm(1060.0)

    refusals.given_up(1061.0)

    moments = [now for now in range(1061, 3000) if refusals.confirm(float(now))]
    assert moments == [1061, 1961, 2861]


def test_a_confirmation_that_was_given_up_changes_nothing_once_the_suspicion_is_over() -> None:
    refusals = refused(*range(10), now=1000.0)
    assert refusals.confirm(1060.0)
    refusals.accepted(3, 2.0)

    refusals.given_up(1061.0)

    assert refusals.next_at == 1960.0


def test_a_suspected_server_keeps_count_of_those_it_refuses_next() -> None:
    refusals = refused(*range(10))
    refusals.refused(10, WATCHED, 1.0)

    assert (refusals.suspected, len(refusals)) == (True, 11)


def test_a_refusal_is_the_users_fault_if_another_mailbox_was_accepted_since_the_one_before() -> None:
    refusals = refused("ann", now=100.0)
    refusals.refused("ann", WATCHED, 800.0)
    refusals.accepted("ben", 700.0)
    assert not refusals.others_accepted("ann")

    refusals.accepted("ben", 900.0)
    assert refusals.others_accepted("ann")
    assert not refusals.others_accepted("ben")
    refusals.refused("ann", WATCHED, 1000.0)
    assert not refusals.others_accepted("ann")

    refusals.accepted("ann", 2000.0)
    assert not refusals.others_accepted("ann")


def test_the_latest_acceptance_before_a_mailbox_that_was_refused_earlier_begins_counts() -> None:
    refusals = MassRefusals()
    refusals.accepted("cleo", 9.0)
    refusals.accepted("ben", 10.0)
    refusals.known("ann", 10.5, REMEMBERED + 1.0)
    assert refusals.others_accepted("ann")

    refusals.refused("ben", WATCHED, 11.0)
    assert not refusals.others_accepted("ann")


def test_another_that_is_refused_too_or_may_be_remembered_by_the_server_proves_nothing() -> None:
    refusals = refused("ann", now=100.0)
    refusals.accepted("ben", 100.0 + REMEMBERED)
    assert not refusals.others_accepted("ann")

    refusals.accepted("ben", 900.0)
    refusals.refused("ben", WATCHED, 910.0)
    assert not refusals.others_accepted("ann")


def test_an_acceptance_of_another_process_counts_but_for_the_difference_of_their_clocks() -> None:
    refusals = MassRefusals()
    refusals.known("ann", 1000.0, REMEMBERED)

    refusals.elsewhere(1000.0 + SKEW)
    assert not refusals.others_accepted("ann")
    refusals.elsewhere(1000.0 + SKEW + 1.0)
    refusals.elsewhere(900.0)
    assert refusals.others_accepted("ann")


def test_a_mailbox_is_one_of_many_until_it_is_accepted_or_gone_and_many_are_left() -> None:
    refusals = refused(*range(10))
    refusals.refused("late", WATCHED, 1.0)
    assert refusals.is_one_of_many(0, WATCHED)
    assert refusals.is_one_of_many("late", WATCHED)
    assert not refusals.is_one_of_many("ann", WATCHED)

    refusals.accepted(0, 2.0)
    assert not refusals.is_one_of_many(0, WATCHED)
    refusals.forget(1)
    assert not refusals.is_one_of_many(2, WATCHED)
    assert refusals.is_one_of_many(2, LEAST)


def test_knows_a_refused_mailbox_as_long_as_there_is_one() -> None:
    refusals = refused("ann")
    assert (refusals.example, refusals.refused_now) == ("ann", 1)

    assert refusals.accepted("ann", 1.0)
    assert refusals.example is None
    assert not refusals.accepted("ann", 2.0)
