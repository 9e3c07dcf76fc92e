from relay.domain.model import Environment
from relay.push.channels import Channels

MAIL = ("com.example.mail", Environment.PRODUCTION)


def ripe(channels: Channels, now: float) -> bool:
    """Tell whether MAIL may be tried now; it must be resting."""
    ((channel, may_try, _),) = channels.resting(now)
    assert channel == MAIL
    return may_try


def test_a_channel_without_fault_does_not_rest() -> None:
    channels = Channels()
    channels.began(MAIL)
    channels.undecided(MAIL)

    assert list(channels.resting(0.0)) == []
    assert not channels.passed(MAIL)


def test_a_fault_lets_its_channel_rest_and_no_other() -> None:
    channels = Channels()

    assert channels.faulted(MAIL, 100.0) == 30.0
    assert list(channels.resting(110.0)) == [(MAIL, False, 130.0)]


def test_faults_of_pushes_already_under_way_do_not_lengthen_the_rest() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    assert channels.faulted(MAIL, 101.0) == 29.0


def test_one_push_tries_a_rested_channel_while_the_others_wait() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    assert ripe(channels, 130.0)
    channels.began(MAIL)
    assert not ripe(channels, 130.0)


def test_a_failed_trial_doubles_the_rest_and_the_next_one_is_a_trial_again() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)
    channels.began(MAIL)

    assert channels.faulted(MAIL, 131.0) == 60.0
    assert not ripe(channels, 190.0)
    assert ripe(channels, 191.0)


def test_a_passed_trial_ends_the_rest() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    assert channels.passed(MAIL)
    assert not channels.passed(MAIL)
    assert list(channels.resting(101.0)) == []
    assert channels.faulted(MAIL, 102.0) == 30.0


def test_an_undecided_trial_hands_over_to_the_next_push() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)
    channels.began(MAIL)

    channels.undecided(MAIL)

    assert ripe(channels, 131.0)


def test_news_of_a_remedy_ends_the_rest_but_not_its_memory() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    channels.hurry(101.0)

    assert ripe(channels, 101.0)
    assert channels.faulted(MAIL, 102.0) == 60.0


def test_a_push_that_was_claimed_before_the_rest_and_begun_in_it_takes_nobodys_trial() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)
    channels.began(MAIL)
    assert channels.faulted(MAIL, 110.0) == 20.0

    assert not ripe(channels, 129.9)
    assert ripe(channels, 130.0)
