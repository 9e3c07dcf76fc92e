from datetime import UTC, datetime, timedelta

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DeviceId, MailboxId
from relay.domain.canary import (
    FEWEST,
    RETRY,
    WINDOW,
    CanaryLog,
    CanaryMailbox,
    Goal,
    Judgement,
    Reading,
    Result,
    Shown,
    Stage,
    judge,
    may_show,
)
from relay.domain.model import Mailbox, Platform, RegistrationView
from relay.domain.users import Accounts
from tests.contract.samples import new_registration

SENT = datetime(2026, 11, 29, 12, tzinfo=UTC)
OWN = frozenset({Platform.WEBPUSH})
GOAL = Goal(OWN, seconds=60.0, share=0.75, interval=300.0)
BEFORE = Shown(SENT - timedelta(minutes=5), SENT - timedelta(minutes=4))


def after(seconds: float) -> datetime:
    return SENT + timedelta(seconds=seconds)


def shown(noticed: float, seen: float) -> Shown:
    return Shown(after(noticed), after(seen))


ALL_THE_WAY = Reading(
    changed_at=after(9), accepted={Platform.WEBPUSH: after(3)}, shown={Platform.WEBPUSH: shown(2, 3.5)}
)


def test_a_mail_that_was_shown_has_the_seconds_of_each_stage() -> None:
    assert judge(SENT, ALL_THE_WAY, after(4), GOAL) == Judgement(
        Result.SHOWN,
        {(Stage.NOTICED, None): 2.0, (Stage.ACCEPTED, Platform.WEBPUSH): 3.0, (Stage.SHOWN, Platform.WEBPUSH): 3.5},
    )


@pytest.mark.parametrize(
    ("reading", "seconds", "result"),
    [
        pytest.param(Reading(), 299, None, id="under way"),
        pytest.param(Reading(shown={Platform.WEBPUSH: shown(2, 61)}), 65, None, id="soon recorded as taken"),
        pytest.param(Reading(shown={Platform.WEBPUSH: shown(2, 61)}), 66, Result.LATE, id="late"),
        pytest.param(Reading(), 300, Result.NOT_NOTICED, id="lost on the way to the mailbox"),
        pytest.param(Reading(changed_at=after(-1)), 300, Result.NOT_NOTICED, id="only an older change"),
        pytest.param(Reading(changed_at=after(2)), 300, Result.NOT_ACCEPTED, id="no provider takes the push"),
        pytest.param(
            Reading(changed_at=after(2), accepted={Platform.WEBPUSH: after(-9)}),
            300,
            Result.NOT_ACCEPTED,
            id="only an older push was taken",
        ),
        pytest.param(
            Reading(changed_at=after(2), accepted={Platform.WEBPUSH: after(3)}), 300, Result.NOT_SHOWN, id="not shown"
        ),
    ],
)
def test_a_mail_is_judged_by_how_far_it_came(reading: Reading, seconds: float, result: Result | None) -> None:
    judgement = judge(SENT, reading, after(seconds), GOAL)

    assert (None if judgement is None else judgement.result) == result


def test_every_platform_must_show_a_mail() -> None:
    both = Goal(frozenset({Platform.WEBPUSH, Platform.APNS}))
    taken = Reading(shown={Platform.WEBPUSH: shown(2, 3)}, accepted={Platform.APNS: after(3)})

    assert judge(SENT, taken, after(200), both) is None
    lost = judge(SENT, taken, after(300), both)
    assert lost is not None
    assert lost.result is Result.NOT_SHOWN
    assert lost.stages[Stage.SHOWN, Platform.WEBPUSH] == 3.0


@pytest.mark.parametrize(
    ("written", "refused", "now", "may"),
    [
        (0, None, 0, True),
        (0, 10, 100_000, False),
        (20, 10, 21, False),
        (20, 10, 10 + RETRY.total_seconds(), True),
        (100_000, 10, 10 + RETRY.total_seconds(), False),
        (0, 10, 5, True),
    ],
)
def test_a_refused_password_is_shown_again_only_when_it_was_written_anew(
    written: float, refused: float | None, now: float, may: bool
) -> None:
    assert may_show(after(written), None if refused is None else after(refused), after(now)) is may


def note(log: CanaryLog, result: Result, now: datetime = SENT, why: str = "") -> None:
    log.note(Judgement(result, {}), now, why)


def test_the_log_counts_results_and_measures_stages() -> None:
    log, measured = CanaryLog(), []
    log.note(Judgement(Result.SHOWN, {(Stage.SHOWN, Platform.WEBPUSH): 0.5}), SENT)
    log.on_stage = lambda *stage: measured.append(stage)
    log.note(Judgement(Result.LATE, {(Stage.NOTICED, None): 90.0}), after(90))
    note(log, Result.NOT_SENT, after(400), "smtp-450")
    note(log, Result.NOT_NOTICED, after(700))

    assert log.results == {Result.SHOWN: 1, Result.LATE: 1, Result.NOT_SENT: 1, Result.NOT_NOTICED: 1}
    assert measured == [(Stage.NOTICED, None, 90.0)]
    assert (log.last_shown_at, log.last, log.lost, log.why) == (after(90), Result.NOT_NOTICED, 2, "")


def test_a_canary_that_is_held_is_no_further_mail() -> None:
    log = CanaryLog()
    log.hold(Result.NOT_SENT, "login-refused")
    log.hold(Result.NOT_SENT, "login-refused")

    assert (log.last, log.why, log.lost) == (Result.NOT_SENT, "login-refused", 0)
    assert not log.results


def test_a_process_forgets_how_the_canary_is_when_another_one_sends() -> None:
    log = CanaryLog()
    for _ in range(FEWEST):
        note(log, Result.NOT_SENT, why="smtp-450")

    log.pass_on()

    assert (log.last, log.why, log.lost, log.share(SENT)) == (None, "", 0, None)
    assert log.results[Result.NOT_SENT] == FEWEST, "counters only rise"


def test_the_share_is_that_of_the_last_day_and_needs_some_mails() -> None:
    log = CanaryLog()
    for _ in range(FEWEST - 1):
        note(log, Result.LATE)
    assert log.share(SENT) is None

    note(log, Result.SHOWN, after(3600))
    assert log.share(after(3600)) == 1 / FEWEST
    assert log.share(SENT + WINDOW + timedelta(seconds=1)) is None, "those of yesterday do not count"


def test_the_mailbox_of_the_canary_is_known_in_every_spelling() -> None:
    own = CanaryMailbox("main", "canary@example.com", Accounts(domains=frozenset({"example.com"})), "secret", SENT)

    assert own.owns(view("main", "Canary@example.com"))
    assert own.owns(view("main", "canary"))
    assert not own.owns(view("main", "ann@example.com"))
    assert not own.owns(view("branch", "canary@example.com"))
    assert "secret" not in repr(own)


def view(server: str, user: str) -> RegistrationView:
    mailbox = Mailbox(
        MailboxId("m"), server, user, DeviceId("D"), 0, WatchState.WATCHING, None, "", SENT, None, None, None, None
    )
    return RegistrationView(new_registration(), mailbox, candidate_pending=False, candidate_refused=False)
