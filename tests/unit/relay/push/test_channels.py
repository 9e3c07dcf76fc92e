from relay.model import Environment
from relay.push.channels import PROBE_WAIT, Channels

MAIL = ("com.example.mail", Environment.PRODUCTION)
OTHER = ("com.example.mail", Environment.SANDBOX)


def test_a_channel_without_fault_never_waits() -> None:
    channels = Channels()

    assert channels.wait(MAIL, 0.0) == 0.0
    assert not channels.passed(MAIL)


def test_a_fault_lets_its_channel_rest_and_no_other() -> None:
    channels = Channels()

    assert channels.faulted(MAIL, 100.0) == 30.0
    assert channels.wait(MAIL, 110.0) == 20.0
    assert channels.wait(OTHER, 110.0) == 0.0


def test_faults_of_pushes_already_under_way_do_not_lengthen_the_rest() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    assert channels.faulted(MAIL, 101.0) == 29.0


def test_one_push_tries_a_rested_channel_while_the_others_wait() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    assert channels.wait(MAIL, 130.0) == 0.0
    assert channels.wait(MAIL, 130.0) == PROBE_WAIT


def test_a_failed_trial_doubles_the_rest_and_the_next_one_is_a_trial_again() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)
    channels.wait(MAIL, 130.0)

    assert channels.faulted(MAIL, 131.0) == 60.0
    assert channels.wait(MAIL, 191.0) == 0.0


def test_a_passed_trial_ends_the_rest() -> None:
    channels = Channels()
    channels.faulted(MAIL, 100.0)

    assert channels.passed(MAIL)
    assert not channels.passed(MAIL)
    assert channels.wait(MAIL, 101.0) == 0.0
    assert channels.faulted(MAIL, 102.0) == 30.0


def test_an_undecided_trial_hands_over_to_the_next_push() -> None:
    channels = Channels()
    channels.undecided(MAIL)
    channels.faulted(MAIL, 100.0)
    channels.wait(MAIL, 130.0)

    channels.undecided(MAIL)

    assert channels.wait(MAIL, 131.0) == 0.0
    assert channels.wait(MAIL, 131.0) == PROBE_WAIT
