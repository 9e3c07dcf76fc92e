"""Tests of what the doctor lets leave, and of what the answers of providers mean to it."""

from pathlib import Path

import pytest

from eas_watcher.proxy.proxy import Proxy
from eas_watcher.tools.probe.finding import Grade
from relay.doctor.finding import Subject
from relay.doctor.providers import MADE_UP_FCM, MadeUpOnly, judge_apns, judge_fcm, proxies
from relay.domain.devices import NO_IPHONE
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.network.route import Route
from relay.push.apns.config import ApnsConfig
from relay.push.apns.sender import is_device_token
from relay.push.egress.leaving import Leaving, Unwritable
from relay.push.fcm.config import FcmConfig
from relay.push.payload import ApnsMessage, Notice, WebPushMessage
from relay.push.webpush.config import WebPushConfig
from tests.unit.relay.push.pushes import due_push

PUSH = Subject("push", "apns")
NOTICE = Notice.of(due_push())
PROXY = Proxy("proxy.example.com", 3128)


def test_a_push_to_a_device_that_may_exist_never_leaves() -> None:
    lets = MadeUpOnly()
    made_up = Leaving("com.example.mail", NO_IPHONE, ApnsMessage(NOTICE))

    lets.apns([made_up])
    lets.fcm("com.example.mail", MADE_UP_FCM, b"{}")
    with pytest.raises(Unwritable):
        lets.apns([made_up, made_up._replace(device_token="4a" * 32)])
    with pytest.raises(Unwritable):
        lets.fcm("com.example.mail", "token-of-a-phone", b"{}")
    with pytest.raises(Unwritable):
        lets.webpush("com.example.mail", NO_IPHONE, WebPushMessage(NOTICE))


def test_the_made_up_device_token_has_the_form_of_apns() -> None:
    assert is_device_token(NO_IPHONE)


@pytest.mark.parametrize(
    ("outcome", "grade"),
    [
        (Refused("BadDeviceToken", ""), Grade.GOOD),
        (Refused("DeviceTokenNotForTopic", ""), Grade.GOOD),
        (TokenGone("Unregistered"), Grade.GOOD),
        (Delivered(), Grade.BAD),
        (Refused("InvalidProviderToken", "check apns.key_id"), Grade.BAD),
        (RetryLater("TooManyProviderTokenUpdates"), Grade.NOTE),
        (RetryLater("InternalServerError"), Grade.BAD),
    ],
)
def test_apple_must_know_no_such_device(outcome: Outcome, grade: Grade) -> None:
    finding = judge_apns(PUSH, "com.example.mail", outcome)

    assert finding.grade is grade
    assert "com.example.mail" in finding.text
    assert bool(finding.remedy) is (grade is not Grade.GOOD)


@pytest.mark.parametrize(
    ("outcome", "grade"),
    [
        (Delivered("projects/p/messages/fake"), Grade.GOOD),
        (TokenGone("UNREGISTERED"), Grade.GOOD),
        (Refused("INVALID_ARGUMENT", ""), Grade.GOOD),
        (Refused("INVALID_ARGUMENT: message.data", "report it", channel=True), Grade.BAD),
        (Refused("PERMISSION_DENIED", "enable the API", channel=True), Grade.BAD),
        (RetryLater("UNAVAILABLE"), Grade.BAD),
    ],
)
def test_fcm_must_take_the_service_account(outcome: Outcome, grade: Grade) -> None:
    finding = judge_fcm(PUSH, outcome)

    assert finding.grade is grade
    assert bool(finding.remedy) is (grade is Grade.BAD)


def test_each_proxy_is_asked_once_for_a_host_behind_it() -> None:
    apns = ApnsConfig((), route=Route(PROXY))
    fcm = FcmConfig((), route=Route(PROXY))
    webpush = WebPushConfig(
        frozenset({"push.example.com", "ntfy.example.com:8443"}),
        Path("vapid.pem"),
        "mailto:admin@example.com",
        route=Route(Proxy("other.example.com", 8080)),
        direct=frozenset({"ntfy.example.com:8443"}),
    )

    uses = [(use.proxy.host, use.host, use.port) for use in proxies(apns, fcm, webpush)]

    assert uses == [
        ("proxy.example.com", "api.push.apple.com", 443),
        ("other.example.com", "push.example.com", 443),
    ]
    assert proxies(None, None, None) == []
    assert [use.host for use in proxies(None, fcm, None)] == ["fcm.googleapis.com"]
