import json
from typing import Any

import pytest
from push_relay_client import Apns, Basic, Certificate, Fcm, Fid, Kerberos, OAuth, WebPush, Wish
from push_relay_client.wish import Credential, Device

from relay.api.schema import ChangeBody, RegistrationBody, parse

APNS = Apns("com.example.mail", "4a" * 32, "sandbox")
FCM = Fcm("com.example.mail", "registration-token-of-a-phone")
FID = Fid("com.example.mail", "cFakeFakeFakeFakeFakeF")
KEYS = {
    "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}
WEBPUSH = WebPush("com.example.mail", "https://push.example.com/abc", KEYS)
PKCS12 = "Y2FuYXJ5"
BASIC = Basic("canary")


@pytest.mark.parametrize("device", [APNS, FCM, FID, WEBPUSH], ids=lambda device: type(device).__name__)
@pytest.mark.parametrize(
    "credential",
    [BASIC, Basic("canary", "ann"), OAuth("canary"), Certificate(PKCS12, "canary"), Kerberos("canary")],
    ids=lambda credential: type(credential).__name__,
)
def test_the_relay_takes_every_wish(device: Device, credential: Credential) -> None:
    wish = Wish("ann@example.com", credential, device, classes=["email"], mode="background", locale="de-AT")
    parse(RegistrationBody, json.dumps(wish.body()).encode())

    parse(ChangeBody, json.dumps({"device": device.address(), "credential": credential.fields()}).encode())


def test_what_is_not_wished_is_left_out() -> None:
    expected: dict[str, Any] = {
        "mailbox": "ann@example.com",
        "credential": {"kind": "basic", "password": "canary"},
        "device": {"platform": "fcm", "app": "com.example.mail", "token": "registration-token-of-a-phone"},
    }

    assert Wish("ann@example.com", BASIC, FCM).body() == expected


@pytest.mark.parametrize("secret", [OAuth("canary"), Certificate(PKCS12, "canary"), Kerberos("canary"), BASIC])
def test_no_secret_shows(secret: Credential) -> None:
    shown = repr(Wish("ann@example.com", secret, FCM, invitation="canary"))

    assert "canary" not in shown
    assert PKCS12 not in shown
    assert FCM.token not in repr(FCM)
    assert FID.fid not in repr(FID)
    assert APNS.token not in repr(APNS)
    assert WEBPUSH.endpoint not in repr(WEBPUSH)
