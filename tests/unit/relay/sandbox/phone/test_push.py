import json
from typing import Any

import pytest

from relay.domain.model import Platform
from relay.sandbox.phone.push import FOUR_WEEKS, MONTH, read_push

NOW = 1_800_000_000.0
DATA = {"v": 1, "registration": "r1", "kind": "new-items", "class": "email", "count": 2}


def apns(body: object, **headers: str) -> dict[str, Any]:
    named = {f"apns-{name.replace('_', '-')}": value for name, value in headers.items()}
    return {"headers": named, "body": json.dumps(body)}


def test_an_alert_of_apns_is_read() -> None:
    payload = {"aps": {"alert": {"title": "New mail", "body": "There is new mail."}}, "relay": DATA}
    expiration = str(int(NOW) + 3600)
    push = read_push(
        Platform.APNS, apns(payload, push_type="alert", collapse_id="r1.email", expiration=expiration), NOW
    )

    assert push is not None
    assert (push.registration, push.kind, push.cls, push.certain) == ("r1", "new-items", "email", True)
    assert (push.title, push.body, push.loud) == ("New mail", "There is new mail.", True)
    assert (push.collapse, push.tag, push.lifetime) == ("r1.email", "r1.email", 3600)
    assert push.payload == payload


@pytest.mark.parametrize(
    ("headers", "lifetime"), [({}, MONTH), ({"expiration": "0"}, 0), ({"expiration": "5"}, 0), ({"expiration": "x"}, 0)]
)
def test_an_expiration_is_a_lifetime(headers: dict[str, str], lifetime: float) -> None:
    body = {"aps": {"content-available": 1}, "relay": DATA | {"certain": False, "nonce": "n"}}
    push = read_push(Platform.APNS, apns(body, push_type="background", **headers), NOW)

    assert push is not None
    assert (push.lifetime, push.loud, push.certain, push.nonce) == (lifetime, False, False, "n")
    assert (push.collapse, push.tag) == (None, "r1.email")


def test_a_message_of_fcm_is_read() -> None:
    android = {"priority": "HIGH", "ttl": "60s", "collapse_key": "r1.items"}
    body = {"message": {"token": "t", "data": {**DATA, "certain": "false"}, "android": android}}
    push = read_push(Platform.FCM, {"headers": {}, "body": json.dumps(body)}, NOW)

    assert push is not None
    assert (push.loud, push.lifetime, push.collapse, push.certain) == (True, 60, "r1.items", False)
    assert push.tag == "r1.email"  # the app tags its banners by class


def test_a_message_of_fcm_without_options_waits_four_weeks() -> None:
    body = {"message": {"fid": "f", "data": {"registration": "r1", "kind": "test"}}}
    push = read_push(Platform.FCM, {"headers": {}, "body": json.dumps(body)}, NOW)

    assert push is not None
    assert (push.loud, push.lifetime, push.collapse, push.tag) == (False, FOUR_WEEKS, None, "r1.test")


@pytest.mark.parametrize(("urgency", "loud"), [({"urgency": "high"}, True), ({}, False)])
def test_a_message_of_webpush_is_read(urgency: dict[str, str], loud: bool) -> None:
    received = {"headers": {"ttl": "60", "topic": "abc", **urgency}, "body": "sealed", "message": json.dumps(DATA)}
    push = read_push(Platform.WEBPUSH, received, NOW)

    assert push is not None
    assert (push.loud, push.lifetime, push.collapse) == (loud, 60, "abc")


@pytest.mark.parametrize(
    ("platform", "received"),
    [
        (Platform.APNS, {"headers": {}, "body": "no JSON"}),
        (Platform.APNS, {"headers": {}, "body": '{"aps": "text"}'}),
        (Platform.APNS, {"headers": {}, "body": "[]"}),
        (Platform.FCM, {"headers": {}, "body": "{}"}),
        (Platform.FCM, {"headers": {}, "body": '{"message": {"data": {"kind": "test"}, "android": 1}}'}),
        (Platform.WEBPUSH, {"headers": {}, "body": "sealed", "message": None}),
    ],
)
def test_a_push_that_is_not_the_relays_is_none(platform: Platform, received: dict[str, Any]) -> None:
    assert read_push(platform, received, NOW) is None
