from collections.abc import Iterator
from typing import Final

import pytest

from eas_watcher import backoff
from eas_watcher.commands.http_status import DENIED
from eas_watcher.commands.status import COMMON
from eas_watcher.machine.memory import WIPES, WatchState
from eas_watcher.machine.remedies import DAILY, RECHECK, RECHECKS, SELDOM
from eas_watcher.machine.state import Pause
from eas_watcher.reasons import Reason
from eas_watcher.tools.statuses.document import TABLES
from eas_watcher.tools.statuses.rehearsal import Case, rehearse
from relay.domain.reasons import (
    REASONS,
    STATES,
    Actor,
    Cause,
    Concern,
    Recheck,
    cause_of,
    read_detail,
    read_reason,
    row_of,
    write_reason,
)

SECONDS: Final = {
    Recheck.QUARTER_HOURLY: 900.0,
    Recheck.HOURLY: RECHECK,
    Recheck.SIX_HOURLY: SELDOM,
    Recheck.DAILY: DAILY,
}
DENIES: Final = sorted(
    {reason for reason, _ in DENIED.values()}
    | {meaning.reason for meaning in COMMON.values() if meaning.reason is not None}
    | {Reason.HTTP_REDIRECT, Reason.POLICY_3, Reason.POLICY_4, Reason.KERBEROS_USER_LOCKED, Reason.KERBEROS_TICKET}
)


def answers() -> Iterator[tuple[str, Case]]:
    for title, _, table in TABLES:
        for name, case in table().items():
            yield f"{title}: {name}", case


def test_every_reason_and_every_state_has_a_row() -> None:
    assert set(REASONS) == set(Reason)
    assert set(STATES) == set(WatchState)


def test_a_row_ends_its_sentences() -> None:
    for row in (*REASONS.values(), *STATES.values()):
        assert row.words.endswith(".")
        assert row.remedy.endswith(".")


@pytest.mark.parametrize(("name", "case"), list(answers()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_answer_of_a_mail_server_ends_with_a_reason_whose_row_says_when_it_is_checked(
    name: str, case: Case
) -> None:
    conduct = rehearse(case)
    if conduct.condition is None:
        return
    state, reason = conduct.condition.state, conduct.condition.reason
    assert reason is not None, name
    row = row_of(state, reason)
    if conduct.ended:
        assert row.recheck in {Recheck.NEW_CREDENTIAL, Recheck.NEVER}
        return
    last = conduct.waits[-1]
    if last.doubt is not None:
        assert row.recheck is Recheck.IN_DOUBT
        return
    assert row.recheck in expected(last), (name, reason, last)


def expected(last: Pause) -> set[Recheck]:
    """Return what the table may say of a wait; what a busy server asks for can be of any length."""
    if last.seconds is None:
        return {Recheck.BACKOFF, Recheck.AS_ASKED}
    return {recheck for recheck, seconds in SECONDS.items() if seconds == last.seconds} | {Recheck.AS_ASKED}


@pytest.mark.parametrize("reason", DENIES)
def test_the_table_knows_how_long_a_watch_waits_when_access_is_denied(reason: Reason) -> None:
    assert SECONDS[REASONS[reason].recheck] == RECHECKS.get(reason, RECHECK)


def test_the_words_for_a_backoff_are_those_of_the_backoff() -> None:
    assert (backoff.FIRST, backoff.CEILING) == (5.0, 600.0)


def test_the_app_learns_only_that_the_administrator_must_correct_the_relay() -> None:
    rows = [row for row in REASONS.values() if row.concern is Concern.RELAY]

    assert {(row.actor, row.words) for row in rows} == {
        (Actor.ADMINISTRATOR, "The relay cannot watch the mailbox: its administrator sees why.")
    }


def test_an_access_rule_is_the_remedy_only_where_the_server_refuses_the_device() -> None:
    assert {reason for reason, row in REASONS.items() if row.access_rule} == {
        Reason.HTTP_403,
        Reason.EAS_129,
        Reason.EAS_130,
        Reason.PERHAPS_QUARANTINED,
    }


def test_reasons_that_deny_access_have_remedies_of_their_own() -> None:
    remedies = [REASONS[reason].remedy for reason in DENIES]

    assert len(set(remedies)) == len(remedies)


def test_a_refusal_that_is_still_confirmed_needs_nobody() -> None:
    assert row_of(WatchState.WAITING, Reason.HTTP_401).actor is Actor.NOBODY
    assert row_of(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401).actor is Actor.USER


def test_a_wipe_needs_nobody_until_it_is_done() -> None:
    for reason in WIPES.values():
        assert row_of(WatchState.WIPING, reason).actor is Actor.NOBODY
        assert row_of(WatchState.WIPED, reason).actor is Actor.ADMINISTRATOR


@pytest.mark.parametrize("state", WatchState)
def test_a_reason_of_a_newer_version_is_as_urgent_as_its_state(state: WatchState) -> None:
    row = row_of(state, Reason.UNKNOWN)

    assert (row.actor, row.words) == (STATES[state].actor, STATES[state].words)
    assert state is WatchState.WIPING or "newer version" in row.remedy


def test_a_reason_is_read_as_it_was_written() -> None:
    for reason in (None, *Reason):
        assert read_reason(write_reason(reason)) is reason


def test_known_reasons_keep_their_detail() -> None:
    assert read_detail("unreachable", "no route") == "no route"
    assert read_detail("", "") == ""


def test_a_reason_of_a_newer_version_is_unknown_and_its_text_stays_in_the_detail() -> None:
    assert read_reason("eas-999") is Reason.UNKNOWN
    assert read_detail("eas-999", "") == "eas-999, a reason that this version of the relay does not know"
    assert read_detail("eas-999", "why").endswith("does not know: why")


@pytest.mark.parametrize(
    ("state", "reason", "cause"),
    [
        (WatchState.WIPED, None, Cause.WIPED),
        (WatchState.WIPED, Reason.REMOTE_WIPE, Cause.WIPED),
        (WatchState.WIPED, Reason.ACCOUNT_ONLY_WIPE, Cause.WIPED),
        (WatchState.WIPING, Reason.REMOTE_WIPE, Cause.WIPED),
        (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, Cause.CREDENTIAL),
        (WatchState.CREDENTIAL_REFUSED, Reason.KERBEROS_USER_UNKNOWN, Cause.CREDENTIAL),
        (WatchState.CREDENTIAL_REFUSED, Reason.UNKNOWN, Cause.CREDENTIAL),
        (WatchState.WAITING, Reason.HTTP_401_DOUBTFUL, Cause.CREDENTIAL),
        (WatchState.BLOCKED, Reason.HTTP_403, Cause.BLOCKED),
        (WatchState.BLOCKED, Reason.SERVER_UNKNOWN, Cause.BLOCKED),
        (WatchState.WAITING, Reason.UNREACHABLE, None),
        (WatchState.WATCHING, None, None),
    ],
)
def test_an_attention_names_its_cause_in_one_of_few_words(
    state: WatchState, reason: Reason | None, cause: Cause | None
) -> None:
    assert cause_of(state, reason) is cause
