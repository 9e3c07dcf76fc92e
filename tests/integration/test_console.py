"""The console over a real store: who gets in, what they may do, and what the pages are made of."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from aiohttp import ClientResponse, CookieJar
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from eas_watcher.machine.memory import WatchState
from eas_watcher.runtime.context import FleetStats
from relay.admin.administration import Administration
from relay.admin.audit import AuditKey, Verdict
from relay.admin.people import TrustedProxy
from relay.admin.tokens import AdminToken, Scope, digest_of
from relay.console import app
from relay.console.app import COOKIE, FORM, GUESSES, HOST_COOKIE, LIVE, Console
from relay.console.egress import EgressViewer
from relay.console.process import ProcessView
from relay.console.sessions import IDLE
from relay.console.views import EgressPages, MailboxPages, ProcessPages
from relay.domain.model import Platform, RegistrationId, Role
from relay.domain.timeline import Event, EventKind, Happening
from relay.http.addresses import Proxies
from relay.http.admission import Pace
from relay.ops.app import create_ops_app
from relay.push.egress.auditing import Audit
from relay.push.stats import PushStats
from relay.store.engine import Database, open_database
from relay.store.explanation import EVENTS, SqlExplanationStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.timeline import write
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate
from tests.integration.test_admin_api import ACTOR, LEAVER, READER, FragileStore
from tests.integration.test_ops import Ops
from tests.migrating import write_new_sqlite

TOKENS = (
    AdminToken("monitor", digest_of(READER), frozenset({Scope.READ})),
    AdminToken("helpdesk", digest_of(ACTOR), frozenset({Scope.READ, Scope.ACT})),
    AdminToken("personnel", digest_of(LEAVER), frozenset({Scope.READ, Scope.FORGET})),
)
PROXY = TrustedProxy(
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    Proxies((ip_network("127.0.0.1"),)),
    {Scope.READ: frozenset({"group:helpdesk", "eve"}), Scope.ACT: frozenset({"group:helpdesk"})},
)
MAILBOX, PHONE = "/console/mailboxes/mb-ann", "/console/registrations/reg-ann-phone"
OWN = {"Sec-Fetch-Site": "same-origin"}
FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
PAGES = ("/", "/?span=day", "/servers", "/providers", "/mailboxes", "/mailboxes/mb-ann", "/acts", "/egress")


@dataclass
class Site:
    """The ops listener with the console, and a database with ann and ben."""

    client: TestClient[Request, Application]
    console: Console
    store: FragileStore
    phones: SqlRegistrationStore
    watches: SqlWatchStore
    admin: Administration
    ops: Ops
    database: Database

    async def get(self, path: str, status: int = 200, headers: Mapping[str, str] | None = None) -> str:
        answer = await self.client.get(f"/console{path}", headers=headers, allow_redirects=False)
        assert answer.status == status, await answer.text()
        return await answer.text()

    async def post(
        self, path: str, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] = OWN, **more: str
    ) -> ClientResponse:
        return await self.client.post(path, data={**(fields or {}), **more}, headers=headers, allow_redirects=False)

    async def login(self, token: str = ACTOR, **headers: str) -> ClientResponse:
        answer = await self.post("/console/login", {"token": token}, {**OWN, **headers})
        assert answer.status == 303
        return answer

    async def form_token(self) -> str:
        """Return what the forms of this session carry."""
        found = FORM_TOKEN.search(await self.get("/mailboxes"))
        assert found is not None
        return found[1]

    async def act(self, path: str, **fields: str) -> str:
        """Send a form as a page does; return the page that follows."""
        answer = await self.post(path, {"form_token": await self.form_token(), **fields})
        assert answer.status == 303, await answer.text()
        return await self.get(answer.headers["Location"].removeprefix("/console"))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_database(await write_new_sqlite(tmp_path / "relay.db")) as engine:
        wakeups = LocalWakeups()
        registrations, watches = SqlRegistrationStore(engine, wakeups), SqlWatchStore(engine, wakeups)
        for name in ("ann", "ben"):
            await activate(registrations, watches, name)
        store, ops = FragileStore(engine, wakeups), Ops()
        ops.clock.now = NOW
        await ops.counts.refresh()
        process = ProcessView(
            role=Role.ALL,
            version="1.2.3",
            health=ops.health,
            counts=ops.counts,
            fleet=FleetStats(),
            servers=lambda: {"office": "https://mail.example.com/Microsoft-Server-ActiveSync"},
            admissions=list,
            connections={},
            pushes={Platform.APNS: PushStats()},
            accounts=tuple,
            services=lambda: None,
            projects=lambda: None,
            clock=ops.clock,
        )
        admin = Administration(store, {"office"}, (AuditKey(b"k" * 32),), ops.clock, "console")
        console = Console(process, ops.clock)
        ProcessPages(console, admin)
        find = SqlExplanationStore(engine, ops.clock).find
        MailboxPages(console, admin, lambda name, until: find(name, before=until))
        (tmp_path / "egress").mkdir()
        EgressPages(console, partial(EgressViewer, tmp_path / "egress", tmp_path, tmp_path / "egress.key"))
        console.take(TOKENS, None)
        served = create_ops_app(ops.health, ops.metrics, console=console)
        async with TestClient(TestServer(served), cookie_jar=CookieJar(unsafe=True)) as client:
            yield Site(client, console, store, registrations, watches, admin, ops, engine)


async def test_a_form_that_does_not_end_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "FORM_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(site.client.host, site.client.port)
    writer.write(
        b"POST /console/login HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 100\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
    )
    async with asyncio.timeout(5):
        assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
    writer.close()


async def test_whoever_is_not_logged_in_is_led_to_the_login_and_back(site: Site) -> None:
    for page in PAGES:
        answer = await site.client.get(f"/console{page}", allow_redirects=False)
        assert (answer.status, answer.headers["Location"].partition("?")[0]) == (303, "/console/login"), page
        assert "ann@example.com" not in await answer.text()
    answer = await site.client.get("/console/mailboxes/mb%2Fann?at=2026-11-24T08:00%2B01:00")
    asked = 'name="to" value="/mailboxes/mb%2Fann?at=2026-11-24T08:00%2B01:00"'
    assert asked in await answer.text()

    answer = await site.post("/console/login", token=ACTOR, to="/servers?a=b")

    assert answer.headers["Location"] == "/console/servers?a=b"
    assert "Mail servers" in await site.get("/servers")


@pytest.mark.parametrize(
    "to", ["https://evil.example.com/", "//evil.example.com", "/login", "/logout", "/a\nb", "javascript:1"]
)
async def test_the_login_leads_nowhere_else(site: Site, to: str) -> None:
    answer = await site.post("/console/login", token=ACTOR, to=to)

    assert answer.headers["Location"] == "/console/"


async def test_without_people_there_is_no_console(site: Site) -> None:
    await site.login()
    site.console.take((), None)

    for path in ("", "/", "/login", "/mailboxes"):
        assert (await site.client.get(f"/console{path}", allow_redirects=False)).status == 404
    assert (await site.post("/console/login", token=ACTOR)).status == 404
    site.console.take(TOKENS, None)
    await site.get("/", 303)


async def test_a_wrong_token_is_refused_and_guesses_are_slowed_down(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for wrong in ("", "x" * 40, ACTOR[:-1], ACTOR + "a"):
        answer = await site.post("/console/login", token=wrong)
        assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)
        assert "This is no token" in await answer.text()
    statuses = [(await site.post("/console/login", token="x" * 40)).status for _ in range(int(GUESSES))]

    assert statuses[-1] == 429
    await site.login()
    told = [(record.message, getattr(record, "who", "")) for record in caplog.records if "console" in record.name]
    assert told[0] == ("admin token refused", "")
    assert told[-1] == ("console login", "helpdesk")
    assert ACTOR not in caplog.text


async def test_the_cookie_is_for_the_console_alone(site: Site) -> None:
    plain = (await site.login()).cookies[COOKIE]
    secure = (await site.login(Origin="https://relay.example.com")).cookies[HOST_COOKIE]
    behind = (await site.login(**{"X-Forwarded-Proto": "https"})).cookies[HOST_COOKIE]

    assert (plain["httponly"], plain["samesite"], plain["path"], plain["secure"]) == (True, "Strict", "/console", "")
    assert (secure["httponly"], secure["samesite"], secure["path"]) == (True, "Strict", "/")
    assert secure["secure"] is behind["secure"] is True
    assert ACTOR not in plain.value


async def test_a_session_ends_by_logout_by_time_and_with_its_token(site: Site) -> None:
    cookie = (await site.login()).cookies[COOKIE].value
    answer = await site.post("/console/logout", form_token=await site.form_token())
    assert (answer.status, answer.headers["Location"]) == (303, "/console/login")
    await site.get("/", 303, {"Cookie": f"{COOKIE}={cookie}"})

    await site.login()
    site.ops.clock.forward(IDLE.total_seconds() - 1)
    await site.get("/", headers={LIVE: "1"})
    site.ops.clock.forward(1)
    await site.get("/", 303)

    await site.login()
    site.console.take((replace(TOKENS[1], digest=digest_of("n" * 40)),), None)
    await site.get("/", 303)
    assert (await site.post("/console/login", token=ACTOR)).status == 403


async def test_scopes_that_change_hold_at_once(site: Site) -> None:
    await site.login()
    assert "Pause" in await site.get("/mailboxes/mb-ann")
    token = await site.form_token()

    site.console.take((replace(TOKENS[1], scopes=frozenset({Scope.READ})),), None)

    assert ">Pause<" not in await site.get("/mailboxes/mb-ann")
    assert (await site.post(f"{MAILBOX}/pause", form_token=token)).status == 403


async def test_pages_show_what_the_relay_knows_and_no_secret(site: Site) -> None:
    await site.login()

    shown = {page: await site.get(page) for page in PAGES}

    assert "https://mail.example.com/Microsoft-Server-ActiveSync" in shown["/servers"]
    assert "APNs" in shown["/providers"]
    assert "ben@example.com" in shown["/mailboxes"]
    assert "reg-ann-phone" in shown["/mailboxes/mb-ann"]
    assert "Nothing has left yet" in shown["/egress"]
    for page, text in shown.items():
        assert "token-ann" not in text, page
        assert ACTOR not in text, page
        assert "style=" not in text, page
        assert "<script>" not in text, page
        assert text.count("<h1>") == 1, page
        assert 'lang="en"' in text, page
        assert "http-equiv" not in text, page


async def test_every_answer_has_the_headers_of_pages(site: Site) -> None:
    answers = [await site.client.get("/console/login"), await site.login(), await site.client.get("/console/mailboxes")]
    answers += [await site.client.get("/console/nowhere"), await site.client.get("/console/acts/verify")]

    assert [answer.status for answer in answers[3:]] == [404, 404]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"


async def test_acts_are_done_under_the_name_of_the_token_and_told(site: Site) -> None:
    await site.login()

    assert "Done: paused" in await site.act(f"{MAILBOX}/pause")
    page = await site.get("/mailboxes/mb-ann")
    assert "Done" not in page  # it is told once
    assert ">Resume<" in page
    assert ">Pause<" not in page
    assert "Nothing changed: it is paused already" in await site.act(f"{MAILBOX}/pause")
    assert "Done: resumed" in await site.act(f"{MAILBOX}/resume")
    tested = await site.act(f"{PHONE}/test-push", mailbox="mb-ann")
    assert "Done: a test push" in tested
    assert ">queued<" in tested
    assert "Done: what waits is tried now" in await site.act(f"{PHONE}/retry", mailbox="mb-ann")
    maintained = await site.act("/console/servers/office/maintenance", on="on")
    assert "Done: in maintenance: the relay ends the watches of 2 mailboxes" in maintained
    assert "In maintenance since" in maintained
    assert ">Maintenance<" in await site.act("/console/servers/office/maintenance", on="off")

    acts = await site.get("/acts")
    found = re.findall(r'<th scope="row">(\w+)</th><td>(\w+)</td><td>([\w.-]+)</td>', acts)
    assert found == [
        ("helpdesk", "console", what)
        for what in (
            *("maintenance.off", "maintenance.on", "registration.retry", "registration.test-push"),
            *("mailbox.resume", "mailbox.pause"),
        )
    ]
    verified = await site.post("/console/acts/verify", form_token=await site.form_token())
    assert "6 entries, unbroken" in await verified.text()


@pytest.mark.parametrize("log", ["acts", "egress"])
async def test_a_log_is_verified_once_at_a_time(site: Site, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.login()
    fields = {"form_token": await site.form_token()}
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> Verdict:
        begun.set()
        await go_on.wait()
        return Verdict(0, "")

    async def in_a_thread(*_: object) -> Audit:
        await slowly()
        return Audit.of_nothing()

    monkeypatch.setattr(site.admin, "verify_acts", slowly)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "to_thread", in_a_thread)
        first = asyncio.ensure_future(site.post(f"/console/{log}/verify", fields))
        await begun.wait()
    async with asyncio.timeout(10):
        second = await site.post(f"/console/{log}/verify", fields)
    told = await site.get(f"/{log}")
    go_on.set()

    assert (second.status, second.headers["Location"]) == (303, f"/console/{log}")
    assert "is being verified already" in told
    assert (await first).status == 200


ACTS = (
    (f"{MAILBOX}/retry", Scope.ACT),
    (f"{MAILBOX}/pause", Scope.ACT),
    (f"{MAILBOX}/resume", Scope.ACT),
    (f"{MAILBOX}/forget", Scope.FORGET),
    (f"{PHONE}/retry", Scope.ACT),
    (f"{PHONE}/test-push", Scope.ACT),
    (f"{PHONE}/forget", Scope.FORGET),
    ("/console/servers/office/maintenance", Scope.ACT),
)
CONFIRMED = {"on": "on", "mailbox": "mb-ann", "confirm": "ann@example.com"}


async def test_an_act_needs_its_scope_and_a_page_shows_no_button_without_it(site: Site) -> None:
    for token, lacking in ((READER, Scope.ACT), (ACTOR, Scope.FORGET)):
        await site.login(token)
        pages = await site.get("/servers") + await site.get("/mailboxes/mb-ann")
        fields = {**CONFIRMED, "form_token": await site.form_token()}
        for path in (path for path, scope in ACTS if scope is lacking):
            answer = await site.post(path, fields)

            assert answer.status == 403, path
            assert f"lacks the scope {lacking}" in await answer.text()
            assert f'action="{path}"' not in pages
    assert await site.admin.acts(10) == []


async def test_who_may_not_look_sees_nothing(site: Site) -> None:
    site.console.take((replace(TOKENS[0], scopes=frozenset({Scope.FORGET})),), None)
    await site.login(READER)

    for page in PAGES:
        assert "ann@example.com" not in await site.get(page, 403)


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        (OWN, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "https://evil.example.com"}, True),
        ({}, True),
    ],
    ids=["no-token", "cross-site", "other-origin", "no-word"],
)
async def test_a_form_of_a_stranger_does_nothing(site: Site, headers: dict[str, str], known: bool) -> None:
    site.console.take((replace(TOKENS[1], scopes=frozenset(Scope)),), None)
    await site.login(ACTOR)
    fields = {**CONFIRMED, "form_token": await site.form_token()} if known else CONFIRMED

    for path, _ in ACTS:
        assert (await site.post(path, fields, headers)).status == 403, path
    assert await site.admin.acts(10) == []


async def test_a_login_of_a_stranger_s_page_is_refused(site: Site) -> None:
    answer = await site.post("/console/login", {"token": ACTOR}, {"Origin": "https://evil.example.com"})

    assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)


async def test_the_token_of_another_session_opens_no_form(site: Site) -> None:
    await site.login(LEAVER)
    other = await site.form_token()
    await site.login(ACTOR)

    assert (await site.post(f"{MAILBOX}/pause", form_token=other)).status == 403


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("multipart/form-data; boundary=x", b"token="),
        ("application/json", b"token="),
        ("text/plain", b"token="),
        (f"{FORM}; charset=nonsense", b"token="),
        (f"{FORM}; charset=utf-7", b"token=+2AA-"),  # half of a surrogate pair
        (FORM, b"token=\xff"),
    ],
)
async def test_only_forms_are_taken(site: Site, media_type: str, body: bytes) -> None:
    answer = await site.client.post("/console/login", data=body, headers={**OWN, "Content-Type": media_type})

    assert answer.status == 400
    large = await site.post("/console/login", token="x" * 9000)
    assert large.status == 400


async def test_to_forget_is_confirmed_by_typing(site: Site) -> None:
    await site.login(LEAVER)

    assert "type its name: ann@example.com" in await site.act(f"{MAILBOX}/forget", confirm="ben@example.com")
    assert "type forget" in await site.act(f"{PHONE}/forget", confirm="", mailbox="mb-ann")
    assert await site.admin.acts(10) == []

    assert "None." in await site.act(f"{PHONE}/forget", confirm="forget", mailbox="mb-ann")
    assert await site.phones.view(RegistrationId("reg-ann-phone")) is None
    assert "Done: its registrations are gone" in await site.act(
        "/console/mailboxes/mb-ben/forget", confirm="ben@example.com"
    )
    acts = [(act.what, act.detail) for act in await site.admin.acts(10)]
    assert acts == [("mailbox.forget", "1 registration"), ("registration.forget", "")]


async def test_a_search_leaves_no_user_in_an_address(site: Site) -> None:
    await site.login()

    page = await site.act("/console/mailboxes", user="BEN", server="office", state="")

    assert "ben@example.com" in page
    assert "ann@example.com" not in page
    assert 'value="BEN"' in page
    assert "No mailbox is found for this" in await site.act(
        "/console/mailboxes", user="eve", server="", state="blocked"
    )
    assert "<h1>ann@example.com</h1>" in await site.act("/console/mailboxes", user="reg-ann-phone", server="", state="")
    assert "ann@example.com" in await site.act("/console/mailboxes", user="", server="", state="nonsense")


async def test_what_became_of_an_act_is_told_though_its_page_is_gone(site: Site) -> None:
    await site.login(LEAVER)
    answer = await site.post(
        f"{PHONE}/forget", form_token=await site.form_token(), confirm="forget", mailbox="mb-of-nobody"
    )

    assert "Done: it is gone" in await site.get(answer.headers["Location"].removeprefix("/console"), 404)
    assert "Done" not in await site.get("/mailboxes")


async def test_a_mailbox_that_cannot_be_read_is_not_offered_to_be_forgotten(site: Site) -> None:
    await site.login(LEAVER)
    unreadable = sa.text("UPDATE mailbox SET since = '20000-01-01' WHERE id = 'mb-ann'")
    await site.database.run(lambda connection: connection.execute(unreadable))

    page = await site.get("/mailboxes/mb-ann")

    assert "Forget the user" not in page
    assert "cannot be read: correct it first" in await site.act(f"{MAILBOX}/forget", confirm="mb-ann")


async def test_what_a_page_renews_by_itself_is_found_by_the_name_of_its_thing(site: Site) -> None:
    """Its buttons stay, so they must not come to stand below another thing."""
    await site.login()
    await activate(site.phones, site.watches, "ann", device="tablet")

    page, servers = await site.get("/mailboxes/mb-ann"), await site.get("/servers")

    assert re.findall(r'data-live id="registration-([^"]+)"', page) == ["reg-ann-phone", "reg-ann-tablet"]
    assert 'data-live id="live-office"' in servers


async def test_hostile_texts_are_only_texts(site: Site) -> None:
    await site.login()
    hostile = "\"><script>alert(1)</script><b x='"
    await activate(site.phones, site.watches, hostile)
    listed = await site.get("/mailboxes")
    shown = await site.get(f"/mailboxes/{quote(f'mb-{hostile}', safe='')}")
    assert "&lt;script&gt;alert(1)" in listed
    assert "&lt;script&gt;alert(1)" in shown

    page = await site.act("/console/mailboxes", user=hostile, server=hostile, state=hostile)
    moment = await site.get("/mailboxes/mb-ann?at=%3Cscript%3E")
    unknown = await site.get("/mailboxes/%3Cscript%3E", 404)
    forged = await site.get("/mailboxes/%00", 404)
    nul = await site.post("/console/mailboxes", {"form_token": await site.form_token(), "user": "a\0n"})
    assert nul.status == 404

    for text in (listed, shown, page, moment, unknown, forged):
        assert "<script>" not in text
        assert "<b x" not in text
    assert "is no time: write 14:05" in moment
    assert (await site.get("/egress?file=../egress.key", 404)).count("egress.key") == 1


async def test_a_moment_before_the_last_events_shows_what_came_until_then(site: Site) -> None:
    await site.login()
    asked, later = NOW - timedelta(hours=2), NOW - timedelta(minutes=30)
    held = Event(EventKind.STATE, "mb-ann", what=WatchState.WATCHING.value)
    more = [Happening(later, Event(EventKind.NOTICED, "mb-ann", what="email"))] * EVENTS
    await site.database.run(write, [Happening(asked - timedelta(hours=1), held), *more])

    page = await site.get(f"/mailboxes/mb-ann?at={asked:%Y-%m-%dT%H:%M}")

    assert f"A Ping was held, since {asked - timedelta(hours=1):%Y-%m-%d %H:%M:%S}" in page


async def test_servers_in_maintenance_are_shown_though_relay_toml_names_them_no_more(site: Site) -> None:
    await site.login()
    await site.act("/console/servers/office/maintenance", on="on")
    site.console.process._servers = dict

    page = await site.get("/servers")
    ended = await site.act("/console/servers/office/maintenance", on="off")

    assert page.count("In maintenance since") == 1
    assert "is not in relay.toml" in page
    assert "names no mail server" in ended


async def test_an_egress_log_whose_folder_is_gone_cannot_be_read(site: Site, tmp_path: Path) -> None:
    await site.login()
    (tmp_path / "egress").rmdir()

    assert "The log cannot be read: No such file or directory" in await site.get("/egress")
    verified = await site.act("/console/egress/verify")
    assert "Nothing changed: the log cannot be read: No such file or directory" in verified


async def test_a_moment_of_the_timeline_is_judged(site: Site) -> None:
    await site.login()

    page = await site.get("/mailboxes/mb-ann?at=2026-11-24T08:00")

    assert "What the watch did then is not known" in page
    assert "No event is kept from then" in page
    assert "is in the future: it is 2026-11-24 08:30:15 UTC now" in await site.get(
        "/mailboxes/mb-ann?at=2026-11-24T08:31"
    )


async def test_a_page_without_the_database_says_so(site: Site) -> None:
    await site.login()
    site.store.away = True

    assert "The database does not answer" in await site.get("/servers", 503)


async def test_a_place_in_a_list_that_is_gone_leads_to_its_beginning(site: Site) -> None:
    await site.login()
    answer = await site.client.get("/console/mailboxes?cursor=gone", allow_redirects=False)

    assert (answer.status, answer.headers["Location"]) == (303, "/console/mailboxes")


async def test_a_flood_of_one_person_is_slowed_down(site: Site) -> None:
    await site.login()
    site.console._pace = Pace(1e-6, 3.0)  # a pace that no machine is so slow as to keep
    statuses = [(await site.client.get("/console/acts", allow_redirects=False)).status for _ in range(5)]

    assert statuses == [200, 200, 200, 200, 429], "what is left may go below zero once"


# --- through a proxy


async def test_a_proxy_names_people_and_the_settings_say_what_they_may(site: Site) -> None:
    site.console.take((), PROXY)
    helpdesk = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "staff,helpdesk"}
    site.client.session.headers.update(helpdesk)

    page = await site.get("/mailboxes/mb-ben")
    assert "proxy:ann" in page
    assert "Log out" not in page
    assert "Done: paused" in await site.act("/console/mailboxes/mb-ben/pause")
    [act] = await site.admin.acts(1)
    assert (act.who, act.via) == ("proxy:ann", "console")

    site.client.session.headers.update({"X-Forwarded-User": "eve", "X-Forwarded-Groups": ""})
    assert ">Resume<" not in await site.get("/mailboxes/mb-ben")
    site.client.session.headers["X-Forwarded-User"] = "mallory"
    assert "lacks the scope read" in await site.get("/mailboxes/mb-ben", 403)


async def test_nobody_but_the_proxy_is_believed(site: Site) -> None:
    site.console.take(TOKENS, replace(PROXY, peers=Proxies((ip_network("192.0.2.1"),))))

    await site.get("/mailboxes", 303, {"X-Forwarded-User": "eve"})
    await site.login()
    assert "helpdesk" in await site.get("/mailboxes", headers={"X-Forwarded-User": "eve"})


async def test_a_session_of_one_person_is_none_of_another(site: Site) -> None:
    site.console.take((), PROXY)
    site.client.session.headers["X-Forwarded-User"] = "eve"
    eves = await site.form_token()
    site.client.session.headers.update({"X-Forwarded-User": "ann", "X-Forwarded-Groups": "helpdesk"})

    assert (await site.post(f"{MAILBOX}/pause", form_token=eves)).status == 403
    assert await site.form_token() != eves


async def test_a_person_whom_a_proxy_names_gets_one_session(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site.console.take((), PROXY)
    site.client.session.headers["X-Forwarded-User"] = "eve"

    answer = await site.client.get("/console/login?to=/mailboxes", allow_redirects=False)

    assert answer.headers["Location"] == "/console/mailboxes"
    given = answer.cookies[COOKIE].value
    followed = await site.client.get("/console/mailboxes")
    assert (bool(given), COOKIE in followed.cookies) == (True, False)
    told = [record for record in caplog.records if record.message == "console login"]
    assert [getattr(record, "who", "") for record in told] == ["proxy:eve"]


async def test_the_start_page_leads_on(site: Site) -> None:
    answer = await site.client.get("/console", allow_redirects=False)

    assert answer.headers["Location"] == "/console/"
    await site.login()
    await site.get("/login", 303)


async def test_a_plot_shows_what_was_sampled(site: Site) -> None:
    await site.login()
    history = site.console.process.history
    history.accepted(0.4)
    history.sample()
    site.ops.clock.forward(15)
    history.sample()

    page = await site.get("/")

    assert page.count('<path class="line') == 6
    assert "Change to accepted: half: now \N{EN DASH}, least 512 ms" in page
