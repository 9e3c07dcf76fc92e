from dataclasses import replace
from datetime import UTC, datetime

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.model import PushTest, PushTestState, Quarantine, RegistrationState, RegistrationView
from relay.domain.reasons import Actor, row_of
from relay.registration.guidance import advise, advise_test, proved
from tests.fakes import records

BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)


def view(
    state: RegistrationState = RegistrationState.ACTIVE,
    watch: WatchState = WatchState.WATCHING,
    reason: Reason | None = None,
) -> RegistrationView:
    mailbox, registration = records.mailbox(state=watch, reason=reason), records.registration(state=state)
    return RegistrationView(
        registration, mailbox, candidate_pending=state is RegistrationState.VERIFYING, candidate_refused=False
    )


@pytest.mark.parametrize(
    ("state", "watch", "reason", "by", "word"),
    [
        (RegistrationState.VERIFYING, WatchState.VERIFYING, None, Actor.NOBODY, "has not answered"),
        (RegistrationState.VERIFYING, WatchState.BLOCKED, Reason.SERVER_UNKNOWN, Actor.ADMINISTRATOR, "cannot ask"),
        (RegistrationState.VERIFYING, WatchState.VERIFYING, Reason.KERBEROS_TICKET, Actor.ADMINISTRATOR, "cannot ask"),
        (RegistrationState.VERIFYING, WatchState.VERIFYING, Reason.UNREACHABLE, Actor.ADMINISTRATOR, "asks again"),
        (RegistrationState.VERIFYING, WatchState.VERIFYING, Reason.HTTP_404, Actor.ADMINISTRATOR, "asks again"),
        (RegistrationState.VERIFYING, WatchState.VERIFYING, Reason.HTTP_451, Actor.NOBODY, "has not answered"),
        (RegistrationState.VERIFYING, WatchState.BLOCKED, Reason.EAS_126, Actor.NOBODY, "has not answered"),
        (RegistrationState.PROVING, WatchState.STARTING, None, Actor.APP, "nonce of the challenge"),
        (RegistrationState.REFUSED, WatchState.WATCHING, None, Actor.USER, "refused"),
        (RegistrationState.TOKEN_GONE, WatchState.WATCHING, None, Actor.APP, "device token"),
        (RegistrationState.WIPED, WatchState.WIPED, Reason.REMOTE_WIPE, Actor.ADMINISTRATOR, "register again"),
        (RegistrationState.WIPED, WatchState.WATCHING, None, Actor.ADMINISTRATOR, "wiped"),
        (RegistrationState.ACTIVE, WatchState.VERIFYING, None, Actor.NOBODY, "has not answered"),
        (RegistrationState.ACTIVE, WatchState.STARTING, None, Actor.NOBODY, "All is well"),
        (RegistrationState.ACTIVE, WatchState.WATCHING, None, Actor.NOBODY, "All is well"),
        (RegistrationState.ACTIVE, WatchState.WAITING, Reason.UNREACHABLE, Actor.NOBODY, "tries again"),
        (RegistrationState.ACTIVE, WatchState.WAITING, Reason.HTTP_401, Actor.NOBODY, "makes sure"),
        (RegistrationState.ACTIVE, WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, Actor.USER, "new one"),
        (RegistrationState.ACTIVE, WatchState.BLOCKED, Reason.HTTP_403, Actor.ADMINISTRATOR, "DEVICE"),
        (RegistrationState.ACTIVE, WatchState.BLOCKED, Reason.SEAL_BROKEN, Actor.ADMINISTRATOR, "cannot watch"),
        (RegistrationState.ACTIVE, WatchState.BLOCKED, Reason.KERBEROS_DELEGATION, Actor.ADMINISTRATOR, "cannot watch"),
        (RegistrationState.ACTIVE, WatchState.BLOCKED, Reason.KERBEROS_USER_LOCKED, Actor.ADMINISTRATOR, "unlock"),
        (
            RegistrationState.ACTIVE,
            WatchState.CREDENTIAL_REFUSED,
            Reason.KERBEROS_USER_UNKNOWN,
            Actor.ADMINISTRATOR,
            "know",
        ),
        (
            RegistrationState.ACTIVE,
            WatchState.CREDENTIAL_REFUSED,
            Reason.OAUTH_INVALID_GRANT,
            Actor.USER,
            "log in again",
        ),
        (RegistrationState.ACTIVE, WatchState.CREDENTIAL_REFUSED, Reason.CERTIFICATE_EXPIRED, Actor.APP, "next one"),
        (RegistrationState.ACTIVE, WatchState.WIPED, Reason.REMOTE_WIPE, Actor.ADMINISTRATOR, "wiped"),
    ],
)
def test_each_state_has_its_remedy(
    state: RegistrationState, watch: WatchState, reason: Reason | None, by: Actor, word: str
) -> None:
    advice = advise(view(state, watch, reason))

    assert advice.by is by
    assert word in advice.text


def test_a_token_that_the_provider_refuses_comes_before_its_proof() -> None:
    quarantine = Quarantine(BEGAN, "BadDeviceToken", "compare the environment", BEGAN)
    proving = view(RegistrationState.PROVING)
    proving = replace(proving, registration=replace(proving.registration, quarantine=quarantine))

    assert "BadDeviceToken" in advise(proving).text


@pytest.mark.parametrize("watch", list(WatchState))
@pytest.mark.parametrize("state", list(RegistrationState))
def test_every_state_of_both_is_decided(state: RegistrationState, watch: WatchState) -> None:
    assert advise(view(state, watch)).text.endswith(".")


def test_a_refused_new_password_is_shown_while_the_old_one_works() -> None:
    advice = advise(replace(view(), candidate_refused=True))

    assert advice.by is Actor.NOBODY
    assert "new credential was refused" in advice.text


def test_a_verifying_registration_without_a_candidate_needs_its_user() -> None:
    advice = advise(replace(view(RegistrationState.VERIFYING), candidate_pending=False))

    assert advice.by is Actor.USER
    assert "again" in advice.text


def test_only_a_registration_whose_credential_was_accepted_once_counts_as_proved() -> None:
    assert [state for state in RegistrationState if proved(view(state))] == [
        RegistrationState.PROVING,
        RegistrationState.ACTIVE,
        RegistrationState.TOKEN_GONE,
        RegistrationState.WIPED,
    ]


def test_the_advice_for_a_blocked_mailbox_is_that_of_its_reason() -> None:
    for reason in Reason:
        advice = advise(view(RegistrationState.ACTIVE, WatchState.BLOCKED, reason))

        row = row_of(WatchState.BLOCKED, reason)
        assert advice.by is row.actor, reason
        assert advice.text.startswith(row.words)
        assert ("DEVICE" in advice.text) == row.access_rule, reason


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("state", PushTestState)
def test_every_state_of_a_test_push_is_decided(state: PushTestState, channel: bool) -> None:
    advice = advise_test(PushTest("test", state, BEGAN, BEGAN, "BadDeviceToken", channel))

    assert advice.text.endswith(".")
    refused = Actor.ADMINISTRATOR if channel else Actor.APP
    expected = {PushTestState.REFUSED: refused, PushTestState.EXPIRED: Actor.ADMINISTRATOR}
    assert advice.by is expected.get(state, Actor.NOBODY)
    assert ("BadDeviceToken" in advice.text) is (advice.by is Actor.APP)


def test_a_test_push_that_was_dropped_is_the_matter_of_its_registration() -> None:
    assert "state of the registration" in advise_test(PushTest("test", PushTestState.EXPIRED, BEGAN)).text
