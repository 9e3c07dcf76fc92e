import json
import re
from base64 import b64encode, encodebytes, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from eas_watcher.names import CollectionClass
from relay.api.faults import MOST, PATTERNS
from relay.api.schema import Body, ChangeBody, MalformedJson, ReceiptsBody, RegistrationBody, parse
from relay.domain.fcm_device import FcmDevice
from relay.domain.model import Environment, Mode, Platform, RegistrationChange
from relay.domain.subscription import Subscription
from relay.registration.errors import InvalidRequest
from relay.registration.requests import (
    BasicLogin,
    CertificateLogin,
    Device,
    KerberosLogin,
    OAuthCodeLogin,
    OAuthLogin,
    RegistrationRequest,
)


def body(**changes: Any) -> dict[str, Any]:
    least: dict[str, Any] = {
        "mailbox": "ann@example.com",
        "credential": {"kind": "basic", "password": "canary"},
        "device": {"platform": "apns", "app": "com.example.mail", "token": "c0ffee"},
    }
    return least | changes


KEYS = {
    "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}


CODE = {"kind": "oauth", "code": "canary", "code_verifier": "canary-" * 7, "redirect_uri": "com.example.mail:/in"}
FID = "cAnInventedFid_0123-ab"


def subscription(**changes: Any) -> dict[str, Any]:
    device = {"platform": "webpush", "app": "a", "endpoint": "https://push.example.com/x", "keys": KEYS}
    return device | changes


def read(value: Any) -> RegistrationRequest:
    return parse(RegistrationBody, json.dumps(value).encode()).request()


def fields_refused(model: type[Body], value: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as refusal:
        parse(model, json.dumps(value).encode())
    assert "canary" not in str(refusal.value)
    return [field for field, _ in refusal.value.faults]


def test_the_least_body_gets_the_defaults() -> None:
    assert read(body()) == RegistrationRequest(
        mailbox="ann@example.com",
        login=BasicLogin("canary"),
        device=Device(Platform.APNS, "com.example.mail", "c0ffee", Environment.PRODUCTION),
        server=None,
        classes=frozenset({CollectionClass.EMAIL}),
        mode=Mode.ALERT,
        locale="en",
    )


def test_a_grant_comes_as_refresh_token_or_as_code() -> None:
    assert read(body(credential={"kind": "oauth", "refresh_token": "canary"})).login == OAuthLogin("canary")
    coded = OAuthCodeLogin("canary", "canary-" * 7, "com.example.mail:/in", "client", "ann")
    assert read(body(credential={**CODE, "client_id": "client", "user": "ann"})).login == coded
    assert read(body(credential={**CODE, "refresh_token": None})).login == replace(coded, client_id="", user=None)
    assert "canary" not in repr(coded)


def test_the_fullest_body_is_taken_as_it_is() -> None:
    device = {"platform": "apns", "app": "com.example.mail", "token": "c0ffee", "environment": "sandbox"}
    wish = read(
        body(
            server="head-office",
            credential={"kind": "basic", "user": "ann", "password": "canary"},
            device=device,
            classes=["email", "calendar", "email"],
            mode="background",
            locale="de-AT",
        )
    )

    assert wish.server == "head-office"
    assert wish.login.user == "ann"
    assert wish.device.environment is Environment.SANDBOX
    assert wish.classes == {CollectionClass.EMAIL, CollectionClass.CALENDAR}
    assert (wish.mode, wish.locale) == (Mode.BACKGROUND, "de-AT")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mailbox": ""}, "mailbox"),
        ({"mailbox": "a" * 321}, "mailbox"),
        ({"mailbox": 7}, "mailbox"),
        ({"server": "a" * 65}, "server"),
        ({"server": "../head"}, "server"),
        ({"server": "head\n"}, "server"),
        ({"credential": {"kind": "basic"}}, "credential.password"),
        ({"credential": {"kind": "bearer", "password": "canary"}}, "credential.kind"),
        ({"credential": {"kind": "basic", "password": ""}}, "credential.password"),
        ({"credential": {"kind": "basic", "password": "canary" * 200}}, "credential.password"),
        ({"credential": {"kind": "basic", "password": ["canary"]}}, "credential.password"),
        ({"credential": {"kind": "basic", "password": "canary", "user": "a" * 321}}, "credential.user"),
        ({"credential": {"kind": "oauth", "refresh_token": "canary", "client_id": "a b"}}, "credential.client_id"),
        ({"credential": {"kind": "oauth"}}, "credential"),
        ({"credential": {**CODE, "refresh_token": "canary"}}, "credential"),
        ({"credential": {**CODE, "code": None}}, "credential"),
        ({"credential": {**CODE, "code_verifier": None}}, "credential"),
        ({"credential": {**CODE, "redirect_uri": None}}, "credential"),
        ({"credential": {**CODE, "code_verifier": "canary" * 7}}, "credential.code_verifier"),
        ({"credential": {**CODE, "code_verifier": "canary+" * 7}}, "credential.code_verifier"),
        ({"credential": {**CODE, "redirect_uri": "a b"}}, "credential.redirect_uri"),
        ({"credential": {"kind": "certificate", "pkcs12": "canary!"}}, "credential.pkcs12"),
        ({"credential": "canary"}, "credential"),
        ({"device": {"platform": "wns", "app": "a", "token": "t"}}, "device.platform"),
        ({"device": {"platform": "apns", "app": "a b", "token": "t"}}, "device.app"),
        ({"device": {"platform": "apns", "app": "a" * 256, "token": "t"}}, "device.app"),
        ({"device": {"platform": "apns", "app": "a", "token": "t" * 1025}}, "device.token"),
        ({"device": {"platform": "apns", "app": "a", "token": "t", "environment": "test"}}, "device.environment"),
        ({"device": {"app": "a"}}, "device.platform"),
        ({"device": subscription(endpoint="http://push.example.com/canary")}, "device.endpoint"),
        ({"device": subscription(endpoint="https://push.example.com/canary#x")}, "device.endpoint"),
        ({"device": subscription(endpoint="https://canary@push.example.com/")}, "device.endpoint"),
        ({"device": subscription(endpoint=None)}, "device.endpoint"),
        ({"device": subscription(keys={"p256dh": KEYS["p256dh"]})}, "device.keys.auth"),
        ({"device": subscription(keys={**KEYS, "auth": "canary"})}, "device.keys.auth"),
        ({"device": subscription(keys={**KEYS, "p256dh": "canary" * 14})}, "device.keys.p256dh"),
        ({"device": subscription(keys={**KEYS, "p256dh": "BA" + "A" * 85})}, "device.keys.p256dh"),
        ({"device": subscription(token="canary")}, "device.token"),
        ({"device": subscription(environment="test")}, "device.environment"),
        ({"device": subscription(expirationTime="canary")}, "device.expirationTime"),
        ({"device": subscription(contentEncoding="aesgcm")}, "device.contentEncoding"),
        ({"classes": []}, "classes"),
        ({"classes": ["mail"]}, "classes.0"),
        ({"classes": "email"}, "classes"),
        ({"mode": "loud"}, "mode"),
        ({"locale": "english please"}, "locale"),
        ({"locale": "en" + "-x" * 200}, "locale"),
        ({"secret": "canary"}, "secret"),
        ({"f" * 500: 1}, ""),
        ({"hunter-2": 1}, ""),
    ],
)
def test_a_fault_names_its_field_and_no_value(changes: dict[str, Any], field: str) -> None:
    assert fields_refused(RegistrationBody, body(**changes)) == [field]


def test_all_faults_are_reported_at_once() -> None:
    assert fields_refused(RegistrationBody, {}) == ["mailbox", "credential", "device"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{" + '"canary": 1,' * 1_000 + '"receipts": []}', "receipts"),
        ('{"receipts": [{' + '"id": "a",' * 1_000 + '"seconds_ago": 0}]}', "receipts.0.id"),
        (json.dumps({f"canary_{'x' * n}": 1 for n in range(1, 150)}), "receipts"),
    ],
    ids=["unknown twice", "twice", "unknown"],
)
def test_a_refusal_names_so_many_faults_and_no_more(text: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(ReceiptsBody, text.encode())

    assert (refusal.value.faults[0][0], len(refusal.value.faults)) == (field, MOST)


def test_of_a_list_the_first_fault_is_told() -> None:
    assert fields_refused(ReceiptsBody, {"receipts": [{"id": "a"}] * 40}) == ["receipts.0.seconds_ago"]
    assert fields_refused(ChangeBody, {"classes": ["canary"] * 1_000, "mode": 1}) == ["classes.0", "mode"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b'{"mailbox": "\\ud800"}', b"[" * 10_000, b'{"canary": NaN'], ids=repr
)
def test_a_body_that_is_not_json_has_an_error_of_its_own(text: bytes) -> None:
    with pytest.raises(MalformedJson) as refusal:
        parse(RegistrationBody, text)
    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"mailbox":', '"mailbox": "canary", "mailbox":', "mailbox"),
        ('"password":', '"password": "canary", "password":', "credential.password"),
        ('"password":', '"passw\\u006frd": "canary", "password":', "credential.password"),
        ('"token":', '"Canary7": 1, "Canary7": 2, "token":', "device"),
    ],
)
def test_a_name_that_an_object_has_twice_is_a_fault(old: str, new: str, field: str) -> None:
    text = json.dumps(body()).replace(old, new, 1)

    with pytest.raises(InvalidRequest) as refusal:
        parse(RegistrationBody, text.encode())

    assert any(found == field and "twice" in said for found, said in refusal.value.faults)
    assert "anary" not in str(refusal.value.faults)


def test_a_byte_order_mark_before_a_body_is_left_out() -> None:
    assert parse(RegistrationBody, b"\xef\xbb\xbf" + json.dumps(body()).encode()).request() == read(body())
    with pytest.raises(MalformedJson):
        parse(RegistrationBody, b"\xef\xbb\xbf" * 2 + json.dumps(body()).encode())


@pytest.mark.parametrize("value", [None, [], "canary", 7])
def test_a_body_that_is_no_object_is_invalid(value: Any) -> None:
    assert fields_refused(RegistrationBody, value) == [""]


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    for body in (b"{}", b'{"device": {}, "mode": null}'):
        parsed = parse(ChangeBody, body)
        assert (parsed.change(), parsed.login()) == (RegistrationChange(), None)


def test_a_change_is_taken_as_it_is() -> None:
    asked = {
        "credential": {"kind": "basic", "password": "canary"},
        "device": {"token": "c0ffee", "environment": "sandbox"},
        "classes": ["notes"],
        "subfolders": ["email", "notes"],
        "mode": "background",
        "locale": "fr",
    }

    parsed = parse(ChangeBody, json.dumps(asked).encode())
    assert parsed.login() == BasicLogin("canary")
    assert parsed.change() == RegistrationChange(
        device_token="c0ffee",
        environment=Environment.SANDBOX,
        classes=frozenset({CollectionClass.NOTES}),
        subfolders=frozenset({CollectionClass.EMAIL, CollectionClass.NOTES}),
        mode=Mode.BACKGROUND,
        locale="fr",
    )


@pytest.mark.parametrize("field", ["mailbox", "server", "secret"])
def test_a_change_cannot_name_a_field_that_never_changes(field: str) -> None:
    assert fields_refused(ChangeBody, {field: "x"}) == [field]


def test_a_subscription_becomes_a_device_token_of_one_spelling() -> None:
    plain = read(body(device=subscription())).device
    spelled = subscription(
        endpoint="https://PUSH.example.com:443/x", keys={name: f"{value}==" for name, value in KEYS.items()}
    )

    assert plain.platform is Platform.WEBPUSH
    assert plain.token == Subscription.of("https://push.example.com/x", KEYS["p256dh"], KEYS["auth"]).token
    assert read(body(device=spelled)).device == plain


def test_what_a_browser_says_of_its_subscription_is_taken() -> None:
    plain = read(body(device=subscription())).device
    more = {"expirationTime": None, "contentEncoding": "aes128gcm", "environment": None}

    assert read(body(device=subscription(**more, keys={**KEYS, "later": "canary"}))).device == plain
    assert read(body(device=subscription(expirationTime=1.8e12))).device == plain
    assert read(body(device=subscription(expirationTime=1_800_000_000_000))).device == plain
    standard = {name: value.replace("-", "+").replace("_", "/") for name, value in KEYS.items()}
    assert read(body(device=subscription(keys=standard))).device == plain

    assert read(body(device=subscription(later={"of": "canary"}, more="canary"))).device == plain

    change = {"endpoint": "https://push.example.com/x", "keys": KEYS, "expirationTime": None, "later": "canary"}
    assert parse(ChangeBody, json.dumps({"device": change}).encode()).change().device_token == plain.token


def test_base64_is_taken_as_libraries_write_it() -> None:
    content = bytes(range(250, 256)) * 20 + b"\0"
    written = [b64encode(content), encodebytes(content), urlsafe_b64encode(content), b64encode(content).rstrip(b"=")]

    for text in written:
        login = read(body(credential={"kind": "certificate", "pkcs12": text.decode()})).login
        assert login == CertificateLogin(pkcs12=content)
    lines = {name: encodebytes(urlsafe_b64decode(f"{value}==")).decode() for name, value in KEYS.items()}
    assert "\n" in lines["p256dh"][:-1]
    assert read(body(device=subscription(keys=lines))).device == read(body(device=subscription())).device


def test_an_invitation_is_taken_with_the_line_end_of_its_file() -> None:
    assert read(body(invitation=" canary\r\n")).invitation == "canary"
    assert read(body(credential={"kind": "kerberos", "invitation": "canary\n"})).login == KerberosLogin("canary")


def test_null_is_absent_in_a_new_registration_too() -> None:
    optional = ("server", "classes", "subfolders", "mode", "locale", "invitation")
    device = body()["device"] | {"environment": None}
    fcm = {"platform": "fcm", "app": "a", "fid": FID}

    assert read(body(**dict.fromkeys(optional), device=device)) == read(body())
    assert read(body(device={**fcm, "token": None, "environment": None})) == read(body(device=fcm))
    assert read(body(credential={"kind": "basic", "password": "canary", "user": None})) == read(body())
    certificate = {"kind": "certificate", "pem": "canary"}
    nulls = dict.fromkeys(("pkcs12", "passphrase", "user"))
    assert read(body(credential={**certificate, **nulls})) == read(body(credential=certificate))


def test_null_for_what_must_be_there_is_a_missing_field() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(RegistrationBody, json.dumps(body(mailbox=None, credential=None)).encode())

    assert refusal.value.faults == [("mailbox", "is missing"), ("credential", "is missing")]


def test_a_locale_is_taken_as_phones_write_it() -> None:
    assert read(body(locale="en_US@rg=atzzzz")).locale == "en-US"
    assert parse(ChangeBody, b'{"locale": "ar-EG-u-nu-latn"}').change().locale == "ar-EG"


@pytest.mark.parametrize(
    ("model", "value", "fault"),
    [
        (
            RegistrationBody,
            {"device": {"platform": "apns", "app": "a", "token": "t", "deviceToken": "canary"}},
            ("device.deviceToken", "is not known here: did you mean `token`?"),
        ),
        (
            RegistrationBody,
            {"credential": {"kind": "oauth", "refresh_token": "canary", "refreshToken": "canary"}},
            ("credential.refreshToken", "is not known here: did you mean `refresh_token`?"),
        ),
        (RegistrationBody, {"Mailbox": "canary"}, ("Mailbox", "is not known here: did you mean `mailbox`?")),
        (ChangeBody, {"mailbox": "canary"}, ("mailbox", "never changes: leave it out")),
        (ChangeBody, {"device": {"app": "canary"}}, ("device.app", "never changes: leave it out")),
        (ChangeBody, {"Clases": "canary"}, ("", "has a field that is not known here: did you mean `classes`?")),
    ],
)
def test_an_unknown_field_is_told_with_the_known_one(model: type[Body], value: Any, fault: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(model, json.dumps(body(**value) if model is RegistrationBody else value).encode())

    assert refusal.value.faults == [fault]
    assert "canary" not in str(refusal.value)


def test_every_fault_is_told_in_our_own_words() -> None:
    wrong = {
        "mailbox": 7,
        "server": "",
        "credential": {"kind": "basic", "password": "canary" * 200, "user": ""},
        "device": {"platform": "webpush", "app": "", "endpoint": 7, "keys": []},
        "classes": [[]],
        "subfolders": True,
        "mode": "loud",
        "locale": "",
    }

    with pytest.raises(InvalidRequest) as refusal:
        parse(RegistrationBody, json.dumps(wrong).encode())

    assert refusal.value.faults == [
        ("mailbox", "must be a text"),
        ("credential.password", "must have at most 1024 characters"),
        ("credential.user", "must not be empty"),
        ("device.app", "must be letters, digits and . _ - only, and begin with a letter or a digit"),
        ("device.endpoint", "must be a text"),
        ("device.keys", "must be an object"),
        ("server", "must be letters, digits and . _ - only, and begin with a letter or a digit"),
        ("classes.0", "must be one of email, calendar, contacts, tasks, notes"),
        ("subfolders", "must be a list"),
        ("mode", "must be one of alert, background"),
    ]


@pytest.mark.parametrize("model", [RegistrationBody, ChangeBody])
def test_every_pattern_has_words(model: type[BaseModel]) -> None:
    schema = json.dumps(model.model_json_schema())

    assert {json.loads(found) for found in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema)} <= PATTERNS.keys()


def test_a_subscription_of_another_platform_is_refused() -> None:
    refused = fields_refused(RegistrationBody, body(device=subscription(platform="apns")))

    assert refused == ["device.token", "device.endpoint", "device.keys"]


def test_a_change_names_a_subscription_as_a_whole() -> None:
    change = {"device": {"endpoint": "https://push.example.com/y", "keys": KEYS}}

    token = parse(ChangeBody, json.dumps(change).encode()).change().device_token

    assert token == Subscription.of("https://push.example.com/y", KEYS["p256dh"], KEYS["auth"]).token
    for device in (
        {"endpoint": "https://push.example.com/y"},
        {"keys": KEYS},
        {"endpoint": "https://push.example.com/y", "keys": KEYS, "token": "canary"},
    ):
        assert fields_refused(ChangeBody, {"device": device}) == ["device"]
    assert fields_refused(ChangeBody, {"device": {"endpoint": "canary", "keys": KEYS}}) == ["device.endpoint"]


def test_an_fcm_device_names_a_token_or_a_fid() -> None:
    fcm = {"platform": "fcm", "app": "a"}

    assert read(body(device={**fcm, "token": "a:token"})).device == Device(Platform.FCM, "a", "a:token")
    by_fid = read(body(device={**fcm, "fid": FID, "token": None})).device
    assert by_fid == Device(Platform.FCM, "a", FcmDevice.of_fid(FID).device_token)
    for wrong, field in (
        ({}, "device"),
        ({"fid": FID, "token": "a:token"}, "device"),
        ({"fid": f"{FID}:APA91b"}, "device.fid"),
        ({"fid": "canary"}, "device.fid"),
        ({"fid": 7}, "device.fid"),
        ({"fid": FID, "endpoint": "https://push.example.com/x"}, "device.endpoint"),
    ):
        assert fields_refused(RegistrationBody, body(device={**fcm, **wrong})) == [field]
    assert fields_refused(
        RegistrationBody, body(device={"platform": "apns", "app": "a", "token": "t", "fid": FID})
    ) == ["device.fid"]


def test_a_change_names_a_fid_alone() -> None:
    parsed = parse(ChangeBody, json.dumps({"device": {"fid": FID, "token": None}}).encode())

    assert parsed.change().device_token == FcmDevice.of_fid(FID).device_token
    assert fields_refused(ChangeBody, {"device": {"fid": FID, "token": "a:token"}}) == ["device"]
    assert fields_refused(ChangeBody, {"device": {"fid": "a:token"}}) == ["device.fid"]


def test_a_parsed_password_does_not_show() -> None:
    assert "canary" not in repr(parse(RegistrationBody, json.dumps(body()).encode()))


def test_subfolders_are_switched_off_by_an_empty_list_and_left_alone_by_none() -> None:
    assert parse(ChangeBody, b'{"subfolders": []}').change().subfolders == frozenset()
    assert parse(ChangeBody, b'{"subfolders": null}').change().subfolders is None
    assert fields_refused(ChangeBody, {"subfolders": ["folders"]}) == ["subfolders.0"]
    assert fields_refused(ChangeBody, {"subfolders": True}) == ["subfolders"]
