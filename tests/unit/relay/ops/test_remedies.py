from dataclasses import replace
from datetime import timedelta

import pytest

from eas_watcher.machine.condition import DISCOVERY, QUARANTINE
from eas_watcher.machine.memory import WatchState
from relay.domain.explanation import KnownRegistration, MailboxExplanation, WaitingMark
from relay.domain.model import Mark, Quarantine, RegistrationState
from relay.ops.remedies import SLACK, advise_on_mailbox, advise_on_registration
from tests.fakes import records

NOW = records.BEGAN
MAILBOX = records.mailbox(last_ping_at=NOW, heartbeat=600.0)
REGISTRATION = records.registration()
WAITING = WaitingMark(Mark.EMAIL, 1, NOW, NOW, 0, claimed=False)


def case(state: WatchState = WatchState.WATCHING, reason: str = "") -> MailboxExplanation:
    return MailboxExplanation(replace(MAILBOX, state=state, reason=reason), "node", NOW + timedelta(seconds=30), ())


def known(
    *marks: WaitingMark, state: RegistrationState = RegistrationState.ACTIVE, outcome: str = ""
) -> KnownRegistration:
    registration = replace(REGISTRATION, state=state, last_outcome=outcome)
    return KnownRegistration(registration, candidate_pending=False, candidate_refused=False, marks=marks)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (WatchState.VERIFYING, "", "asked again"),
        (WatchState.VERIFYING, "not-asked", "asked again"),
        (WatchState.VERIFYING, "kerberos-ticket", "service name"),
        (WatchState.STARTING, "", "begins"),
        (WatchState.WATCHING, "", "holds a Ping"),
        (WatchState.WATCHING, QUARANTINE, "quarantines device DEVICE"),
        (WatchState.WATCHING, DISCOVERY, "what device this is"),
        (WatchState.WIPING, "remote-wipe", "being acknowledged"),
        (WatchState.WAITING, "unreachable", "port 443"),
        (WatchState.WAITING, "policy-loop", "policy"),
        (WatchState.WAITING, "redirected", "autodiscover"),
        (WatchState.WAITING, "unheard-of", "tries again by itself (unheard-of)"),
        (WatchState.BLOCKED, "eas-129", 'ActiveSyncAllowedDeviceIDs @{Add="DEVICE"}'),
        (WatchState.BLOCKED, "http-403", "-QueryString PushRelay -Characteristic DeviceType"),
        (WatchState.BLOCKED, "eas-177", "too many devices"),
        (WatchState.BLOCKED, "credential-kind", "servers.NAME.credentials"),
        (WatchState.BLOCKED, "oauth-client", "oauth_client_id"),
        (WatchState.BLOCKED, "kerberos-delegation", "docs/authentication.md"),
        (WatchState.BLOCKED, "kerberos-user-locked", "unlock it"),
        (WatchState.CREDENTIAL_REFUSED, "oauth-invalid_grant", "log in anew"),
        (WatchState.CREDENTIAL_REFUSED, "certificate-expired", "next certificate"),
        (WatchState.CREDENTIAL_REFUSED, "kerberos-user-unknown", "no such user"),
        (WatchState.BLOCKED, "eas-145", "acknowledgement_fallback"),
        (WatchState.BLOCKED, "seal-broken", "sealing key"),
        (WatchState.CREDENTIAL_REFUSED, "http-401", "present password"),
        (WatchState.WIPED, "remote-wipe", "registers anew"),
    ],
)
def test_each_state_of_a_mailbox_has_its_remedy(state: WatchState, reason: str, words: str) -> None:
    assert words in advise_on_mailbox(case(state, reason), NOW)


@pytest.mark.parametrize("state", list(WatchState))
def test_whatever_its_state_a_mailbox_without_an_owner_needs_a_process(state: WatchState) -> None:
    for orphan in (replace(case(state), owner=None), replace(case(state), owned_until=NOW - timedelta(seconds=1))):
        assert "No process watches" in advise_on_mailbox(orphan, NOW)


def test_a_ping_that_is_too_old_is_no_good_sign() -> None:
    held = case()
    fine = timedelta(seconds=600) + SLACK
    held = replace(held, owned_until=NOW + timedelta(days=1))

    assert "holds a Ping" in advise_on_mailbox(held, NOW + fine)
    assert "older than it may be" in advise_on_mailbox(held, NOW + fine + timedelta(seconds=1))
    never = replace(held, mailbox=replace(held.mailbox, last_ping_at=None, heartbeat=None))
    assert "older than it may be" in advise_on_mailbox(never, NOW + SLACK + timedelta(seconds=1))


LONG_AGO = NOW - SLACK - timedelta(seconds=1)


def in_quarantine(case: KnownRegistration) -> KnownRegistration:
    quarantine = Quarantine(NOW, "BadDeviceToken", "look", NOW)
    return replace(case, registration=replace(case.registration, quarantine=quarantine))


@pytest.mark.parametrize(
    ("registration", "words"),
    [
        (known(), "notification settings"),
        (known(WAITING), "on its way"),
        (known(replace(WAITING, first_at=NOW - SLACK - timedelta(seconds=1))), "No push process"),
        (known(replace(WAITING, first_at=LONG_AGO), outcome="delivered"), "may be away"),
        (known(replace(WAITING, attempts=1), outcome="retry-later: 503"), "tried again at 12:00:00 UTC"),
        (known(WAITING, outcome="refused: TopicDisallowed"), "/healthz"),
        (known(replace(WAITING, first_at=LONG_AGO), outcome="retry-later: timed-out"), "serves nobody"),
        (known(replace(WAITING, parked="internal-error", attempts=5)), "breaks the relay"),
        (known(outcome="expired: not delivered for 24 h"), "not delivered in time"),
        (in_quarantine(known(WAITING)), "BadDeviceToken"),
        (replace(known(WAITING), candidate_pending=True), "waits for the mail server's word"),
        (known(state=RegistrationState.VERIFYING), "waits for the mail server's word"),
        (known(state=RegistrationState.REFUSED), "right password"),
        (known(state=RegistrationState.TOKEN_GONE), "present token"),
        (known(state=RegistrationState.WIPED), "wipe"),
    ],
)
def test_each_state_of_a_registration_has_its_remedy(registration: KnownRegistration, words: str) -> None:
    assert words in advise_on_registration(registration, NOW)
