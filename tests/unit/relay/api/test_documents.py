import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.reasons import Reason
from relay.api.documents import LimitsAnswer, capabilities, push_test, registered, registration, with_test
from relay.domain.model import (
    Environment,
    Platform,
    PushTest,
    PushTestState,
    Quarantine,
    RegistrationId,
    RegistrationState,
    RegistrationView,
)
from relay.registration.capabilities import Capabilities, OAuthFacts, ServerFacts
from relay.registration.guidance import advise_test
from relay.registration.identity import ServerDirectory
from relay.security.credentials import CredentialKind
from tests.fakes import records

BEGAN = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)
MAILBOX = records.mailbox(
    id=MailboxId("hidden-mailbox-id"),
    server="head-office",
    state=WatchState.WAITING,
    reason=Reason.UNREACHABLE,
    detail="hidden detail",
    since=BEGAN,
    next_try_at=BEGAN + timedelta(minutes=1),
    last_ping_at=BEGAN - timedelta(minutes=1),
    heartbeat=540,
)
REGISTRATION = records.registration(
    id=RegistrationId("r1"),
    mailbox_id=MAILBOX.id,
    secret_hash=b"hidden hash",
    environment=Environment.SANDBOX,
    device_token="hidden-token",
    token_since=BEGAN,
    classes=frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR}),
    subfolders=frozenset({CollectionClass.EMAIL}),
    created_at=BEGAN.astimezone(timezone(timedelta(hours=1))),
)
VIEW = RegistrationView(REGISTRATION, MAILBOX, candidate_pending=False, candidate_refused=True)


def test_shows_an_active_registration() -> None:
    assert registration(VIEW) == {
        "id": "r1",
        "state": "active",
        "remedy": {"by": "nobody", "text": "The relay cannot watch the mailbox now; it tries again by itself."},
        "mailbox": {
            "server": "head-office",
            "user": "ann@example.com",
            "device_id": "DEVICE",
            "state": "waiting",
            "reason": Reason.UNREACHABLE,
            "since": "2026-11-23T08:00:00Z",
            "next_try_at": "2026-11-23T08:01:00Z",
            "last_ping_at": "2026-11-23T07:59:00Z",
            "last_change_at": None,
        },
        "device": {
            "platform": "apns",
            "app": "com.example.mail",
            "environment": "sandbox",
            "token_since": "2026-11-23T08:00:00Z",
        },
        "classes": ["calendar", "email"],
        "subfolders": ["email"],
        "mode": "alert",
        "locale": "en",
        "credential": {"pending": False, "refused": True},
        "created_at": "2026-11-23T08:00:00Z",
        "last_push_at": None,
        "last_outcome": None,
        "quarantine": None,
    }


def test_an_fcm_device_has_no_environment() -> None:
    device = registration(replace(VIEW, registration=replace(REGISTRATION, platform=Platform.FCM)))["device"]

    assert device == {"platform": "fcm", "app": "com.example.mail", "token_since": "2026-11-23T08:00:00Z"}


@pytest.mark.parametrize("state", [RegistrationState.VERIFYING, RegistrationState.REFUSED])
def test_an_unproved_app_sees_only_the_name_of_a_watched_mailbox(state: RegistrationState) -> None:
    shown = registration(replace(VIEW, registration=replace(REGISTRATION, state=state)))

    assert shown["mailbox"] == {"server": "head-office", "user": "ann@example.com"}


def test_a_mailbox_without_an_accepted_credential_shows_why() -> None:
    mailbox = replace(MAILBOX, state=WatchState.VERIFYING, reason=Reason.NOT_ASKED)
    verifying = replace(REGISTRATION, state=RegistrationState.VERIFYING)

    shown = registration(replace(VIEW, registration=verifying, mailbox=mailbox))["mailbox"]

    assert shown == {
        "server": "head-office",
        "user": "ann@example.com",
        "state": "verifying",
        "reason": Reason.NOT_ASKED,
        "since": "2026-11-23T08:00:00Z",
        "next_try_at": "2026-11-23T08:01:00Z",
    }


@pytest.mark.parametrize(
    ("reason", "shown"),
    [(Reason.SEAL_BROKEN, "seal-broken"), (Reason.KERBEROS_TICKET, "kerberos-ticket"), (Reason.EAS_126, "not-asked")],
)
def test_an_unproved_app_sees_only_reasons_of_the_relay_itself(reason: Reason, shown: str) -> None:
    mailbox = replace(MAILBOX, state=WatchState.VERIFYING, reason=reason)
    verifying = replace(REGISTRATION, state=RegistrationState.VERIFYING)

    document = registration(replace(VIEW, registration=verifying, mailbox=mailbox))["mailbox"]

    assert isinstance(document, dict)
    assert document["reason"] == shown


def test_tokens_hashes_and_details_for_operators_do_not_show() -> None:
    assert "hidden" not in json.dumps(registration(VIEW))


def test_a_new_registration_shows_its_secret() -> None:
    assert registered(VIEW, "canary") == {"secret": "canary", **registration(VIEW)}


def test_a_test_push_shows_what_became_of_it() -> None:
    refused = PushTest("t1", PushTestState.REFUSED, BEGAN, BEGAN + timedelta(seconds=1), "BadDeviceToken")

    shown = push_test(refused)

    assert shown["remedy"] == {"by": "app", "text": advise_test(refused).text}
    assert {name: shown[name] for name in shown if name != "remedy"} == {
        "id": "t1",
        "state": "refused",
        "asked_at": "2026-11-23T08:00:00Z",
        "ended_at": "2026-11-23T08:00:01Z",
        "reason": "BadDeviceToken",
    }
    assert with_test(VIEW, refused) == {"test": shown, **registration(VIEW)}
    assert push_test(PushTest("t1", PushTestState.QUEUED, BEGAN))["reason"] is None


def test_a_quarantine_shows_its_reason_and_the_next_try_but_no_remedy_for_operators() -> None:
    quarantine = Quarantine(BEGAN, "BadDeviceToken", "hidden remedy", BEGAN + timedelta(hours=1))
    own = replace(REGISTRATION, quarantine=quarantine)

    assert registration(replace(VIEW, registration=own))["quarantine"] == {
        "reason": "BadDeviceToken",
        "since": "2026-11-23T08:00:00Z",
        "recheck_at": "2026-11-23T09:00:00Z",
    }


LIMITS = LimitsAnswer(
    body_bytes=1,
    requests_per_minute=2,
    registrations_per_minute=3,
    requests_per_minute_of_registration=4,
    registrations_per_mailbox=5,
)
DIRECTORY = ServerDirectory({"main": ["example.com"], "plain": ["plain.example.com"]})
OAUTH = OAuthFacts(
    "https://login.example.com/token", "relay", "openid", frozenset({"b", "a"}), "https://login.example.com/authorize"
)
ABLE = Capabilities(
    DIRECTORY,
    "1.2.3",
    {
        Platform.APNS: frozenset({"b.app", "a.app"}),
        Platform.FCM: frozenset({"droid"}),
        Platform.WEBPUSH: frozenset({"web"}),
    },
    frozenset({"push.example.com"}),
    {"main": ServerFacts(frozenset({CredentialKind.OAUTH, CredentialKind.BASIC}), OAUTH)},
)


def test_shows_the_platforms_with_their_apps_and_what_each_of_them_needs() -> None:
    assert capabilities(ABLE, None, None, "BIfm", LIMITS)["platforms"] == {
        "apns": {"apps": ["a.app", "b.app"], "environments": ["production", "sandbox"]},
        "fcm": {"apps": ["droid"]},
        "webpush": {"apps": ["web"], "services": ["push.example.com"], "vapid_public_key": "BIfm"},
    }


def test_a_platform_without_apps_does_not_show() -> None:
    able = replace(ABLE, apps={Platform.APNS: frozenset({"app"}), Platform.FCM: frozenset()})

    assert list(capabilities(able, None, None, "", LIMITS)["platforms"]) == ["apns"]  # type: ignore[call-overload]


def test_shows_the_server_of_a_mailbox_with_its_oauth() -> None:
    shown = capabilities(ABLE, "ann@example.com", None, "", LIMITS)

    assert shown["server"] == {
        "name": "main",
        "credentials": ["basic", "oauth"],
        "oauth": {
            "authorization_endpoint": "https://login.example.com/authorize",
            "token_endpoint": "https://login.example.com/token",
            "client_id": "relay",
            "scope": "openid",
            "audience": ["a", "b"],
        },
    }
    assert shown["limits"] == LIMITS.model_dump()


def test_a_server_without_oauth_and_no_server_show_as_null() -> None:
    plain = capabilities(ABLE, "ann@plain.example.com", None, "", LIMITS)

    assert plain["server"] == {"name": "plain", "credentials": ["basic"], "oauth": None}
    assert capabilities(ABLE, "ann@elsewhere.example", None, "", LIMITS)["server"] is None
