from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from eas_watcher.breaker import Failure
from relay.domain.model import Environment, Platform
from relay.domain.outcome import RetryLater
from relay.domain.ports.ops import OutboxLevel, TokenLevel
from relay.domain.shadow import PushMode, Shadow
from relay.ops import push_checks
from relay.ops.counts import CountsCache
from relay.ops.health import OK, Finding, PartState
from relay.push.breaker import IN_A_ROW
from relay.push.egress.keeping import Incident
from relay.push.fcm.config import FcmAccount
from relay.push.fcm.projects import Projects
from relay.push.stats import ChannelFault, Outage, PushStats
from relay.push.webpush.services import Services
from tests.fakes.metrics import QuietEgress
from tests.fakes.ops import NOON, HandClock, OpsCounts
from tests.unit.relay.push.pushes import due_push

APP = "com.example.mail"
PRODUCTION, SANDBOX = Environment.PRODUCTION, Environment.SANDBOX


async def test_a_channel_fault_names_app_reason_and_remedy() -> None:
    clock, stats = HandClock(), PushStats()
    part = push_checks.provider(Platform.APNS, stats, CountsCache(OpsCounts(), clock), clock)
    assert (part.name, part.check()) == ("apns", OK)

    fault = ChannelFault("com.example.mail", Environment.SANDBOX, "BadTopic", "check apns.topics", NOON)
    stats.faults[fault.app, fault.environment] = fault

    finding = part.check()
    assert finding.state is PartState.FAILED
    assert finding.reason == "cannot push to com.example.mail (sandbox): BadTopic"
    assert finding.remedy == "Check apns.topics."


def test_health_says_which_pushes_shadow_mode_holds_back_and_is_well() -> None:
    shadow = Shadow(PushMode(shadow=True, live_servers=frozenset({"main"})))
    part = push_checks.push_mode(shadow)

    finding = part.check()
    assert (part.name, finding.state) == ("push mode", PartState.OK)
    assert finding.reason.startswith("shadow: no push of new items leaves but for mail servers main;")
    assert finding.remedy == "Set push.mode = live when phones shall get pushes."

    shadow.follow(PushMode(), NOON)
    assert part.check() == OK


async def test_pushes_that_wait_long_degrade_their_provider_alone() -> None:
    clock = HandClock()
    store = OpsCounts(
        levels={
            Platform.APNS: OutboxLevel(7, NOON - timedelta(minutes=9), 3),
            Platform.FCM: OutboxLevel(7, NOON - timedelta(minutes=4), 0),
        }
    )
    cache = CountsCache(store, clock)
    await cache.refresh()

    apns = push_checks.provider(Platform.APNS, PushStats(), cache, clock).check()

    assert apns.state is PartState.DEGRADED
    assert apns.reason == "7 pushes wait, the oldest for 9 minutes, 3 have failed before"
    assert push_checks.provider(Platform.FCM, PushStats(), cache, clock).check() == OK

    few = PushStats()
    few.doubts[Environment.PRODUCTION] = Outage(Environment.PRODUCTION, "InternalServerError", "only wait", NOON)
    apns = push_checks.provider(Platform.APNS, few, cache, clock).check()
    assert apns.reason.endswith(
        "3 have failed before; no push is taken since 2026-11-24 12:00 UTC: InternalServerError"
    )
    assert apns.remedy == "Only wait."


async def test_parked_pushes_degrade_their_provider() -> None:
    clock = HandClock()
    cache = CountsCache(OpsCounts(levels={Platform.APNS: OutboxLevel(0, None, 0, parked=2)}), clock)
    await cache.refresh()

    finding = push_checks.provider(Platform.APNS, PushStats(), cache, clock).check()

    assert (finding.state, finding.reason) == (PartState.DEGRADED, "2 pushes are set aside")


@pytest.mark.parametrize(
    ("remedy", "told"),
    [("open port 443", "Open port 443."), ("", "Check that the host of the push process reaches APNS")],
)
async def test_an_outage_names_environment_reason_and_remedy(remedy: str, told: str) -> None:
    clock, stats = HandClock(), PushStats()
    stats.outages[PRODUCTION] = Outage(PRODUCTION, "connection-refused", remedy, NOON)

    finding = push_checks.provider(Platform.APNS, stats, CountsCache(OpsCounts(), clock), clock).check()

    assert finding.state is PartState.FAILED
    assert finding.reason == "serves nobody (production) since 2026-11-24 12:00 UTC: connection-refused"
    assert told in finding.remedy


async def judge(*levels: tuple[str, Environment, str, int]) -> Finding:
    found = [
        TokenLevel(Platform.APNS, app, where, reason, "look" if reason else "", n) for app, where, reason, n in levels
    ]
    other = TokenLevel(Platform.FCM, "other", PRODUCTION, "SENDER_ID_MISMATCH", "no matter here", 9)
    cache = CountsCache(OpsCounts(token_levels=[*found, other]), HandClock())
    assert push_checks.tokens(Platform.APNS, cache).check() == OK
    await cache.refresh()
    return push_checks.tokens(Platform.APNS, cache).check()


async def test_accepted_tokens_are_no_fault() -> None:
    assert await judge((APP, PRODUCTION, "", 100)) == OK


async def test_a_few_refused_tokens_are_a_hint() -> None:
    finding = await judge((APP, PRODUCTION, "", 97), (APP, PRODUCTION, "BadDeviceToken", 3))

    text = f"3 of 100 registrations of {APP} (production) are refused, most: BadDeviceToken"
    assert finding == Finding(PartState.OK, text, "Look.")


async def test_many_refused_tokens_degrade_and_most_of_them_fail() -> None:
    some = await judge((APP, PRODUCTION, "", 90), (APP, PRODUCTION, "Bad", 4), (APP, PRODUCTION, "Worse", 6))
    most = await judge((APP, PRODUCTION, "", 9), (APP, PRODUCTION, "Bad", 9), ("other", PRODUCTION, "", 900))

    assert some.state is PartState.DEGRADED
    assert some.reason == f"10 of 100 registrations of {APP} (production) are refused, most: Worse"
    assert most.state is PartState.FAILED
    assert most.reason == f"9 of 18 registrations of {APP} (production) are refused, most: Bad"


@pytest.mark.parametrize(
    ("environment", "words"),
    [(PRODUCTION, "register with environment = sandbox"), (SANDBOX, "environment = production")],
)
async def test_an_environment_whose_tokens_are_all_refused_is_the_wrong_one(
    environment: Environment, words: str
) -> None:
    finding = await judge((APP, environment, "BadDeviceToken", 12))

    assert finding.state is PartState.FAILED
    assert finding.reason == f"all 12 {environment.value} tokens of {APP} are refused: BadDeviceToken"
    assert words in finding.remedy
    assert finding.remedy.endswith(" Look.")


async def test_a_single_refused_phone_fails_nothing() -> None:
    assert (await judge((APP, SANDBOX, "DeviceTokenNotForTopic", 1))).state is PartState.DEGRADED


def test_a_process_is_of_no_use_when_every_channel_of_every_provider_has_a_fault() -> None:
    apns, fcm, unused = PushStats(), PushStats(), PushStats()
    part = push_checks.channels([apns, fcm, unused], essential=True)
    assert part.essential
    assert part.check() == OK

    fcm.channels.add((APP, PRODUCTION))
    for stats in (apns, fcm):
        assert part.check() == OK
        fault = ChannelFault(APP, PRODUCTION, "InvalidProviderToken", "look", NOON)
        stats.faults[APP, PRODUCTION] = fault
        stats.channels.add((APP, PRODUCTION))
    assert part.check().state is PartState.FAILED

    fcm.faults.clear()
    assert part.check() == OK
    assert push_checks.channels([], essential=False).check() == OK


def test_a_push_service_that_is_away_degrades_and_all_of_them_fail() -> None:
    services = Services(100, Random(1))
    part = push_checks.push_services(services)
    for name in ("a.example.com", "b.example.com"):
        services.admit(name, "push", b"device", 0.0)
    assert (part.name, part.check()) == ("push services", OK)

    for device in (b"1", b"2", b"3"):
        failure = Failure("name-not-resolved")
        services.failed("a.example.com", device, device, failure, 0.0, remedy="check the name")

    finding = part.check()
    assert (finding.state, finding.remedy) == (PartState.DEGRADED, "Check the name.")
    assert finding.reason == "a.example.com is away or refuses: name-not-resolved"
    for device in (b"1", b"2", b"3"):
        services.failed("b.example.com", device, device, Failure("http-503"), 0.0)
    assert part.check().state is PartState.FAILED


def test_the_egress_log_shows_what_stops_pushes_who_changed_it_and_its_room() -> None:
    egress, clock = QuietEgress(), HandClock()
    part = push_checks.egress_log(egress, 256_000_000, clock, essential=True)
    assert (part.name, part.essential, part.check()) == ("egress log", True, OK)

    egress.free = 255_999_999
    assert part.check().reason == "its disk has 255 MB left"
    egress.incident = Incident(clock().isoformat(), "egress-000001.jsonl was cut")
    found = part.check()
    assert (found.state, found.reason.rpartition(": ")[2]) == (PartState.DEGRADED, "egress-000001.jsonl was cut")
    egress.trouble = "No space left on device"
    found = part.check()
    assert (found.state, found.reason) == (
        PartState.FAILED,
        "cannot be written, so no push leaves: No space left on device",
    )

    egress.trouble, egress.free = "", None
    clock.now += push_checks.SHOWN
    assert part.check() == OK


def test_a_firebase_project_that_rests_degrades_and_all_of_them_fail() -> None:
    tables = ("fcm", "fcm.accounts.other")
    accounts = [FcmAccount(frozenset({f"com.example.{table[-3:]}"}), Path("x.json"), table) for table in tables]
    projects = Projects(accounts, 20, Random(1))
    part = push_checks.fcm_projects(projects)
    assert (part.name, part.check()) == ("fcm projects", OK)

    def fail(table: str, outcome: RetryLater) -> None:
        for number in range(IN_A_ROW):
            assert projects.admit(table, due_push(number), 0.0) is None
            projects.ended(table, due_push(number), outcome, 0.0, of_project=True)

    fail("fcm.accounts.other", RetryLater("timed-out"))
    reason = "[fcm.accounts.other] takes no push, for com.example.her: timed-out"
    remedy = "Check that the host of the push process reaches FCM: firewall, proxy, DNS."
    assert part.check() == Finding(PartState.DEGRADED, reason, remedy)

    fail("fcm", RetryLater("http-503", remedy="only wait"))
    finding = part.check()
    assert (finding.state, finding.remedy) == (PartState.FAILED, "Only wait.")
    assert finding.reason == f"[fcm] takes no push, for com.example.fcm: http-503; {reason}"
