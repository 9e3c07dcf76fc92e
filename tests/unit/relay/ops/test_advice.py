from dataclasses import replace
from datetime import timedelta

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.explanation import KnownRegistration, MailboxExplanation, WaitingMark
from relay.domain.model import Mark, Platform, Quarantine, RegistrationState
from relay.domain.outcome import LastOutcome
from relay.domain.reasons import row_of
from relay.ops.advice import SLACK, advise_on_mailbox, advise_on_registration
from tests.fakes import records

NOW = records.BEGAN
MAILBOX = records.mailbox(last_ping_at=NOW, heartbeat=600.0)
REGISTRATION = records.registration()
WAITING = WaitingMark(Mark.EMAIL, 1, NOW, NOW, 0, claimed=False)


def explanation(state: WatchState = WatchState.WATCHING, reason: Reason | None = None) -> MailboxExplanation:
    return MailboxExplanation(replace(MAILBOX, state=state, reason=reason), "node", NOW + timedelta(seconds=30), ())


def known(
    *marks: WaitingMark, state: RegistrationState = RegistrationState.ACTIVE, outcome: str = ""
) -> KnownRegistration:
    registration = replace(REGISTRATION, state=state, last_outcome=LastOutcome.read(outcome))
    return KnownRegistration(registration, candidate_pending=False, candidate_refused=False, marks=marks)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (WatchState.VERIFYING, None, "asks again"),
        (WatchState.VERIFYING, Reason.NOT_ASKED, "asks again"),
        (WatchState.VERIFYING, Reason.EAS_126, "-ActiveSyncEnabled"),
        (WatchState.VERIFYING, Reason.KERBEROS_TICKET, "service name"),
        (WatchState.STARTING, None, "begins"),
        (WatchState.WATCHING, None, "holds a Ping"),
        (WatchState.WATCHING, Reason.PERHAPS_QUARANTINED, "quarantines the relay's device"),
        (WatchState.WATCHING, Reason.PERHAPS_IN_DISCOVERY, "what device this is"),
        (WatchState.WIPING, Reason.REMOTE_WIPE, "acknowledges a wipe"),
        (WatchState.WAITING, Reason.UNREACHABLE, "port 443"),
        (WatchState.WAITING, Reason.POLICY_LOOP, "policy"),
        (WatchState.WAITING, Reason.REDIRECTED, "autodiscover"),
        (WatchState.WAITING, Reason.HTTP_401, "confirms"),
        (WatchState.WAITING, Reason.UNKNOWN, "newer version"),
        (WatchState.BLOCKED, Reason.EAS_129, 'ActiveSyncAllowedDeviceIDs @{Add="DEVICE"}'),
        (WatchState.BLOCKED, Reason.HTTP_403, "-QueryString PushRelay -Characteristic DeviceType"),
        (WatchState.BLOCKED, Reason.EAS_177, "too many devices"),
        (WatchState.BLOCKED, Reason.CREDENTIAL_KIND, "servers.NAME.credentials"),
        (WatchState.BLOCKED, Reason.OAUTH_CLIENT, "oauth_client_id"),
        (WatchState.BLOCKED, Reason.KERBEROS_DELEGATION, "docs/authentication.md"),
        (WatchState.BLOCKED, Reason.KERBEROS_USER_LOCKED, "unlock it"),
        (WatchState.CREDENTIAL_REFUSED, Reason.OAUTH_INVALID_GRANT, "log in again"),
        (WatchState.CREDENTIAL_REFUSED, Reason.CERTIFICATE_EXPIRED, "next certificate"),
        (WatchState.CREDENTIAL_REFUSED, Reason.KERBEROS_USER_UNKNOWN, "no such user"),
        (WatchState.BLOCKED, Reason.EAS_145, "acknowledgement_fallback"),
        (WatchState.BLOCKED, Reason.SEAL_BROKEN, "sealing key"),
        (WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, "present password"),
        (WatchState.WIPED, Reason.REMOTE_WIPE, "registers again"),
    ],
)
def test_each_state_of_a_mailbox_has_its_remedy(state: WatchState, reason: Reason | None, words: str) -> None:
    assert words in advise_on_mailbox(explanation(state, reason), NOW)


def test_a_blocked_mailbox_has_the_remedy_of_its_reason() -> None:
    for reason in set(Reason) - {Reason.MAINTENANCE}:
        row = row_of(WatchState.BLOCKED, reason)

        advice = advise_on_mailbox(explanation(WatchState.BLOCKED, reason), NOW)

        assert advice.startswith(row.remedy), reason
        assert advice.endswith(f"The relay checks again {row.recheck}."), reason
        assert ("New-ActiveSyncDeviceAccessRule" in advice) == row.access_rule, reason


def test_what_an_administrator_halted_waits_for_an_administrator() -> None:
    paused = replace(explanation(WatchState.PAUSED), owner=None)
    maintained = explanation(WatchState.WAITING, Reason.MAINTENANCE)

    assert "relay mailboxes resume" in advise_on_mailbox(paused, NOW)
    assert "relay maintenance NAME off" in advise_on_mailbox(maintained, NOW)


def test_a_registration_of_a_paused_mailbox_says_so_but_for_a_wiped_one() -> None:
    assert "until it is resumed" in advise_on_registration(known(WAITING), None, NOW, paused=True)
    wiped = known(state=RegistrationState.WIPED)
    assert "told of the wipe" in advise_on_registration(wiped, None, NOW, paused=True)


@pytest.mark.parametrize("state", sorted(set(WatchState) - {WatchState.PAUSED}))
def test_a_mailbox_without_an_owner_needs_a_process_in_every_state(state: WatchState) -> None:
    for orphan in (
        replace(explanation(state), owner=None),
        replace(explanation(state), owned_until=NOW - timedelta(seconds=1)),
    ):
        assert "No process watches" in advise_on_mailbox(orphan, NOW)


def test_a_ping_that_is_too_old_asks_for_a_look_at_the_process() -> None:
    held = explanation()
    fine = timedelta(seconds=600) + SLACK
    held = replace(held, owned_until=NOW + timedelta(days=1))

    assert "holds a Ping" in advise_on_mailbox(held, NOW + fine)
    assert "older than it may be" in advise_on_mailbox(held, NOW + fine + timedelta(seconds=1))
    never = replace(held, mailbox=replace(held.mailbox, last_ping_at=None, heartbeat=None))
    assert "older than it may be" in advise_on_mailbox(never, NOW + SLACK + timedelta(seconds=1))


LONG_AGO = NOW - SLACK - timedelta(seconds=1)


def in_quarantine(known: KnownRegistration) -> KnownRegistration:
    quarantine = Quarantine(NOW, "BadDeviceToken", "look", NOW)
    return replace(known, registration=replace(known.registration, quarantine=quarantine))


def of_webpush(known: KnownRegistration) -> KnownRegistration:
    return replace(known, registration=replace(known.registration, platform=Platform.WEBPUSH))


@pytest.mark.parametrize(
    ("registration", "words"),
    [
        (known(), "notification settings"),
        (known(WAITING), "on its way"),
        (known(replace(WAITING, first_at=NOW - SLACK - timedelta(seconds=1))), "No push process"),
        (known(replace(WAITING, first_at=LONG_AGO), outcome="delivered"), "may be away"),
        (known(replace(WAITING, attempts=1), outcome="retry-later: 503"), "(503); it is tried again at 12:00:00 UTC"),
        (
            known(WAITING, outcome="retry-later: push-service-rests: http-503"),
            "push service rests: http-503; it is tried again at",
        ),
        (
            of_webpush(known(replace(WAITING, attempts=1), outcome="retry-later: http-507")),
            "(http-507); it is tried again",
        ),
        (of_webpush(known(replace(WAITING, attempts=1), outcome="retry-later: http-507")), "e.g. ntfy"),
        (
            of_webpush(in_quarantine(known(WAITING))),
            "subscription (BadDeviceToken), tried again from 2026-11-24 12:00 UTC",
        ),
        (known(WAITING, outcome="refused: TopicDisallowed"), "/healthz"),
        (known(WAITING, outcome="retry-later: egress-log: No space left on device"), "(No space left on device), so"),
        (known(replace(WAITING, first_at=LONG_AGO), outcome="retry-later: timed-out"), "serves nobody"),
        (known(replace(WAITING, parked="internal-error", attempts=5)), "breaks the relay"),
        (known(outcome="expired: not delivered for 24 h"), "not delivered in time"),
        (known(outcome="shadowed"), "was shadow then"),
        (in_quarantine(known(WAITING)), "BadDeviceToken"),
        (replace(known(WAITING), candidate_pending=True), "waits for the mail server's word"),
        (known(state=RegistrationState.VERIFYING), "waits for the mail server's word"),
        (known(state=RegistrationState.REFUSED), "right password"),
        (known(state=RegistrationState.TOKEN_GONE), "present token"),
        (known(state=RegistrationState.WIPED), "wipe"),
    ],
)
def test_each_state_of_a_registration_has_its_remedy(registration: KnownRegistration, words: str) -> None:
    assert words in advise_on_registration(registration, None, NOW)


def test_a_new_registration_waits_for_what_its_mailbox_waits_for() -> None:
    new = known(state=RegistrationState.VERIFYING)

    assert "above about the mailbox" in advise_on_registration(new, Reason.UNREACHABLE, NOW)
    assert "Nothing yet" in advise_on_registration(new, Reason.NOT_ASKED, NOW)
