"""What the console shows of mail servers and providers, from the real parts of a process in many states."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from eas_watcher.breaker import Failure
from eas_watcher.errors import Unauthorized, Unreachable
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Doubt
from eas_watcher.reasons import Reason
from eas_watcher.runtime.context import FleetStats
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.idle_timeout import IdleTimeout, PathKnowledge
from relay.console.process import AccountRow, ProcessView, ServerRow
from relay.domain.model import Environment, Platform, RegistrationState, Role
from relay.domain.outcome import OutcomeKind, RetryLater
from relay.domain.ports.ops import OutboxLevel, TokenLevel
from relay.ops.counts import CountsCache
from relay.ops.health import Finding, Health, Part, PartState
from relay.push.fcm.config import FcmAccount
from relay.push.fcm.projects import Projects
from relay.push.stats import AccountState, ChannelFault, Outage, PushStats
from relay.push.webpush.services import Services
from tests.fakes.ops import NOON, HandClock, OpsCounts
from tests.unit.relay.push.pushes import due_push

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
FOUND = "https://other.example.com/Microsoft-Server-ActiveSync"
MINE = Environment.PRODUCTION


@dataclass
class Parts:
    """The parts of a process, which a test sets."""

    clock: HandClock = field(default_factory=HandClock)
    store: OpsCounts = field(default_factory=OpsCounts)
    fleet: FleetStats = field(default_factory=FleetStats)
    admissions: dict[str, ServerAdmission] = field(default_factory=dict)
    apns: PushStats = field(default_factory=PushStats)
    webpush: PushStats = field(default_factory=PushStats)
    accounts: list[AccountState] = field(default_factory=list)
    fcm: PushStats = field(default_factory=PushStats)
    projects: Projects | None = None
    services: Services = field(default_factory=lambda: Services(10, Random(1)))
    parts: list[Part] = field(default_factory=list)

    async def view(self, role: Role = Role.ALL) -> ProcessView:
        counts = CountsCache(self.store, self.clock)
        await counts.refresh()
        return ProcessView(
            role=role,
            version="1.2.3",
            health=Health(self.parts, self.clock),
            counts=counts,
            fleet=self.fleet,
            servers=lambda: {"main": URL},
            admissions=self.admissions.items,
            connections={URL: lambda: {"http/1.1": (0, 0), "h2": (2, 150)}},
            pushes={Platform.APNS: self.apns, Platform.FCM: self.fcm, Platform.WEBPUSH: self.webpush},
            accounts=lambda: self.accounts,
            services=lambda: self.services,
            projects=lambda: self.projects,
            clock=self.clock,
        )


@pytest.fixture
def parts() -> Parts:
    return Parts()


def facts(row: ServerRow) -> dict[str, str]:
    return {each.name: each.value for each in row.facts}


def admission(parts: Parts, path: PathKnowledge | None = None) -> ServerAdmission:
    return ServerAdmission(100.0, 10, Random(1), parts.clock, path)


async def test_a_server_nobody_has_asked_is_named_with_its_connections(parts: Parts) -> None:
    [row] = (await parts.view()).servers()

    assert (row.name, row.url, row.words, row.since) == ("main", URL, "", None)
    assert facts(row) == {"Connections over HTTP/2": "2"}


async def test_a_server_shows_what_was_learnt_of_it(parts: Parts) -> None:
    cut = IdleTimeout(290, 310)
    parts.admissions[URL] = admission(parts, PathKnowledge(Heartbeat(240), (), cut))
    parts.admissions[FOUND] = admission(parts)

    main, found = (await parts.view()).servers(maintained={"main": NOON})

    assert (main.state, main.words, main.maintained) == (PartState.OK, "serves", NOON)
    assert facts(main)["Learnt heartbeat"] == "4 min"
    assert facts(main)["Pings are cut after"] == "5 min"
    assert "an idle timeout of 300 s lies on the path" in main.remarks[0]
    assert (found.name, found.url, found.maintained) == ("", FOUND, None)
    assert facts(found)["Learnt heartbeat"] == "\N{EN DASH}"


async def test_a_server_that_is_away_says_why(parts: Parts) -> None:
    away = parts.admissions[URL] = admission(parts)
    for number in range(10):
        client = ClientAdmission(mailbox=number)
        await away.enter(client)
        away.failed(client, Unreachable("connection refused"))
        away.leave(client)
        if away.state == "away":
            break

    [row] = (await parts.view()).servers()

    assert row.state is PartState.FAILED
    assert row.words.startswith("away: ")


async def test_a_server_that_refuses_many_has_failed_whatever_else_it_does(parts: Parts) -> None:
    refusing = parts.admissions[URL] = admission(parts)
    refusing.capacity.watched = 40
    for number in range(5):
        client = ClientAdmission(mailbox=number)
        await refusing.enter(client)
        refusing.failed(client, Unauthorized("no"))

    [row] = (await parts.view()).servers()

    assert row.state is PartState.FAILED
    assert row.words == "refuses many credentials at once; otherwise its mailboxes start"


async def test_a_server_shows_credentials_in_doubt_and_what_it_polls(parts: Parts) -> None:
    crowded = parts.admissions[URL] = admission(parts)
    crowded.capacity.watched, crowded.capacity.limit = 36, 5

    async def nothing() -> None:
        return None

    waiting = asyncio.ensure_future(crowded.doubtful.wait("ann", 3600.0, Doubt(1800.0), nothing))
    await asyncio.sleep(0)
    [row] = (await parts.view()).servers()
    waiting.cancel()

    assert facts(row)["Credentials in doubt"] == "1"
    assert facts(row)["Polled, it holds no more"] == "31"
    assert "main holds about 5 Pings at once" in row.remarks[0]


async def test_maintenance_is_known_from_the_database(parts: Parts) -> None:
    parts.store.maintenance["main"] = NOON

    [row] = (await parts.view(Role.WATCH)).servers()

    assert row.maintained == NOON


async def test_a_role_that_does_not_watch_knows_no_server(parts: Parts) -> None:
    parts.admissions[URL] = admission(parts)

    view = await parts.view(Role.PUSH)

    assert [row.words for row in view.servers()] == [""]
    assert (view.watches, view.pushes) == (False, True)
    assert [plot.title for plot in view.overview(day=False).plots] == ["Pushes a minute", "Change to accepted"]


async def test_a_provider_shows_its_troubles_and_rates(parts: Parts) -> None:
    parts.store.levels[Platform.APNS] = OutboxLevel(7, NOON - timedelta(minutes=3), 1)
    parts.store.token_levels.append(TokenLevel(Platform.APNS, "mail", MINE, "BadDeviceToken", "register again", 4))
    view = await parts.view()
    parts.apns.outcomes.update({OutcomeKind.DELIVERED: 3, OutcomeKind.REFUSED: 1})
    parts.apns.outages[MINE] = Outage(MINE, "503", "wait", NOON)
    parts.apns.faults["mail", MINE] = ChannelFault("mail", MINE, "InvalidProviderToken", "give the right key", NOON)
    parts.webpush.doubts[MINE] = Outage(MINE, "500", "", NOON)
    view.history.sample()

    apns, _, webpush = view.providers()

    assert (apns.title, apns.state) == ("APNs", PartState.FAILED)
    assert {each.name: each.value for each in apns.facts} == {
        "Accepted a minute": "12",
        "Not accepted": "25 %",
        "Under way": "0",
        "Wait": "7",
    }
    assert [(each.name, each.value) for each in apns.outcomes] == [("delivered", "3"), ("refused", "1")]
    assert (apns.outages[0].reason, apns.faults[0].reason) == ("503", "InvalidProviderToken")
    assert apns.refused == (("mail", "production", 4, "BadDeviceToken", "register again"),)
    parts.apns.doubts[MINE] = Outage(MINE, "503", "wait", NOON)
    assert view.providers()[0].doubts == ()  # the outage says it already
    assert (webpush.state, webpush.doubts[0].reason, webpush.services) == (PartState.DEGRADED, "500", ())


async def test_an_account_at_apple_shows_its_own_trouble_and_that_of_its_apps(parts: Parts) -> None:
    both, sandbox = tuple(Environment), Environment.SANDBOX
    parts.accounts += [
        AccountState("apns", ("mail",), (MINE,), 3, "", ""),
        AccountState("apns.accounts.test", ("mail",), (sandbox,), 0, "", ""),
        AccountState("apns.accounts.other", ("notes", "tasks"), both, 0, "tls-failed", "check the port"),
    ]
    parts.apns.faults["mail", sandbox] = ChannelFault("mail", sandbox, "BadCertificate", "give the right one", NOON)
    view = await parts.view()

    assert view.providers()[0].accounts == (
        AccountRow("apns", ("mail (production)",), "", "", 3),
        AccountRow("apns.accounts.test", ("mail (sandbox)",), "BadCertificate", "give the right one", 0),
        AccountRow("apns.accounts.other", ("notes", "tasks"), "tls-failed", "check the port", 0),
    )
    parts.apns.outages[MINE] = Outage(MINE, "503", "wait", NOON)
    assert [row.trouble for row in view.providers()[0].accounts] == ["503", "BadCertificate", "tls-failed"]


async def test_a_firebase_project_that_rests_says_why(parts: Parts) -> None:
    tables = ("fcm", "fcm.accounts.other")
    accounts = [FcmAccount(frozenset({f"app-of-{table}"}), Path("x.json"), table) for table in tables]
    projects = parts.projects = Projects(accounts, 20, Random(1))
    for number in range(10):
        push = due_push(number)
        if projects.admit("fcm", push, 0.0) is None:
            projects.ended("fcm", push, RetryLater("timed-out", remedy="wait"), 0.0, of_project=True)

    rests, serves = (await parts.view()).providers()[1].accounts

    assert rests == AccountRow("fcm", ("app-of-fcm",), "timed-out", "wait", 0)
    assert (serves.trouble, serves.remedy) == ("", "")


async def test_push_services_show_whether_they_are_away(parts: Parts) -> None:
    now = asyncio.get_running_loop().time()
    for service, status in (("good.example.com", 201), ("bad.example.com", None)):
        for number in range(5):
            push, device = object(), bytes([number])
            if parts.services.admit(service, push, device, now) is not None:
                break
            if status is None:
                parts.services.failed(service, push, device, Failure("connection refused"), now)
            else:
                parts.services.answered(service, push, device, status, now)
            parts.services.ended(service, push, now)
    view = await parts.view()

    bad, good = view.providers()[2].services

    assert (bad.away, bad.reason, bad.accepted_at) == (True, "connection refused", None)
    assert (good.away, good.under_way) == (False, 0)
    assert good.accepted_at is not None
    assert view.seconds_since(good.accepted_at) >= 0


async def test_the_overview_has_the_worst_first_and_counts(parts: Parts) -> None:
    parts.parts += [
        Part("b", Finding),
        Part("a", lambda: Finding(PartState.DEGRADED, "late", "wait")),
        Part("c", lambda: Finding(PartState.FAILED, "broken", "repair")),
    ]
    parts.fleet.held.update({"mb-ann": 60.0})  # type: ignore[dict-item]  # any text is an id
    parts.store.mailboxes = {(WatchState.WATCHING, None): 5, (WatchState.WAITING, Reason.UNREACHABLE): 2}
    parts.store.registrations = {(Platform.APNS, RegistrationState.ACTIVE): 6}
    parts.store.levels[Platform.APNS] = OutboxLevel(1, NOON - timedelta(minutes=4), 0)

    overview = (await parts.view()).overview(day=True)

    assert overview.state is PartState.FAILED
    assert [report.part for report in overview.reports] == ["c", "a", "b"]
    shown = {each.name: (each.value, each.note) for each in overview.figures}
    assert shown["Pings held"] == ("1", "")
    assert shown["Mailboxes watched"] == ("5", "of 7")
    assert shown["Pushes that wait"] == ("1", "the oldest for 4 min")
    assert [(state, reason, count) for state, reason, count, _ in overview.mailboxes] == [
        ("watching", "", 5),
        ("waiting", "unreachable", 2),
    ]
    assert overview.mailboxes[1][3]
