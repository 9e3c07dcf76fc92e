from typing import Final

import pytest

from relay.domain.fcm_device import FcmDevice
from relay.domain.model import Environment, Platform
from relay.domain.subscription import Subscription
from relay.registration.errors import UnsupportedDevice
from relay.registration.requests import (
    BasicLogin,
    CertificateLogin,
    Device,
    KerberosLogin,
    Login,
    OAuthCodeLogin,
    OAuthLogin,
    check_device,
    refusal,
)

SUBSCRIPTION: Final = Subscription.of(
    "https://push.example.com/up/canary",
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "BTBZMqHH6r4Tts7J_aSIgg",
).token
FID: Final = FcmDevice.of_fid("cAnInventedFid_0123-ab").device_token


@pytest.mark.parametrize(
    ("platform", "token", "environment"),
    [
        (Platform.APNS, "c0ffEE00" * 8, Environment.PRODUCTION),
        (Platform.APNS, "00" * 100, Environment.SANDBOX),
        (Platform.APNS, None, None),
        (Platform.FCM, "fO0:APA91b-tok_en", Environment.PRODUCTION),
        (Platform.FCM, "x" * 1024, None),
        (Platform.FCM, FID, None),
    ],
)
def test_a_device_of_its_platform_passes(
    platform: Platform, token: str | None, environment: Environment | None
) -> None:
    check_device(platform, token, environment)


@pytest.mark.parametrize(
    ("platform", "token", "environment"),
    [
        (Platform.APNS, "", None),
        (Platform.APNS, "c0ffee", None),
        (Platform.APNS, "00" * 101, None),
        (Platform.APNS, "0" * 65, None),
        (Platform.APNS, "xy" * 32, None),
        (Platform.APNS, "00" * 32 + "\n", None),
        (Platform.FCM, "short", None),
        (Platform.FCM, "with space in it", None),
        (Platform.FCM, "x" * 1025, None),
        (Platform.FCM, "token/../of:ann", None),
        (Platform.FCM, "fO0:APA91b-tok_en", Environment.SANDBOX),
        (Platform.FCM, SUBSCRIPTION, None),
        (Platform.FCM, "cAnInventedFid_0123-ab", None),
        (Platform.FCM, FID, Environment.SANDBOX),
        (Platform.APNS, FID, None),
        (Platform.WEBPUSH, FID, None),
        (Platform.APNS, SUBSCRIPTION, None),
        (Platform.WEBPUSH, "c0ffEE00" * 8, None),
        (Platform.WEBPUSH, SUBSCRIPTION + " ", None),
        (Platform.WEBPUSH, SUBSCRIPTION, None),
    ],
)
def test_a_device_of_another_kind_is_refused_without_repeating_its_token(
    platform: Platform, token: str, environment: Environment | None
) -> None:
    with pytest.raises(UnsupportedDevice) as refusal:
        check_device(platform, token, environment)
    assert not token or token not in str(refusal.value)


@pytest.mark.parametrize(
    ("platform", "token", "field"),
    [
        (Platform.FCM, SUBSCRIPTION, "device.endpoint"),
        (Platform.APNS, SUBSCRIPTION, "device.endpoint"),
        (Platform.APNS, FID, "device.fid"),
        (Platform.WEBPUSH, FID, "device.fid"),
        (Platform.WEBPUSH, "c0ffEE00" * 8, "device.token"),
        (Platform.WEBPUSH, SUBSCRIPTION + " ", "device.token"),
        (Platform.FCM, "short", "device.token"),
    ],
)
def test_a_refusal_names_the_field_that_the_app_sent(platform: Platform, token: str, field: str) -> None:
    with pytest.raises(UnsupportedDevice) as refusal:
        check_device(platform, token, None)
    assert refusal.value.field == field


def test_a_subscription_passes_at_a_push_service_that_may_be_asked() -> None:
    check_device(Platform.WEBPUSH, SUBSCRIPTION, Environment.PRODUCTION, {"push.example.com"})
    check_device(Platform.WEBPUSH, None, None, frozenset())

    with pytest.raises(UnsupportedDevice, match="host of `endpoint`"):
        check_device(Platform.WEBPUSH, SUBSCRIPTION, None, {"push.example.com:8443", "example.com"})
    with pytest.raises(UnsupportedDevice, match="no sandbox"):
        check_device(Platform.WEBPUSH, SUBSCRIPTION, Environment.SANDBOX, {"push.example.com"})


def test_secrets_do_not_show() -> None:
    shown = repr(BasicLogin("canary")) + repr(Device(Platform.APNS, "com.example.mail", "canary"))

    assert "canary" not in shown


@pytest.mark.parametrize(
    ("login", "what", "field"),
    [
        (BasicLogin("canary"), "user or password", "credential"),
        (OAuthLogin("canary"), "refresh token", "credential"),
        (OAuthCodeLogin("canary", "canary", "canary"), "code", "credential.code"),
        (CertificateLogin(pem="canary"), "certificate", "credential"),
        (KerberosLogin("canary"), "user", "credential"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_names_what_the_user_showed_and_not_its_value(login: Login, what: str, field: str) -> None:
    text, named = refusal(login)

    assert f"refused {what}" in text.replace("the ", "")
    assert named == field
    assert "canary" not in text
