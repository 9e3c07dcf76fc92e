"""Several Firebase projects, against a small Google that knows any number of them."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import parse_qs

from aiohttp import web

from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, Reach, Refused, RetryLater
from relay.http.listeners import open_listener
from relay.process.clock import now
from relay.push.breaker import IN_A_ROW
from relay.push.fcm.config import FcmConfig
from relay.push.fcm.sender import FcmSender
from relay.sandbox.certificates import make_service_account
from tests.fakes.egress import MemoryEgress
from tests.integration.push_world import fcm_account
from tests.keys import rsa_key
from tests.unit.relay.push.pushes import due_push

MAIL, OTHER = "com.example.mail", "com.example.other"


@dataclass
class Google:
    """Takes a push only with an access token of its own project."""

    exhausted: set[str] = field(default_factory=set)
    """Projects whose quota is used up."""
    tokenless: set[str] = field(default_factory=set)
    """Accounts that get no access token for now."""
    tokens: list[str] = field(default_factory=list)
    """The accounts that tokens were given to."""
    taken: list[tuple[str, str]] = field(default_factory=list)
    """The project and the device token of each push."""

    async def token(self, request: web.Request) -> web.Response:
        claims = parse_qs(await request.text())["assertion"][0].split(".")[1]
        account = json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"]
        if account in self.tokenless:
            return web.json_response({"error": "internal_failure"}, status=500)
        self.tokens.append(account)
        return web.json_response({"access_token": f"token-of-{account}", "expires_in": 3600})

    async def push(self, request: web.Request) -> web.Response:
        project = request.match_info["project"]
        assert request.headers["Authorization"] == f"Bearer token-of-{account_of(project)}"
        if project in self.exhausted:
            return web.json_response({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, status=429)
        self.taken.append((project, (await request.json())["message"]["token"]))
        return web.json_response({"name": f"projects/{project}/messages/1"})


def account_of(project: str) -> str:
    """Return the address of a service account as the sandbox makes it."""
    document, _ = make_service_account(project, "https://127.0.0.1/token", rsa_key())
    return document["client_email"]


@asynccontextmanager
async def two_projects(folder: Path) -> AsyncIterator[tuple[Google, FcmSender]]:
    """Open a Google and a sender with two projects."""
    google, app = Google(), web.Application()
    app.router.add_post("/token", google.token)
    app.router.add_post("/v1/projects/{project}/messages:send", google.push)
    async with open_listener(app, "127.0.0.1", 0) as port:
        for project in ("first", "second"):
            document, _ = make_service_account(project, f"http://localhost:{port}/token", rsa_key())
            (folder / f"{project}.json").write_text(json.dumps(document))
            (folder / f"{project}.json").chmod(0o600)
        accounts = (
            fcm_account(folder / "first.json", MAIL),
            fcm_account(folder / "second.json", OTHER, table="fcm.accounts.other"),
        )
        config = FcmConfig(accounts, f"http://localhost:{port}", in_flight=2 * IN_A_ROW)
        async with FcmSender(config, now, Random(1), MemoryEgress()) as sender:
            yield google, sender


def push_to(app: str, number: int) -> DuePush:
    return due_push(number, platform=Platform.FCM, app=app)


async def test_each_app_is_pushed_to_as_its_own_project_with_a_token_of_its_own(tmp_path: Path) -> None:
    async with two_projects(tmp_path) as (google, sender):
        for number, app in enumerate((MAIL, OTHER, MAIL, OTHER)):
            assert isinstance(await sender.send(push_to(app, number)), Delivered)

        assert [project for project, _ in google.taken] == ["first", "second"] * 2
        assert google.tokens == [account_of("first"), account_of("second")]
        assert [file.setting for file in sender.key_files] == [
            "fcm.service_account_file",
            "fcm.accounts.other.service_account_file",
        ]


async def test_a_quota_that_is_used_up_delays_the_apps_of_its_project_alone(tmp_path: Path) -> None:
    async with two_projects(tmp_path) as (google, sender):
        google.exhausted.add("second")
        for number in range(IN_A_ROW):
            outcome = await sender.send(push_to(OTHER, number))
            assert isinstance(outcome, RetryLater)
            assert (outcome.provider, outcome.reach) == (False, Reach.ANSWERED)
            assert "[fcm.accounts.other]" in outcome.remedy

        rests = await sender.send(push_to(OTHER, 9))
        assert isinstance(rests, RetryLater)
        assert (rests.reach, rests.reason.partition(":")[0]) == (Reach.HERE, "fcm-project-rests")
        assert isinstance(await sender.send(push_to(MAIL, 10)), Delivered)


async def test_tokens_that_google_does_not_give_delay_the_apps_of_their_project_alone(tmp_path: Path) -> None:
    async with two_projects(tmp_path) as (google, sender):
        google.tokenless.add(account_of("second"))
        for number in range(IN_A_ROW):
            outcome = await sender.send(push_to(OTHER, number))
            assert isinstance(outcome, RetryLater)
            assert not outcome.provider

        assert sender.projects.states["fcm.accounts.other"].away
        assert isinstance(await sender.send(push_to(MAIL, 10)), Delivered)

        document, _ = make_service_account("second", json.loads((tmp_path / "first.json").read_text())["token_uri"])
        google.tokenless.clear()
        (tmp_path / "second.json").write_text(json.dumps(document))
        await sender.key_files[1].look()
        assert isinstance(await sender.send(push_to(OTHER, 11)), Delivered)


async def test_an_app_of_no_project_is_pushed_to_by_none(tmp_path: Path) -> None:
    async with two_projects(tmp_path) as (google, sender):
        for outcome in (
            await sender.send(push_to("com.example.third", 1)),
            await sender.validate(push_to("com.example.third", 1)),
        ):
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.reach, outcome.channel) == ("app-not-configured", Reach.HERE, False)
            assert "com.example.third" in outcome.remedy
        assert (google.taken, google.tokens) == ([], [])
