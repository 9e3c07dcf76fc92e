import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from aiohttp.web import Application
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eas_watcher.machine.memory import WatchState
from relay.api import guard
from relay.api.app import LARGEST, Limits, RegistrationApi
from relay.domain.fcm_device import FcmDevice
from relay.domain.model import Mark, Platform, RegistrationId, RegistrationState
from relay.domain.receipts import PushId
from relay.http.addresses import Proxies
from relay.http.admission import Admission
from relay.http.listeners import open_listener
from relay.registration.registrations import Registered
from relay.registration.requests import BasicLogin, RegistrationRequest
from relay.security.invitations import invite
from relay.webapp.serving import WebAppRoutes
from tests.fakes.api_contract import broken_promise
from tests.fakes.relay_api import (
    APNS_APP,
    APNS_TOKEN,
    FCM_APP,
    FCM_TOKEN,
    GOOD,
    SERVICE,
    SILENT,
    WEB_APP,
    ApiWorld,
    judging,
)
from tests.integration.test_webapp import SETTINGS
from tests.waiting import until

FCM_FID = "cAnInventedFid_0123-ab"
MANY = Limits(registrations_per_minute=100_000, requests_per_minute=100_000, strangers_per_minute=10_000_000)
Json = dict[str, Any]


class Api:
    """A client that calls the API as an app does, and keeps every answer."""

    def __init__(self, world: ApiWorld, client: ClientSession) -> None:
        self.world = world
        self.client = client
        self.answers: list[str] = []

    async def call(
        self, method: str, path: str, body: Any = None, secret: str | None = None, **options: Any
    ) -> tuple[ClientResponse, Json]:
        headers = options.pop("headers", {})
        if secret is not None:
            headers = {"Authorization": f"Bearer {secret}", **headers}
        if body is not None:
            options["json"] = body
        async with self.client.request(method, path, headers=headers, **options) as response:
            text = await response.text()
        self.answers.append(f"{dict(response.headers)} {text}")
        assert broken_promise(method, path, response.status, response.headers, text) is None
        assert response.headers["Cache-Control"] == "no-store"
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        return response, json.loads(text) if text else {}

    async def register(self, **changes: Any) -> Json:
        async with judging(self.world):
            response, answer = await self.call("POST", "/v1/registrations", wish(**changes))
        assert response.status == 201, answer
        return answer

    async def problem(self, expected: tuple[int, str], method: str, path: str, *args: Any, **options: Any) -> Json:
        response, answer = await self.call(method, path, *args, **options)
        assert (response.status, answer["code"]) == expected
        return answer


def wish(password: str = GOOD, **changes: Any) -> Json:
    least = {
        "mailbox": "ann@example.com",
        "credential": {"kind": "basic", "password": password},
        "device": {"platform": "apns", "app": APNS_APP, "token": APNS_TOKEN},
    }
    return least | changes


@asynccontextmanager
async def serving(
    limits: Limits = MANY,
    world: ApiWorld | None = None,
    vapid_public_key: str = "",
    more: Callable[[Application], None] | None = None,
) -> AsyncIterator[Api]:
    world = world or ApiWorld(verdict_wait=0.3)
    app = RegistrationApi(
        world.service, world.receipts, limits, world.tokens, world.capabilities, vapid_public_key, more=more
    ).app
    async with (
        open_listener(app, "127.0.0.1", 0, largest=LARGEST) as port,
        ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield Api(world, client)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as api:
        yield api


async def test_a_registration_lives_from_post_to_delete(api: Api) -> None:
    async with judging(api.world):
        response, made = await api.call("POST", "/v1/registrations", wish())
        path, secret = response.headers["Location"], made["secret"]

        assert (response.status, made["state"]) == (201, "active")
        assert path == f"/v1/registrations/{made['id']}"
        assert made["mailbox"]["user"] == "ann@example.com"

        response, seen = await api.call("GET", path, secret=secret)
        assert response.status == 200
        assert {**seen, "secret": secret} == made

        change = {"classes": ["email", "calendar"], "device": {"token": "ab" * 32}, "credential": wish()["credential"]}
        response, changed = await api.call("PATCH", path, change, secret)
        assert (response.status, changed["classes"]) == (200, ["calendar", "email"])
        assert api.world.store.registrations[made["id"]].device_token == "ab" * 32

        response, _ = await api.call("POST", path + "/test-push", secret=secret)
        assert (response.status, response.headers["Retry-After"]) == (202, "2")
        assert api.world.store.marks == [(made["id"], Mark.TEST)]
        response, told = await api.call("GET", response.headers["Location"], secret=secret)
        assert (response.status, told["state"], told["ended_at"], told["reason"]) == (200, "queued", None, None)
        await api.problem((404, "no-such-test"), "GET", path + "/test-pushes/another", secret=secret)
        await api.problem((401, "not-authorized"), "GET", path + "/test-pushes/another", secret="guess")

        response, answer = await api.call("DELETE", path, secret=secret)
        assert (response.status, answer) == (204, {})
        await api.problem((410, "gone"), "GET", path, secret=secret)
        await api.problem((401, "not-authorized"), "GET", path, secret="guess")
        response, answer = await api.call("DELETE", path, secret=secret)
        assert (response.status, answer) == (204, {})


async def test_every_path_of_a_wiped_registration_answers_410_wiped(api: Api) -> None:
    made = await api.register()
    api.world.store.wipe(made["id"])
    path, change = f"/v1/registrations/{made['id']}", {"classes": ["email"]}

    for _ in range(2):
        for method, where, body in (
            ("GET", path, None),
            ("PATCH", path, change),
            ("DELETE", path, None),
            ("POST", path + "/test-push", None),
        ):
            await api.problem((410, "wiped"), method, where, body, made["secret"])
        await api.world.store.sweep(api.world.time())  # a tombstone takes its place
    assert made["id"] not in api.world.store.registrations


OWN_ID, OWN_SECRET = "Vq0zM3yX8sT1bN6kR4wJcLhP", "2r5uGvTjJ1rN4QkO0mWc7yYxVb8eLhZq"
OWN_PATH = f"/v1/registrations/{OWN_ID}"


async def test_every_path_of_a_removed_registration_answers_410_gone_but_delete(api: Api) -> None:
    path, secret = OWN_PATH, OWN_SECRET
    await api.call("PUT", path, wish(), secret)
    await api.call("DELETE", path, secret=secret)

    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {"classes": ["email"]}),
        ("PUT", path, wish()),
        ("POST", path + "/challenge", None),
        ("POST", path + "/proof", {"nonce": "nonce"}),
        ("POST", path + "/test-push", None),
        ("GET", path + "/test-pushes/another", None),
    ):
        await api.problem((410, "gone"), method, where, body, secret)
    response, answer = await api.call("DELETE", path, secret=secret)
    assert (response.status, answer) == (204, {})


async def test_an_app_that_makes_id_and_secret_may_send_its_registration_again_and_again(api: Api) -> None:
    async with judging(api.world):
        response, made = await api.call("PUT", OWN_PATH, wish(), OWN_SECRET)
        assert (response.status, made["id"], made["state"]) == (201, OWN_ID, "active")
        assert response.headers["Location"] == OWN_PATH
        assert "secret" not in made

        response, again = await api.call("PUT", OWN_PATH, wish(), OWN_SECRET)
        assert (response.status, again) == (200, made)
        response, changed = await api.call("PUT", OWN_PATH, wish(locale="fr"), OWN_SECRET)
        assert (response.status, changed["locale"]) == (200, "fr")

    assert api.world.judged == [GOOD]
    await api.problem((401, "not-authorized"), "PUT", OWN_PATH, wish(), "0123456789abcdef" * 4)
    await api.problem((401, "not-authorized"), "PUT", OWN_PATH, wish())
    await api.problem((422, "other-mailbox"), "PUT", OWN_PATH, wish(mailbox="ben@example.com"), OWN_SECRET)
    assert OWN_SECRET not in str(api.answers)


async def test_a_registration_that_is_put_waits_for_a_silent_server_as_one_that_is_posted(api: Api) -> None:
    for _ in range(2):
        response, made = await api.call("PUT", OWN_PATH, wish(SILENT), OWN_SECRET)

        assert (response.status, made["state"], made["credential"]["pending"]) == (202, "verifying", True)
        assert response.headers["Retry-After"] == "10"


async def test_an_identity_that_can_be_guessed_is_refused_by_its_parts(api: Api) -> None:
    answer = await api.problem((400, "invalid-request"), "PUT", "/v1/registrations/mine", wish(), "canary")

    assert [fault["field"] for fault in answer["errors"]] == ["id", "Authorization"]
    assert "canary" not in str(answer)


async def test_a_post_whose_answer_was_lost_is_sent_again_with_its_key(api: Api) -> None:
    key = {"Idempotency-Key": '"3f0a9c1e-7b52-4d68-9e01-c2d4f6a8b7e5"'}
    async with judging(api.world):
        answers = [await api.call("POST", "/v1/registrations", wish(), headers=key) for _ in range(2)]

    assert [response.status for response, _ in answers] == [201, 201]
    assert answers[0][1] == answers[1][1]
    assert len(api.world.store.registrations) == 1
    await api.problem((422, "key-reused"), "POST", "/v1/registrations", wish("other"), headers=key)
    weak = {"Idempotency-Key": "canary"}
    answer = await api.problem((400, "invalid-request"), "POST", "/v1/registrations", wish(), headers=weak)
    assert [fault["field"] for fault in answer["errors"]] == ["Idempotency-Key"]


async def test_a_key_of_idempotency_is_no_way_to_try_passwords(api: Api) -> None:
    key = {"Idempotency-Key": "3f0a9c1e-7b52-4d68-9e01-c2d4f6a8b7e5"}
    async with judging(api.world):
        await api.call("POST", "/v1/registrations", wish(), headers=key)
    for guess in ("one", "two", "three"):
        await api.problem((422, "key-reused"), "POST", "/v1/registrations", wish(guess), headers=key)

    for body in (wish("four"), wish()):
        await api.problem((429, "too-many-refusals"), "POST", "/v1/registrations", body, headers=key)


async def test_new_registrations_that_are_put_count_as_those_that_are_posted() -> None:
    async with serving(Limits(registrations_per_minute=1)) as api, judging(api.world):
        response, _ = await api.call("PUT", OWN_PATH, wish(), OWN_SECRET)
        assert response.status == 201

        await api.problem((429, "too-many-registrations"), "PUT", OWN_PATH[:-1] + "Q", wish(), OWN_SECRET)
        response, _ = await api.call("PUT", OWN_PATH, wish(), OWN_SECRET)
        assert response.status == 200


async def test_a_device_is_proved_before_its_registration_is_active() -> None:
    async with serving(world=ApiWorld(verdict_wait=0.3, proving=frozenset({Platform.APNS}))) as api:
        made = await api.register()
        path, secret = f"/v1/registrations/{made['id']}", made["secret"]
        assert (made["state"], made["remedy"]["by"]) == ("proving", "app")
        api.world.store.nonces[made["id"]] = "canary-nonce"

        await api.problem((409, "not-active"), "POST", path + "/test-push", secret=secret)
        await api.problem((400, "invalid-request"), "POST", path + "/proof", {"nonce": ""}, secret)
        response, _ = await api.call("POST", path + "/challenge", secret=secret)
        assert (response.status, response.headers["Retry-After"]) == (202, "30")
        refused, _ = await api.call("POST", path + "/challenge", secret=secret)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
        await api.problem((401, "not-authorized"), "POST", path + "/proof", {"nonce": "canary-nonce"}, "guess")
        response, seen = await api.call("POST", path + "/proof", {"nonce": "canary-nonce"}, secret)
        assert (response.status, seen["state"]) == (200, "active")
        response, _ = await api.call("POST", path + "/test-push", secret=secret)
        assert response.status == 202, "what it asked for before was a challenge"

        await api.call("PATCH", path, {"device": {"token": "cd" * 32}}, secret)
        await api.problem((403, "wrong-proof"), "POST", path + "/proof", {"nonce": "canary-nonce"}, secret)
        assert "canary-nonce" not in str(api.answers)


async def test_an_app_says_which_pushes_it_has_shown(api: Api) -> None:
    made, at = await api.register(), api.world.time()
    own, path, secret = api.world.store.registrations[made["id"]], f"/v1/registrations/{made['id']}", made["secret"]
    ids = [PushId.of(Mark.EMAIL, at, number).seal(own.mailbox_id, own.id) for number in range(2)]
    sent = {
        "receipts": [
            {"id": ids[0], "seconds_ago": 0.25},
            {"id": ids[1], "seconds_ago": 0},
            {"id": "?", "seconds_ago": 1},
        ]
    }

    for _ in range(2):
        response, answer = await api.call("POST", path + "/receipts", sent, secret)
        assert (response.status, answer) == (204, {})
    assert api.world.shown.taken == {Platform.APNS: 2}

    await api.problem((401, "not-authorized"), "POST", path + "/receipts", sent, "guess")
    wrong: Json
    for wrong in (
        {"receipts": []},
        {"receipts": [{"id": ids[0], "seconds_ago": 0}] * 51},
        {"receipts": [{"id": ids[0], "seconds_ago": -0.1}]},
        {"receipts": [{"id": ids[0], "seconds_ago": 10**9}]},
        {"receipts": [{"id": "a" * 65, "seconds_ago": 0}]},
        {"receipts": [{"id": ids[0], "seconds_ago": 0, "subject": "Minutes of Monday"}]},
    ):
        await api.problem((400, "invalid-request"), "POST", path + "/receipts", wrong, secret)
    await api.call("DELETE", path, secret=secret)
    await api.problem((410, "gone"), "POST", path + "/receipts", sent, secret)


async def test_a_relay_that_takes_no_receipts_says_so() -> None:
    world = ApiWorld(verdict_wait=0.3)
    world.capabilities = replace(world.capabilities, receipts=False)
    async with serving(world=world) as api:
        made = await api.register()
        sent = {"receipts": [{"id": "UKsJm0KCaPoCc5G0AEIjcg", "seconds_ago": 0}]}
        path = f"/v1/registrations/{made['id']}/receipts"

        await api.problem((404, "no-such-resource"), "POST", path, sent, made["secret"])
        _, able = await api.call("GET", "/v1/capabilities")
        assert able["receipts"] is False


async def test_an_fcm_device_is_registered_too(api: Api) -> None:
    made = await api.register(device={"platform": "fcm", "app": FCM_APP, "token": FCM_TOKEN})

    assert made["device"]["platform"] == "fcm"


async def test_an_app_that_moves_from_its_token_to_its_fid_keeps_its_registration(api: Api) -> None:
    made = await api.register(device={"platform": "fcm", "app": FCM_APP, "token": FCM_TOKEN})
    path, secret = f"/v1/registrations/{made['id']}", made["secret"]

    response, _ = await api.call("PATCH", path, {"device": {"fid": FCM_FID}}, secret)

    assert response.status == 200
    (kept,) = api.world.store.registrations.values()
    assert (kept.id, kept.device_token) == (made["id"], FcmDevice.of_fid(FCM_FID).device_token)
    await api.problem((422, "unsupported-device"), "PATCH", path, {"device": {"token": FCM_FID}}, secret)
    assert FCM_FID not in str(api.answers)


async def test_a_fid_is_of_fcm_alone(api: Api) -> None:
    made = await api.register()
    path, secret = f"/v1/registrations/{made['id']}", made["secret"]

    answer = await api.problem((422, "unsupported-device"), "PATCH", path, {"device": {"fid": FCM_FID}}, secret)

    assert [fault["field"] for fault in answer["errors"]] == ["device.fid"]


async def test_a_silent_server_is_answered_with_202_and_the_verdict_is_seen_later(api: Api) -> None:
    response, made = await api.call("POST", "/v1/registrations", wish(SILENT))
    assert (response.status, made["state"], made["credential"]["pending"]) == (202, "verifying", True)
    path = f"/v1/registrations/{made['id']}"
    await api.problem((409, "not-active"), "POST", path + "/test-push", secret=made["secret"])

    api.world.store.accept(RegistrationId(made["id"]), api.world.time())

    _, seen = await api.call("GET", path, secret=made["secret"])
    assert seen["state"] == "active"

    response, changed = await api.call("PATCH", path, {"credential": wish(SILENT)["credential"]}, made["secret"])
    assert (response.status, changed["state"], changed["credential"]["pending"]) == (202, "active", True)
    response, _ = await api.call("PATCH", path, {"mode": "background"}, made["secret"])
    assert response.status == 200


async def test_a_refused_credential_is_403_and_leaves_nothing(api: Api) -> None:
    async with judging(api.world):
        await api.problem((403, "credential-refused"), "POST", "/v1/registrations", wish("canary-wrong"))

    assert not api.world.store.registrations


async def test_a_refused_change_of_the_credential_is_403_and_leaves_the_old_one(api: Api) -> None:
    made = await api.register()
    path = f"/v1/registrations/{made['id']}"

    async with judging(api.world):
        change = {"credential": {"kind": "basic", "password": "canary-wrong"}}
        await api.problem((403, "credential-refused"), "PATCH", path, change, made["secret"])

    _, seen = await api.call("GET", path, secret=made["secret"])
    assert (seen["state"], seen["credential"]["refused"]) == ("active", True)


async def test_too_many_refused_credentials_are_429_with_the_time_to_wait(api: Api) -> None:
    async with judging(api.world):
        for number in range(2):
            await api.problem((403, "credential-refused"), "POST", "/v1/registrations", wish(f"canary-{number}"))
        response, answer = await api.call("POST", "/v1/registrations", wish())

    assert (response.status, answer["code"]) == (429, "too-many-refusals")
    assert response.headers["Retry-After"] == "1800"
    assert len(api.world.judged) == 2


DEVICE = {"platform": "apns", "app": APNS_APP, "token": APNS_TOKEN}
FCM_DEVICE = {"platform": "fcm", "app": FCM_APP, "token": FCM_TOKEN}


@pytest.mark.parametrize(
    ("changes", "status", "code", "field"),
    [
        ({"mailbox": 7}, 400, "invalid-request", "mailbox"),
        ({"mailbox": "a:b"}, 400, "invalid-request", "mailbox"),
        ({"credential": {"kind": "basic", "password": "canary\n"}}, 400, "invalid-request", "credential.password"),
        ({"credential": {"kind": "kerberos", "invitation": "x"}}, 422, "unsupported-credential", "credential.kind"),
        ({"server": "nowhere"}, 422, "unknown-server", "server"),
        ({"mailbox": "ann@elsewhere.example"}, 422, "unknown-server", "mailbox"),
        ({"device": DEVICE | {"app": "com.example.other"}}, 422, "unknown-app", "device.app"),
        ({"device": DEVICE | {"token": "canary"}}, 422, "unsupported-device", "device.token"),
        ({"device": FCM_DEVICE | {"token": FCM_FID}}, 422, "unsupported-device", "device.token"),
        ({"device": FCM_DEVICE | {"environment": "sandbox"}}, 422, "unsupported-device", "device.environment"),
    ],
)
async def test_what_cannot_be_has_its_code_and_names_its_field(
    api: Api, changes: Json, status: int, code: str, field: str
) -> None:
    answer = await api.problem((status, code), "POST", "/v1/registrations", wish(**changes))

    assert [fault["field"] for fault in answer["errors"]] == [field]
    assert answer["errors"][0]["detail"]


async def test_invalid_fields_are_named(api: Api) -> None:
    answer = await api.problem((400, "invalid-request"), "POST", "/v1/registrations", {"mailbox": "", "extra": 1})

    assert {fault["field"] for fault in answer["errors"]} == {"mailbox", "credential", "device", "extra"}


async def test_another_users_credential_is_422(api: Api) -> None:
    made = await api.register()
    change = {"credential": {"kind": "basic", "user": "ben@example.com", "password": GOOD}}

    await api.problem((422, "other-mailbox"), "PATCH", f"/v1/registrations/{made['id']}", change, made["secret"])


async def test_nobody_learns_whether_the_id_or_the_secret_is_wrong(api: Api) -> None:
    made = await api.register()

    for method, suffix in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test-push")):
        body: Json | None = {} if method == "PATCH" else None
        answers = []
        for id_, secret in ((made["id"], "wrong"), ("nobody", made["secret"])):
            response, answer = await api.call(method, f"/v1/registrations/{id_}{suffix}", body, secret)
            answers.append((response.status, answer, response.headers["WWW-Authenticate"]))
        assert answers[0] == answers[1]
        assert answers[0][0] == 401
        await api.problem((401, "not-authorized"), method, f"/v1/registrations/{made['id']}{suffix}", body)


async def test_a_lost_database_is_503_and_says_when_to_come_again(api: Api) -> None:
    made = await api.register()
    api.world.store.down = True

    for method, path, body in (
        ("POST", "/v1/registrations", wish(mailbox="ben@example.com")),
        ("GET", f"/v1/registrations/{made['id']}", None),
    ):
        response, answer = await api.call(method, path, body, made["secret"])
        assert (response.status, answer["code"], response.headers["Retry-After"]) == (503, "unavailable", "5")


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"data": b"{}"}, 415, "not-json"),
        ({"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "not-json"),
        ({}, 415, "not-json"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "malformed-json"),
        ({"data": b"", "headers": {"Content-Type": "application/json; charset=utf-8"}}, 400, "malformed-json"),
        ({"data": b" " * (16 * 1024 + 1), "headers": {"Content-Type": "application/json"}}, 413, "too-large"),
        (
            {
                "data": gzip.compress(b" " * 1_000_000),
                "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            },
            413,
            "too-large",
        ),
        (
            {"data": b"no gzip", "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"}},
            400,
            "broken-body",
        ),
    ],
)
async def test_bodies_of_the_wrong_kind_have_their_codes(api: Api, options: Json, status: int, code: str) -> None:
    await api.problem((status, code), "POST", "/v1/registrations", **options)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "no-such-resource"),
        ("GET", "/v1/registrations/a%2Fb", 404, "no-such-resource"),
        ("GET", "/v1/registrations/" + "a" * 55, 404, "no-such-resource"),
        ("GET", "/v1/registrations", 405, "method-not-allowed"),
        ("POST", "/v1/registrations/abc", 405, "method-not-allowed"),
    ],
)
async def test_paths_and_methods_that_are_not_there_have_their_codes(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    await api.problem((status, code), method, path)


async def test_a_method_that_is_not_there_tells_those_that_are(api: Api) -> None:
    response, _ = await api.call("POST", "/v1/registrations/abc")

    assert set(response.headers["Allow"].split(", ")) >= {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"}


async def test_a_body_that_comes_too_slowly_is_408() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with serving(Limits(body_seconds=0.1)) as api:
        headers = {"Content-Type": "application/json"}
        await api.problem((408, "too-slow"), "POST", "/v1/registrations", data=slowly(), headers=headers)


async def test_one_address_may_not_register_too_often() -> None:
    async with serving(Limits(registrations_per_minute=2)) as api:
        for _ in range(2):
            await api.problem((400, "invalid-request"), "POST", "/v1/registrations", {})
        response, answer = await api.call("POST", "/v1/registrations", {}, headers={"X-Forwarded-For": "198.51.100.7"})

        assert (response.status, answer["code"]) == (429, "too-many-registrations")
        assert 1 <= int(response.headers["Retry-After"]) <= 30


@pytest.mark.parametrize(
    ("method", "path", "secret"),
    [
        ("GET", "/v1/registrations/none", None),
        ("GET", "/v1/registrations/none", "guess"),
        ("DELETE", "/v1/registrations/none", "guess"),
        ("POST", "/v1/registrations/none/test-push", None),
        ("GET", "/v1/nowhere", None),
        ("PUT", "/v1/registrations", None),
    ],
)
async def test_no_address_may_ask_anything_too_often(method: str, path: str, secret: str | None) -> None:
    async with serving(Limits(requests_per_minute=2)) as api:
        for _ in range(2):
            response, _ = await api.call(method, path, secret=secret)
            assert response.status in {401, 404, 405}
        touched = api.world.store.views
        response, answer = await api.call(method, path, secret=secret)

        assert (response.status, answer["code"]) == (429, "too-many-requests")
        assert response.headers["Connection"] == "close"
        assert api.world.store.views == touched


async def test_files_of_the_web_app_take_no_share_of_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "FILES_OF_ONE", 5.0)
    web_app = WebAppRoutes(SETTINGS)
    style, missing = "/app/static/any/app.css", "/app/static/any/none.css"
    async with serving(Limits(requests_per_minute=1), more=web_app.add_to) as api:
        answers = [await api.client.get(path) for path in (style, missing, style, style, style, style)]
        assert [answer.status for answer in answers] == [200, 404, 200, 200, 200, 429]
        assert not [answer for answer in answers if "RateLimit" in answer.headers]

        assert (await api.client.get("/app/")).status == 200
        assert (await api.client.get("/app/")).status == 429


async def test_an_app_gets_through_while_a_stranger_asks_from_its_address() -> None:
    async with serving(Limits(requests_per_minute=5)) as api:
        made = await api.register()
        path = f"/v1/registrations/{made['id']}"
        assert (await api.call("GET", path, secret=made["secret"]))[0].status == 200
        for _ in range(3):
            await api.problem((401, "not-authorized"), "GET", path, None, "guess")
        await api.problem((429, "too-many-requests"), "GET", path, None, "guess")

        for _ in range(10):
            assert (await api.call("GET", path, secret=made["secret"]))[0].status == 200


async def test_more_requests_than_the_database_is_asked_at_once_are_refused_before_it() -> None:
    async with serving(Limits(reads=1, requests_per_minute=1000)) as api:
        made = await api.register()
        path, store = f"/v1/registrations/{made['id']}", api.world.store
        store.answering.clear()
        asked = store.views
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(api.call("GET", path, secret=made["secret"]))
            await until(lambda: store.views == asked + 1)
            second = tasks.create_task(api.call("GET", path, secret=made["secret"]))
            await until(lambda: second.done() or store.views == asked + 2)
            store.answering.set()

        response, answer = second.result()
        assert response.status == 503
        assert (answer["code"], response.headers["Retry-After"]) == ("busy", "5")
        assert first.result()[0].status == 200
        assert store.views == asked + 1


async def test_behind_a_proxy_each_client_has_its_own_share() -> None:
    async with serving(Limits(registrations_per_minute=1, proxies=Proxies((ip_network("127.0.0.1"),)))) as api:
        for client in ("198.51.100.7", "198.51.100.8"):
            headers = {"X-Forwarded-For": f"203.0.113.1, {client}:51234"}
            await api.problem((400, "invalid-request"), "POST", "/v1/registrations", {}, headers=headers)
            await api.problem((429, "too-many-registrations"), "POST", "/v1/registrations", {}, headers=headers)


@pytest.mark.parametrize("sent", [b"", b'{"mailbox": '])
async def test_an_app_that_hangs_up_is_no_error(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    world, door = ApiWorld(verdict_wait=0.3), Admission()
    app = RegistrationApi(world.service, world.receipts, MANY, world.tokens, world.capabilities).app
    head = "POST /v1/registrations HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\n"
    caplog.set_level(logging.INFO)
    async with open_listener(app, "127.0.0.1", 0, admission=door) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Length: 500\r\n\r\n".encode() + sent)
        await writer.drain()
        await until(lambda: door.open == 1)
        writer.transport.abort()
        await until(lambda: door.open == 0)
        await asyncio.sleep(0.01)

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]


class BrokenWorld(ApiWorld):
    """A world whose store raises an unforeseen error with a secret in its text."""

    def __init__(self) -> None:
        super().__init__()
        self.service.register = self._break  # type: ignore[method-assign]

    async def _break(self, request: RegistrationRequest, idempotency_key: str | None = None) -> Registered:
        assert idempotency_key is None
        assert isinstance(request.login, BasicLogin)
        raise RuntimeError(request.login.password)


async def test_a_fault_of_ours_is_500_with_a_number_that_the_log_knows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving(world=BrokenWorld()) as api:
            answer = await api.problem((500, "internal"), "POST", "/v1/registrations", wish())

    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["instance"] == answer["instance"]
    assert "_break" in vars(record)["frames"]
    assert "canary" not in json.dumps(answer) + everything(caplog)


def everything(caplog: pytest.LogCaptureFixture) -> str:
    """Return every field of every log record as text."""
    return "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)


async def test_no_answer_and_no_log_record_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with serving() as api:
            made = await api.register(device={"platform": "fcm", "app": FCM_APP, "token": FCM_TOKEN})
            secrets.append(made["secret"])
            path = f"/v1/registrations/{made['id']}"
            async with judging(api.world):
                for body in (
                    wish("canary-wrong"),
                    wish("canary\0"),
                    wish(device=DEVICE | {"token": "canary"}),
                    wish(server="canary"),
                    wish(credential="canary"),
                    wish(canary_name={"password": "canary-nested"}),
                ):
                    response, _ = await api.call("POST", "/v1/registrations", body)
                    assert response.status >= 400
                for change in ({"credential": wish("canary-wrong")["credential"]}, {"device": {"token": "canary"}}):
                    await api.call("PATCH", path, change, made["secret"])
                await api.call("PATCH", path, wish(GOOD)["credential"], made["secret"])
            await api.call("GET", path, secret=made["secret"])
            await api.call("GET", path, secret="canary-guess")
            await api.call("POST", path + "/test-push", secret=made["secret"])
            api.world.store.down = True
            await api.call("GET", path, secret=made["secret"])

    logged = everything(caplog)
    told_once, *later = api.answers
    assert "request served" in logged
    assert made["secret"] in told_once
    assert made["secret"] not in logged + "".join(later)
    answers = "".join(api.answers).replace("canary_name", "")
    assert "canary" not in (answers + logged).lower()
    assert path not in logged


async def test_the_log_tells_method_route_status_and_duration(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await api.call("GET", "/v1/registrations/some-id")
        await api.call("GET", "/canary-path")

    served = [vars(record) for record in caplog.records if record.message == "request served"]
    assert [(fields["method"], fields["route"], fields["status"]) for fields in served] == [
        ("GET", "/v1/registrations/{id}", 401),
        ("GET", "none", 404),
    ]
    assert all(fields["seconds"] >= 0 for fields in served)


async def test_a_client_that_hangs_up_leaves_no_refused_registration() -> None:
    async with serving(world=ApiWorld()) as api:
        asking = asyncio.ensure_future(api.call("POST", "/v1/registrations", wish("canary-wrong")))
        await until(lambda: api.world.store.registrations)
        asking.cancel()
        await asyncio.wait([asking])

        api.world.judge()

        await until(lambda: not api.world.store.registrations)


JSON = {"Content-Type": "application/json"}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
ANY_JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner))
KEYS = {
    "mailbox": st.text(max_size=30) | st.sampled_from(["ann@example.com", "ben@example.com"]),
    "server": st.sampled_from(["head-office", "branch", "x"]),
    "credential": st.fixed_dictionaries(
        {"kind": st.just("basic"), "password": st.text(max_size=30) | st.just(GOOD)},
        optional={"user": st.text(max_size=30)},
    ),
    "device": st.fixed_dictionaries(
        {
            "platform": st.sampled_from(["apns", "fcm"]),
            "app": st.sampled_from([APNS_APP, FCM_APP, "x"]),
            "token": st.sampled_from([APNS_TOKEN, FCM_TOKEN]) | st.text(max_size=30),
        },
        optional={"environment": st.sampled_from(["production", "sandbox"])},
    ),
    "classes": st.lists(st.sampled_from(["email", "calendar", "notes", "mail"]), max_size=3),
    "mode": st.sampled_from(["alert", "background"]),
    "locale": st.sampled_from(["en", "de-AT"]) | st.text(max_size=5),
}
BODIES = st.fixed_dictionaries({}, optional=KEYS) | st.fixed_dictionaries(
    {}, optional={key: value | ANY_JSON for key, value in KEYS.items()}
)
REQUESTS = st.lists(st.tuples(st.sampled_from(["POST", "PATCH"]), BODIES | ANY_JSON), min_size=1, max_size=8)


@pytest.fixture
def api_on_a_loop() -> Iterator[tuple[asyncio.Runner, Api]]:
    """Serve on a loop of its own, because Hypothesis runs many examples within one test."""
    with asyncio.Runner() as runner:
        context = serving(world=ApiWorld(verdict_wait=0.0))
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


@settings(
    max_examples=settings().max_examples * 3 // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(requests=REQUESTS)
def test_no_body_makes_the_api_fail(api_on_a_loop: tuple[asyncio.Runner, Api], requests: list[tuple[str, Any]]) -> None:
    runner, api = api_on_a_loop

    async def ask() -> None:
        _, made = await api.call("POST", "/v1/registrations", wish(mailbox="zoe@example.com"))
        for method, body in requests:
            api.world.judge()
            api.world.time.forward(hours=1)
            path = "/v1/registrations" if method == "POST" else f"/v1/registrations/{made['id']}"
            response, answer = await api.call(method, path, data=json.dumps(body), secret=made["secret"], headers=JSON)
            assert response.status in {200, 201, 202, 400, 403, 422, 429}, answer
        api.world.judge()
        api.world.time.forward(hours=1)

    runner.run(ask())


@pytest.mark.parametrize("state", [RegistrationState.VERIFYING, RegistrationState.REFUSED])
async def test_who_registers_on_a_watched_mailbox_without_its_password_hears_nothing_of_it(
    api: Api, state: RegistrationState
) -> None:
    await api.register()
    _, made = await api.call("POST", "/v1/registrations", wish(SILENT))
    if state is RegistrationState.REFUSED:
        api.world.store.refuse(RegistrationId(made["id"]), api.world.time())

    _, seen = await api.call("GET", f"/v1/registrations/{made['id']}", secret=made["secret"])

    assert seen["state"] == state.value
    assert seen["mailbox"] == {"server": "head-office", "user": "ann@example.com"}
    assert next(iter(api.world.store.mailboxes.values())).state is WatchState.STARTING


async def test_what_the_framework_refuses_before_any_route_is_not_a_fault_of_ours(api: Api) -> None:
    response, _ = await api.call("GET", "/v1/registrations/%00")

    assert response.status == 404


async def test_the_secret_is_told_once(api: Api) -> None:
    made = await api.register()
    path = f"/v1/registrations/{made['id']}"

    for method, suffix in (("GET", ""), ("PATCH", ""), ("POST", "/test-push")):
        body: Json | None = {} if method == "PATCH" else None
        _, answer = await api.call(method, path + suffix, body, made["secret"])
        assert "secret" not in answer


def invitation(world: ApiWorld, user: str = "ann@branch.example.com", server: str = "branch", days: int = 7) -> Json:
    text = invite(world.inviting, server, user, world.time() + timedelta(days=days))
    return {"kind": "kerberos", "invitation": text}


async def test_an_invited_user_registers_with_the_invitation_alone(api: Api) -> None:
    answer = await api.register(mailbox="ann@branch.example.com", credential=invitation(api.world))

    assert answer["state"] == "active"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"days": -1}, "credential.invitation", "expired"),
        ({"user": "ben@branch.example.com"}, "credential.invitation", "another user"),
        ({"server": "head-office"}, "credential.invitation", "another user or server"),
    ],
)
async def test_what_is_wrong_with_an_invitation_is_told_at_once(api: Api, change: Json, field: str, words: str) -> None:
    body = wish(mailbox="ann@branch.example.com", credential=invitation(api.world, **change))

    answer = await api.problem((400, "invalid-request"), "POST", "/v1/registrations", body)

    ((found, text),) = [(fault["field"], fault["detail"]) for fault in answer["errors"]]
    assert found == field
    assert words in text
    assert not api.world.store.registrations


async def test_a_user_whom_kerberos_cannot_name_is_told(api: Api) -> None:
    body = wish(mailbox="ann@other.example", server="branch", credential=invitation(api.world, "ann@other.example"))

    answer = await api.problem((400, "invalid-request"), "POST", "/v1/registrations", body)

    assert [fault["field"] for fault in answer["errors"]] == ["credential.user"]


async def test_a_server_that_invites_nobody_says_so(api: Api) -> None:
    body = wish(credential=invitation(api.world, "ann@example.com", "head-office"))

    await api.problem((422, "unsupported-credential"), "POST", "/v1/registrations", body)


async def test_an_app_learns_the_key_to_subscribe_with_and_registers_its_subscription() -> None:
    keys = {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    }
    device = {"platform": "webpush", "app": WEB_APP, "endpoint": f"https://{SERVICE}/canary-endpoint", "keys": keys}
    async with serving(vapid_public_key="BIfm") as api:
        response, answer = await api.call("GET", "/v1/webpush")
        assert (response.status, answer) == (200, {"vapid_public_key": "BIfm"})

        made = await api.register(device=device)
        assert made["device"].keys() == {"platform", "app", "token_since"}

        path = f"/v1/registrations/{made['id']}"
        changed = {"device": {"endpoint": f"https://{SERVICE}/canary-other", "keys": keys}}
        response, _ = await api.call("PATCH", path, changed, made["secret"])
        assert response.status == 200
        elsewhere = device | {"endpoint": "https://10.0.0.1/canary-admin"}
        await api.problem((422, "unsupported-device"), "POST", "/v1/registrations", wish(device=elsewhere))
        broken = device | {"endpoint": "http://canary.example.com/"}
        answer = await api.problem((400, "invalid-request"), "POST", "/v1/registrations", wish(device=broken))
        assert [error["field"] for error in answer["errors"]] == ["device.endpoint"]

        kept = api.world.store.registrations[RegistrationId(made["id"])]
        assert "canary-other" in kept.device_token
        assert not [answer for answer in api.answers if "canary" in answer or keys["auth"] in answer]


async def test_a_relay_without_webpush_has_no_key_to_tell(api: Api) -> None:
    await api.problem((404, "no-such-resource"), "GET", "/v1/webpush")
