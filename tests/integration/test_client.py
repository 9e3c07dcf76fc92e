"""The reference client against a relay that answers as a script says: what it sends, repeats, keeps and forgets."""

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
MADE: Answer = (201, {**ACTIVE, "secret": "s1"}, {})
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
    asked: list[tuple[str, str, str | None, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.keys.append(request.headers.get("Enrolment-Key"))
        self.asked.append((request.method, request.path, request.headers.get("Authorization"), body))
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
    assert script.asked[-1] == ("GET", "/v1/registrations/r1", "Bearer s1", None)


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
        ("PATCH", "/v1/registrations/r1", "Bearer s1", body),
        ("GET", "/v1/registrations/r1", "Bearer s1", None),
    ]


async def test_a_token_that_was_not_taken_is_sent_at_the_next_start() -> None:
    script = Script([MADE, problem(422, "unsupported-device"), SEEN])
    async with running(script) as app:
        await app.register(WISH)
        assert (await app.opened(NEW)).step is Step.CORRECT_APP
        assert (await app.opened(NEW)).step is Step.NOTHING

    assert [asked[0] for asked in script.asked] == ["POST", "PATCH", "PATCH"]


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
    data = {"v": "1", "registration": "r1", "kind": "new-items", "class": "email", "count": "2"}
    async with running(script) as app:
        assert await app.received(data) is None
        await app.register(WISH)
        assert await app.received(data) == NewItems("r1", "email", 2, certain=True)
        assert await app.received({**data, "registration": "other"}) is None
        assert await app.received({"from": "elsewhere"}) is None


async def test_what_no_relay_answers_is_no_answer() -> None:
    script = Script([(200, "<html>", {}), (200, {"id": "r1"}, {}), (302, None, {"Location": "/login"})])
    async with running(script) as app:
        api = app._api
        with pytest.raises(Unreachable):
            await api.vapid_public_key()
        with pytest.raises(Unreachable):
            await api.post(WISH)
        with pytest.raises(Refused, match="302 http-302"):
            await api.vapid_public_key()


async def test_neither_refusals_nor_lost_answers_register() -> None:
    script = Script([problem(403, "credential-refused"), *CUTS])
    async with running(script) as app:
        assert (await app.register(WISH)).step is Step.ASK_USER
        assert (await app.register(WISH)).step is Step.REPEAT
        assert app.identity is None
