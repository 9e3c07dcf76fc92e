"""The reference client against a relay that answers as a script says: what it sends, repeats, keeps and forgets."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from push_relay_client import (
    Apns,
    App,
    Basic,
    Challenge,
    Identity,
    MemoryStore,
    NewItems,
    Refused,
    RelayApi,
    Step,
    Unreachable,
    Wish,
)

APP = "com.example.mail"
OLD = Apns(APP, "4a" * 32)
NEW = Apns(APP, "5b" * 32)
WISH = Wish("ann@example.com", Basic("correct horse"), OLD)
ACTIVE = {"id": "r1", "state": "active", "remedy": {"by": "nobody", "text": "All is well."}}
Answer = tuple[int, Any, dict[str, str]]
MADE: Answer = (201, ACTIVE, {})
SEEN: Answer = (200, ACTIVE, {})
CUTS: list[Answer] = [(0, None, {})] * 2
"""An attempt without an answer: aiohttp itself repeats what was cut once, if it is safe to."""


def problem(status: int, code: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"status": status, "code": code, "detail": "a reason"}, named


@dataclass
class Script:
    """What the relay answers, one after the other, and what it was asked; status 0 cuts the connection."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, str, Any]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.queries.append(dict(request.query))
        self.keys.append(request.headers.get("Enrolment-Key"))
        path = re.sub(r"(?<=registrations/)[\w-]{24}(?=$|/)", "ID", request.path)
        bearer = re.sub(r"(?<=^Bearer )[\w-]{43}$", "SECRET", request.headers.get("Authorization", ""))
        self.asked.append((request.method, path, bearer, body))
        status, document, headers = self.answers.pop(0)
        if not status:
            assert request.transport is not None
            request.transport.abort()
        if isinstance(document, str):
            return web.Response(status=status, text=document, content_type="text/html", headers=headers)
        return web.json_response(document, status=status, headers=headers) if document else web.Response(status=status)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@asynccontextmanager
async def running(script: Script) -> AsyncIterator[App]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", script.answer)
    async with TestServer(application) as server, aiohttp.ClientSession(server.make_url("/")) as session:
        yield App(RelayApi(session), MemoryStore(), sleep=script.sleep, chance=lambda: 1.0)


async def test_a_registration_is_kept_and_looked_at_with_its_secret() -> None:
    script = Script([MADE, SEEN])
    async with running(script) as app:
        assert (await app.register(WISH)).step is Step.NOTHING
        told = await app.opened(OLD)

    assert told.step is Step.NOTHING
    assert script.asked[-1] == ("GET", "/v1/registrations/ID", "Bearer SECRET", None)


async def test_what_a_registration_may_be_is_asked_without_a_secret() -> None:
    script = Script([(200, {"version": "1"}, {})] * 2)
    async with running(script) as app:
        assert await app._api.capabilities("ann+x@example.com") == {"version": "1"}
        await app._api.capabilities()

    assert script.asked == [("GET", "/v1/capabilities", "", None)] * 2
    assert script.queries == [{"mailbox": "ann+x@example.com"}, {}]


async def test_an_enrolment_key_goes_with_the_registration_only() -> None:
    script = Script([MADE, SEEN])
    async with running(script) as app:
        await app.register(replace(WISH, enrolment_key="a key"))
        await app.opened(OLD)

    assert script.keys == ["a key", None]


async def test_a_changed_token_is_sent_once() -> None:
    script = Script([MADE, SEEN, SEEN])
    async with running(script) as app:
        await app.register(WISH)
        await app.opened(NEW)
        await app.opened(NEW)

    body = {"device": {"token": NEW.token, "environment": "production"}}
    assert script.asked[1:] == [
        ("PATCH", "/v1/registrations/ID", "Bearer SECRET", body),
        ("GET", "/v1/registrations/ID", "Bearer SECRET", None),
    ]


async def test_a_token_that_was_not_taken_is_sent_at_the_next_start() -> None:
    script = Script([MADE, problem(422, "unsupported-device"), SEEN])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.opened(NEW)).step is Step.CORRECT_APP
        assert (await app.opened(NEW)).step is Step.NOTHING

    assert [asked[0] for asked in script.asked] == ["PUT", "PATCH", "PATCH"]


async def test_what_passes_is_repeated_after_the_time_that_the_relay_names() -> None:
    script = Script([MADE, problem(503, "busy", Retry_After="20"), *CUTS, (502, "<html>", {}), SEEN])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.opened(OLD)).step is Step.NOTHING

    assert script.waits == [22.0, 4.0, 8.0]


async def test_it_gives_up_for_now_and_keeps_the_registration() -> None:
    script = Script([MADE, *[problem(503, "unavailable")] * 5, SEEN])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.opened(OLD)).step is Step.REPEAT
        assert (await app.opened(OLD)).step is Step.NOTHING

    assert len(script.waits) == 4


async def test_a_long_wait_is_the_apps_to_tell_and_not_the_calls_to_sleep_through() -> None:
    script = Script([problem(429, "too-many-refusals", Retry_After="1800")])
    async with running(script) as app:
        told = await app.register(WISH)

    assert (told.step, told.retry_after, script.waits) == (Step.REPEAT, 1800, [])


async def test_a_refused_password_is_never_repeated() -> None:
    script = Script([MADE, problem(403, "credential-refused")])
    async with running(script) as app:
        await app.register(WISH)
        told = await app.credential_changed(Basic("wrong"))

    assert (told.step, script.waits) == (Step.ASK_USER, [])
    assert script.asked[-1][3] == {"credential": {"kind": "basic", "password": "wrong"}}


@pytest.mark.parametrize(
    ("refusal", "step"),
    [
        (problem(401, "not-authorized"), Step.NOT_REGISTERED),
        (problem(410, "gone"), Step.REGISTER_AGAIN),
        (problem(410, "wiped"), Step.WIPE),
        (problem(409, "replaced"), Step.NOT_REGISTERED),
    ],
)
async def test_a_registration_that_ended_is_forgotten(refusal: Answer, step: Step) -> None:
    script = Script([MADE, refusal])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.opened(OLD)).step is step
        assert app.identity is None
        assert (await app.opened(OLD)).step is Step.NOT_REGISTERED
        assert (await app.token_changed(OLD)).step is Step.NOT_REGISTERED
        assert (await app.credential_changed(Basic("x"))).step is Step.NOT_REGISTERED
        assert (await app.logout()).step is Step.NOTHING

    assert len(script.asked) == 2


async def test_a_logout_without_an_answer_is_tried_again_later() -> None:
    script = Script([MADE, *CUTS * 5, (204, None, {})])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.logout()).step is Step.REPEAT
        assert app.identity is not None
        assert (await app.logout()).step is Step.NOTHING
        assert app.identity is None


async def test_only_pushes_of_its_own_registration_count() -> None:
    script = Script([MADE])
    data = {"v": "1", "registration": "other", "kind": "new-items", "class": "email", "count": "2"}
    async with running(script) as app:
        assert await app.received(data) is None
        await app.register(WISH)
        assert app.identity is not None
        own = app.identity.id
        assert await app.received({**data, "registration": own}) == NewItems(own, "email", 2, certain=True)
        assert await app.received(data) is None
        assert await app.received({"from": "elsewhere"}) is None


async def test_what_no_relay_answers_is_no_answer() -> None:
    script = Script([(200, "<html>", {}), (200, {"id": "r1"}, {}), (302, None, {"Location": "/login"})])
    async with running(script) as app:
        api = app._api
        with pytest.raises(Unreachable):
            await api.vapid_public_key()
        with pytest.raises(Unreachable):
            await api.put(Identity.make(), WISH)
        with pytest.raises(Refused, match="302 http-302"):
            await api.vapid_public_key()


async def test_a_refused_password_leaves_nothing() -> None:
    script = Script([problem(403, "credential-refused"), MADE])
    async with running(script) as app:
        assert (await app.register(WISH)).step is Step.ASK_USER
        assert app.identity is None
        assert (await app.register(WISH)).step is Step.NOTHING
        assert app.identity is not None


async def test_a_registration_without_an_answer_goes_on_under_the_same_id_and_secret() -> None:
    script = Script([*CUTS * 5, MADE])
    async with running(script) as app:
        assert (await app.register(WISH)).step is Step.REPEAT
        kept = app.identity
        assert (await app.register(WISH)).step is Step.NOTHING
        assert app.identity == kept

    assert {(method, path) for method, path, _, _ in script.asked} == {("PUT", "/v1/registrations/ID")}


async def test_a_new_log_in_keeps_the_registration_even_if_its_password_is_refused() -> None:
    script = Script([MADE, problem(403, "credential-refused"), SEEN])
    async with running(script) as app:
        await app.register(WISH)
        kept = app.identity
        assert (await app.register(WISH)).step is Step.ASK_USER
        assert (await app.register(WISH)).step is Step.NOTHING
        assert app.identity == kept


@pytest.mark.parametrize("ended", [problem(410, "gone"), problem(401, "not-authorized")])
async def test_a_log_in_after_the_end_takes_a_new_identity(ended: Answer) -> None:
    script = Script([MADE, ended, MADE])
    async with running(script) as app:
        await app.register(WISH)
        before = app.identity
        assert (await app.register(WISH)).step is Step.NOTHING
        assert app.identity not in (None, before)


async def test_a_wiped_phone_does_not_register_again_by_itself() -> None:
    script = Script([MADE, problem(410, "wiped")])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.register(WISH)).step is Step.WIPE
        assert app.identity is None


async def test_a_challenge_is_answered_and_another_one_asked_for() -> None:
    proving = {**ACTIVE, "state": "proving", "remedy": {"by": "app", "text": "Send the nonce."}}
    script = Script([(201, proving, {}), (200, proving, {}), problem(429, "too-many-challenges"), SEEN])
    async with running(script) as app:
        assert (await app.register(WISH)).step is Step.WAIT
        assert (await app.opened(OLD)).step is Step.WAIT
        assert app.identity is not None
        push = {"registration": app.identity.id, "kind": "challenge", "nonce": "n1"}
        assert await app.received({"relay": push}) == Challenge(app.identity.id, "n1")

    assert [asked[:2] for asked in script.asked[1:]] == [
        ("GET", "/v1/registrations/ID"),
        ("POST", "/v1/registrations/ID/challenge"),
        ("POST", "/v1/registrations/ID/proof"),
    ]
    assert script.asked[-1][2:] == ("Bearer SECRET", {"nonce": "n1"})


@pytest.mark.parametrize(
    ("test", "step", "looks"),
    [
        ({"state": "delivered"}, Step.NOTHING, 1),
        ({"state": "refused", "remedy": {"by": "app", "text": "token"}}, Step.SEND_TOKEN, 1),
        ({"state": "refused", "remedy": {"by": "administrator", "text": "key"}}, Step.TELL_ADMINISTRATOR, 1),
        ({"state": "queued"}, Step.WAIT, 5),
    ],
)
async def test_a_test_push_tells_what_became_of_it(test: dict[str, Any], step: Step, looks: int) -> None:
    queued: Answer = (202, {**ACTIVE, "test": {"id": "t1", "state": "queued"}}, {})
    script = Script([MADE, queued, *[(200, {"id": "t1", **test}, {})] * looks])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.test_push()).step is step

    assert script.asked[1][:2] == ("POST", "/v1/registrations/ID/test-push")
    assert {asked[:2] for asked in script.asked[2:]} == {("GET", "/v1/registrations/ID/test-pushes/t1")}
    assert script.answers == []


async def test_a_test_push_is_not_repeated() -> None:
    script = Script([MADE, problem(503, "busy"), problem(409, "not-active")])
    async with running(script) as app:
        assert (await app.test_push()).step is Step.NOT_REGISTERED
        await app.register(WISH)
        assert (await app.test_push()).step is Step.REPEAT
        assert (await app.test_push()).step is Step.WAIT

    assert script.waits == []
