"""The admin API over a real store: tokens, scopes, lists, acts, problem documents."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from eas_watcher.machine.memory import WatchState
from relay.admin.administration import Administration
from relay.admin.audit import AuditKey
from relay.admin.tokens import AdminToken, Scope, digest_of
from relay.domain.errors import StoreUnavailable
from relay.domain.model import RegistrationId
from relay.http.admission import Pace
from relay.ops.admin_api import REFUSED_BURST, AdminApi
from relay.ops.app import create_ops_app
from relay.store.administration import SqlAdminStore
from relay.store.engine import open_database
from relay.store.explanation import SqlExplanationStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate
from tests.integration.test_ops import Ops
from tests.migrating import write_new_sqlite

READER, ACTOR, LEAVER = "r" * 40, "a" * 40, "f" * 40
TOKENS = (
    AdminToken("monitor", digest_of(READER), frozenset({Scope.READ})),
    AdminToken("helpdesk", digest_of(ACTOR), frozenset({Scope.READ, Scope.ACT})),
    AdminToken("personnel", digest_of(LEAVER), frozenset({Scope.FORGET})),
)
MAILBOX, PHONE = "/admin/v1/mailboxes/mb-ann", "/admin/v1/registrations/reg-ann-phone"


class FragileStore(SqlAdminStore):
    """The real store, which a test can make unavailable."""

    away = False

    async def maintained(self) -> Any:
        if self.away:
            raise StoreUnavailable
        return await super().maintained()


class Api:
    """The ops listener with the admin API, and a database with ann and ben."""

    def __init__(
        self,
        client: TestClient[Request, Application],
        store: FragileStore,
        phones: SqlRegistrationStore,
        served: AdminApi,
    ) -> None:
        self.client, self.store, self.phones, self.served = client, store, phones, served

    async def ask(self, method: str, path: str, token: str = ACTOR, **headers: str) -> tuple[int, Any]:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await self.client.request(method, path, headers={**given, **headers})
        return answer.status, await answer.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_database(await write_new_sqlite(tmp_path / "relay.db")) as engine:
        wakeups = LocalWakeups()
        registrations, watches = SqlRegistrationStore(engine, wakeups), SqlWatchStore(engine, wakeups)
        for name in ("ann", "ben"):
            await activate(registrations, watches, name)
        store = FragileStore(engine, wakeups)
        admin = Administration(store, {"office"}, (AuditKey(b"k" * 32),), lambda: NOW, "api")
        served = AdminApi(admin, SqlExplanationStore(engine, lambda: NOW).find, TOKENS, lambda: NOW)
        ops = Ops()
        app = create_ops_app(ops.health, ops.metrics, admin=served)
        async with TestClient(TestServer(app)) as client:
            yield Api(client, store, registrations, served)


async def test_lists_pages_of_mailboxes_and_registrations(api: Api) -> None:
    status, first = await api.ask("GET", "/admin/v1/mailboxes?limit=1&server=office")
    _, second = await api.ask("GET", f"/admin/v1/mailboxes?limit=1&cursor={first['cursor']}")
    _, phones = await api.ask("GET", "/admin/v1/registrations?platform=apns&user=ben&state=active&app=mail")

    assert status == 200
    assert [each["user"] for each in first["mailboxes"] + second["mailboxes"]] == ["ann@example.com", "ben@example.com"]
    assert second["cursor"] is None
    assert [each["id"] for each in phones["registrations"]] == ["reg-ben-phone"]
    assert "token-ben" not in str(phones)


async def test_shows_one_mailbox_and_one_registration(api: Api) -> None:
    status, mailbox = await api.ask("GET", MAILBOX, READER)
    _, phone = await api.ask("GET", PHONE, READER)

    assert (status, mailbox["mailbox"]["id"], phone["id"]) == (200, "mb-ann", "reg-ann-phone")
    assert "to_do" in mailbox["mailbox"]
    assert "token-ann" not in str(mailbox) + str(phone)


async def test_acts_are_done_and_noted_under_the_name_of_the_token(api: Api) -> None:
    for method, path in (
        ("POST", f"{MAILBOX}/pause"),
        ("POST", f"{MAILBOX}/resume"),
        ("POST", f"{PHONE}/test-push"),
        ("POST", f"{PHONE}/retry"),
        ("PUT", "/admin/v1/maintenance/office"),
        ("DELETE", "/admin/v1/maintenance/office"),
    ):
        status, body = await api.ask(method, path)
        assert status in {200, 202}, (path, body)
        assert body["done"] is True

    _, found = await api.ask("GET", "/admin/v1/acts?limit=3")
    _, older = await api.ask("GET", "/admin/v1/acts?before=2")
    assert [each["what"] for each in found["acts"]] == ["maintenance.off", "maintenance.on", "registration.retry"]
    assert [(each["what"], each["who"], each["via"]) for each in older["acts"]] == [
        ("mailbox.pause", "helpdesk", "api")
    ]


async def test_a_user_is_exported_and_forgotten_by_the_scope_for_it(api: Api) -> None:
    _, kept = await api.ask("POST", f"{MAILBOX}/export", LEAVER)
    status, _ = await api.ask("POST", f"{MAILBOX}/forget", LEAVER)
    ended, _ = await api.ask("POST", "/admin/v1/registrations/reg-ben-phone/forget", LEAVER)

    assert kept["mailbox"]["user"] == "ann@example.com"
    assert (status, ended) == (202, 200)
    assert await api.phones.view(RegistrationId("reg-ann-phone")) is None
    assert await api.phones.view(RegistrationId("reg-ben-phone")) is None


async def test_an_act_that_makes_no_sense_is_a_conflict_that_says_why(api: Api) -> None:
    status, problem = await api.ask("POST", f"{MAILBOX}/resume")

    assert (status, problem["code"], problem["detail"]) == (409, "not-done", "it is not paused")


@pytest.mark.parametrize(
    ("method", "path", "token"),
    [
        ("POST", f"{MAILBOX}/pause", READER),
        ("POST", f"{PHONE}/test-push", READER),
        ("PUT", "/admin/v1/maintenance/office", READER),
        ("POST", f"{MAILBOX}/forget", ACTOR),
        ("POST", f"{MAILBOX}/export", ACTOR),
        ("POST", f"{PHONE}/forget", ACTOR),
        ("GET", MAILBOX, LEAVER),
        ("GET", "/admin/v1/acts", LEAVER),
    ],
)
async def test_a_token_opens_its_scopes_and_no_more(api: Api, method: str, path: str, token: str) -> None:
    status, problem = await api.ask(method, path, token)

    assert (status, problem["code"]) == (403, "insufficient-scope")
    view = await api.phones.view(RegistrationId("reg-ann-phone"))
    assert view is not None
    assert view.mailbox.state is WatchState.STARTING


@pytest.mark.parametrize("token", ["", "x" * 40, READER[:-1]])
async def test_without_a_token_nothing_is_shown(api: Api, token: str) -> None:
    answer = await api.client.get(MAILBOX, headers={"Authorization": f"Bearer {token}"} if token else {})

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "ann" not in await answer.text()


async def test_a_token_of_another_scheme_or_two_of_them_are_none(api: Api) -> None:
    assert (await api.ask("GET", MAILBOX, "", Authorization=f"Basic {ACTOR}"))[0] == 401
    two = [("Authorization", f"Bearer {ACTOR}"), ("Authorization", f"Bearer {ACTOR}")]
    assert (await api.client.get(MAILBOX, headers=two)).status == 401


async def test_guesses_are_slowed_down_and_good_tokens_are_served_meanwhile(api: Api) -> None:
    statuses = [(await api.ask("GET", MAILBOX, "x" * 40))[0] for _ in range(int(REFUSED_BURST) + 5)]

    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert (await api.ask("GET", MAILBOX))[0] == 200


async def test_one_token_does_not_take_the_whole_process(api: Api) -> None:
    api.served._paces["helpdesk"] = Pace(1e-6, 3.0)  # a pace that no machine is so slow as to keep
    statuses = [(await api.ask("GET", "/admin/v1/maintenance"))[0] for _ in range(5)]

    assert statuses == [200, 200, 200, 200, 429], "what is left may go below zero once"
    assert (await api.ask("GET", MAILBOX, READER))[0] == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=bogus", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("colour=red", "colour"),
        ("server=a&server=b", "server"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, field: str) -> None:
    status, problem = await api.ask("GET", f"/admin/v1/mailboxes?{query}")

    assert (status, problem["code"]) == (400, "bad-query")
    assert [each["field"] for each in problem["errors"]] == [field]


async def test_all_wrong_parameters_are_named_at_once(api: Api) -> None:
    for path, fields in (
        ("mailboxes?state=bogus&limit=0&colour=red", {"state", "limit", "colour"}),
        ("registrations?platform=pager&limit=ten", {"platform", "limit"}),
        ("acts?before=now&limit=501", {"before", "limit"}),
    ):
        status, problem = await api.ask("GET", f"/admin/v1/{path}")

        assert (status, problem["code"]) == (400, "bad-query")
        assert {each["field"] for each in problem["errors"]} == fields


async def test_what_is_not_there_is_said_so(api: Api) -> None:
    for method, path in (
        ("GET", "/admin/v1/mailboxes/nobody"),
        ("GET", "/admin/v1/mailboxes/ann@example.com"),
        ("GET", "/admin/v1/registrations/nobody"),
        ("POST", "/admin/v1/mailboxes/nobody/pause"),
        ("POST", "/admin/v1/registrations/nobody/retry"),
        ("PUT", "/admin/v1/maintenance/nowhere"),
    ):
        assert (await api.ask(method, path))[0] == 404, path
    assert (await api.ask("GET", "/admin/v1/mailboxes?cursor=gone"))[0] == 410


async def test_a_database_that_is_away_is_said_so(api: Api) -> None:
    api.store.away = True

    status, problem = await api.ask("GET", "/admin/v1/maintenance")

    assert (status, problem["code"]) == (503, "unavailable")


async def test_requests_for_another_host_are_refused_with_a_good_token_too(api: Api) -> None:
    assert (await api.ask("GET", MAILBOX, Host="attacker.example.com"))[0] == 421


async def test_no_other_origin_may_read_an_answer(api: Api) -> None:
    answer = await api.client.get(
        MAILBOX, headers={"Authorization": f"Bearer {ACTOR}", "Origin": "https://attacker.example.com"}
    )

    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_without_tokens_there_is_no_admin_api() -> None:
    ops = Ops()
    async with TestClient(TestServer(create_ops_app(ops.health, ops.metrics))) as client:
        assert (await client.get(MAILBOX, headers={"Authorization": f"Bearer {ACTOR}"})).status == 404


async def test_tokens_come_and_go_while_the_relay_runs(api: Api) -> None:
    api.served.take(())
    answer = await api.client.get(MAILBOX, headers={"Authorization": f"Bearer {ACTOR}"})
    assert answer.status == 404

    api.served.take(TOKENS[1:2])
    assert (await api.ask("GET", MAILBOX))[0] == 200
    assert (await api.ask("GET", MAILBOX, READER))[0] == 401


async def test_no_name_has_a_character_that_postgresql_does_not_take(api: Api) -> None:
    status, problem = await api.ask("GET", "/admin/v1/mailboxes/mb%00ann")

    assert (status, problem["detail"]) == (404, "no name has the character NUL")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("mailboxes?user=%00", "user"),
        ("registrations?cursor=a%00", "cursor"),
        ("registrations?state=%00", "state"),
        ("acts?before=%00", "before"),
    ],
)
async def test_a_parameter_with_that_character_is_named(api: Api, path: str, field: str) -> None:
    status, problem = await api.ask("GET", f"/admin/v1/{path}")

    assert (status, problem["errors"]) == (400, [{"field": field, "detail": "has the character NUL"}])
