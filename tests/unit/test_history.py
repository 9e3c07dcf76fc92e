"""Test that the judge of long runs finds what was lost and what was repeated, and nothing else."""

from tests.soak.history import Arrived, Judgement, Mail, judge, without_the_end

A_MAIL, ANOTHER = Mail("ann", 10), Mail("ann", 20)


def test_a_push_after_the_last_mail_is_for_all_before_it() -> None:
    assert judge([A_MAIL, ANOTHER], [Arrived("ann", 21, 2)]) == Judgement(frozenset(), 0, 2)
    assert judge([A_MAIL, ANOTHER], [Arrived("ann", 15, 1), Arrived("ann", 21, 1)]) == Judgement(frozenset(), 0, 2)


def test_a_mail_without_a_push_behind_it_is_lost() -> None:
    assert judge([A_MAIL, ANOTHER], [Arrived("ann", 15, 1)]).lost == {"ann"}
    assert judge([A_MAIL], [Arrived("ben", 11, 1)]).lost == {"ann"}
    assert judge([A_MAIL, Mail("ben", 12)], [Arrived("ben", 13, 1)]).lost == {"ann"}


def test_what_is_counted_beyond_the_mails_was_repeated() -> None:
    twice = [Arrived("ann", 11, 1), Arrived("ann", 12, 1)]
    assert judge([A_MAIL], twice).repeated == 1
    assert judge([A_MAIL, Mail("ben", 10)], [*twice, Arrived("ben", 11, 1)]).repeated == 1
    assert judge([A_MAIL], [*twice, Arrived("ben", 12, 3)]).repeated == 4


def test_a_planted_loss_is_found() -> None:
    pushes = [Arrived("ann", 11, 1), Arrived("ann", 21, 1), Arrived("ben", 30, 1)]
    mails = [A_MAIL, ANOTHER, Mail("ben", 25)]
    assert not judge(mails, pushes).lost

    assert judge(mails, without_the_end(pushes, "ann", 20)).lost == {"ann"}


def test_an_empty_history_has_nothing_lost() -> None:
    assert judge([], []) == Judgement(frozenset(), 0, 0)
