"""The whole watcher against the simulated server, over TLS: the journal gets exactly the items that arrived.

Scenarios that every kind of server can play run with each family of servers.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from eas_watcher.machine.memory import Change, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, ProtocolVersion
from eas_watcher.reasons import Reason
from relay.sandbox.eas.failures import AnswerHttp, AnswerStatus, Cut, Delay, Failure, FailurePlan, Garble, Stall
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import Family
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.simulator import EasSimulator
from tests.integration.eas_world import ANN, ONE_MAIL, OVER_HTTP_2, PASSWORD, hurried, hurry, world
from tests.waiting import until

each_family = pytest.mark.parametrize("family", list(FAMILIES))


def each_failure(*failures: Failure) -> pytest.MarkDecorator:
    """Play each failure with each family; all but one pair for each failure, of a family in turn, are slow tests."""
    pairs = [
        pytest.param(
            failure, family, id=f"{failure!r}-{family}", marks=() if turn % len(FAMILIES) == place else pytest.mark.slow
        )
        for turn, failure in enumerate(failures)
        for place, family in enumerate(FAMILIES)
    ]
    return pytest.mark.parametrize(("failure", "family"), pairs)


@pytest.mark.parametrize(
    ("family", "version"), [(name, version) for name, rules in FAMILIES.items() for version in rules.versions]
)
@hurried
async def test_a_delivered_mail_is_one_committed_change(family: Family, version: ProtocolVersion) -> None:
    async with world(Policy(versions=(version,)), FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.ann.conditions[-1].state is WatchState.WATCHING
        assert watched.ann.partnership.version is version


@hurried
async def test_the_highest_version_that_both_speak_is_taken() -> None:
    rules = EasRules(versions=(ProtocolVersion.V12_1, ProtocolVersion.V14_1))
    async with world(rules=rules) as watched:
        watched.start()
        await watched.until_held()

        assert watched.ann.partnership.version is ProtocolVersion.V14_1


@each_family
@hurried
async def test_a_backlog_of_several_windows_is_not_news(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        for number in range(250):
            watched.simulator.deliver(ANN, subject=f"Old {number}")
        watched.start()
        await watched.until_held()
        assert watched.sent("Sync") >= 4
        watched.simulator.deliver(ANN)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == [Change(CollectionClass.EMAIL, 2)]


@each_family
@hurried
async def test_read_flags_and_deletes_are_no_news(family: Family) -> None:
    any_change_wakes = FAMILIES[family].any_change_wakes
    async with world(rules=FAMILIES[family]) as watched:
        first, second = watched.simulator.deliver(ANN), watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_held()
        watched.simulator.mark_read(ANN, first)
        if any_change_wakes:
            await watched.until_held(pings=2)
        watched.simulator.delete(ANN, second)
        if any_change_wakes:
            await watched.until_held(pings=3)
        else:
            assert watched.sent("Ping") == 1
        assert watched.ann.changes == []
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_a_mail_that_was_read_elsewhere_already_is_no_news(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN, read=True)
        await watched.until_held(pings=2)

        assert watched.ann.changes == []


@each_failure(
    Cut(),
    Cut(applied=True),
    Garble(),
    Delay(3.0),
    AnswerHttp(503, {"Retry-After": "1.5"}),
    AnswerHttp(500),
    AnswerHttp(200),
    AnswerHttp(200, {"Content-Type": "text/html"}, "<html>Sign in</html>"),
    AnswerHttp(449),
    AnswerHttp(401, {"WWW-Authenticate": "Basic"}),
    AnswerStatus(5),
    AnswerStatus(16),
    AnswerStatus(111),
    AnswerStatus(142),
)
@hurried
async def test_a_mail_survives_whatever_happens_to_the_sync_that_fetches_it(failure: Failure, family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.fail(ANN, FailurePlan(failure, "Sync"))
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@each_failure(
    Cut(applied=True),
    Garble(),
    AnswerHttp(200),
    AnswerHttp(502, {"Content-Type": "text/html"}, "<html>Bad gateway</html>"),
    AnswerStatus(1),
    AnswerStatus(2),
    AnswerStatus(3),
    AnswerStatus(7),
    AnswerStatus(8),
    AnswerStatus(111),
)
@hurried
async def test_a_mail_survives_whatever_happens_to_the_ping(failure: Failure, family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.fail(ANN, FailurePlan(failure, "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") >= 1)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_a_ping_that_was_lost_without_a_word_is_given_up(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.fail(ANN, FailurePlan(Stall(), "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") == 1)
        watched.simulator.deliver(ANN)
        hurry(600 * 1.1 + 31)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_mail_that_came_while_nobody_watched_is_told_after_the_restart(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        await watched.stop()
        await until(lambda: watched.simulator.held == 0)
        watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("OPTIONS") == 1


@pytest.mark.parametrize("family", [name for name, rules in FAMILIES.items() if not rules.personality.deaf])
@hurried
async def test_lost_sync_keys_lose_no_mail_and_repeat_none(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.deliver(ANN, subject="Old")
        watched.start()
        await watched.until_held()
        watched.simulator.lose_state(ANN)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_lost_keys_flood_nobody_and_are_not_primed_at_once_a_second_time_within_the_hour() -> None:
    classes = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})
    uncertain = Change(CollectionClass.CALENDAR, 1, certain=False)
    async with world(classes=classes) as watched:
        for number in range(60):
            watched.simulator.deliver(ANN, subject=f"Unread {number}")
        watched.simulator.deliver(ANN, CollectionClass.CALENDAR)
        watched.start()
        await watched.until_held()

        watched.simulator.lose_state(ANN)
        watched.simulator.deliver(ANN, CollectionClass.CALENDAR)
        await watched.until_changed()
        # No mail is newer than the known ones: only an item without a date may be new.
        assert watched.ann.changes == [uncertain]
        assert [condition.state for condition in watched.ann.conditions] == [WatchState.WATCHING]

        watched.ann.changes.clear()
        watched.simulator.lose_state(ANN)
        watched.simulator.deliver(ANN)
        watched.simulator.deliver(ANN)
        await until(lambda: watched.ann.conditions[-1].state is WatchState.WAITING)
        assert watched.ann.conditions[-1].reason == "stale-key"
        assert (watched.ann.conditions[-1].retry_in or 0.0) >= 100.0
        assert watched.ann.changes == []
        await watched.until_changed()
        assert sorted(watched.ann.changes, key=lambda change: change.cls) == [
            uncertain,
            Change(CollectionClass.EMAIL, 2),
        ]


@pytest.mark.parametrize("family", [name for name, rules in FAMILIES.items() if rules.personality.reports_folders])
@hurried
async def test_a_lost_hierarchy_key_loses_no_mail_and_repeats_none(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.deliver(ANN, subject="Old")
        watched.start()
        await watched.until_held()
        before = watched.sent("FolderSync")
        watched.simulator.lose_state(ANN)
        watched.simulator.add_folder(ANN, "Projects")
        await watched.until_held(pings=2)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("FolderSync") == before + 2  # status 9, then key 0


@pytest.mark.parametrize("family", [name for name, rules in FAMILIES.items() if rules.personality.reports_folders])
@hurried
async def test_a_new_folder_is_read_and_changes_nothing_else(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        folder = watched.simulator.add_folder(ANN, "Projects")
        await watched.until_held(pings=2)
        watched.simulator.deliver(ANN, folder=folder)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("FolderSync") == 2


@pytest.mark.parametrize(
    ("family", "version"),
    [(name, version) for name, rules in FAMILIES.items() if rules.policy for version in rules.versions],
)
@pytest.mark.parametrize("order", [EasSimulator.refresh_policy, EasSimulator.forget_policy])
@hurried
async def test_a_new_policy_is_acknowledged_and_the_mail_arrives(
    family: Family, version: ProtocolVersion, order: Callable[[EasSimulator, str], None]
) -> None:
    async with world(Policy(versions=(version,)), FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        provisions = watched.sent("Provision")
        order(watched.simulator, ANN)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("Provision") == provisions + 2


@hurried
async def test_policies_that_come_again_and_again_are_taken_three_times_an_hour_then_hourly() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        for pings in (2, 3):
            watched.simulator.refresh_policy(ANN)
            watched.simulator.deliver(ANN)
            await watched.until_held(pings)
        keys = watched.sent("Provision")
        assert keys == 6  # two requests for each
        watched.simulator.refresh_policy(ANN)
        watched.simulator.deliver(ANN)
        await until(lambda: watched.ann.conditions[-1].reason == "policy-loop")
        assert watched.ann.conditions[-1].state is WatchState.WAITING
        hurry(3500.0)
        await watched.until_idle()
        assert watched.sent("Provision") == keys
        hurry(600.0)
        await watched.until_held(pings=4)
        assert watched.sent("Provision") == keys + 2
        assert sum(change.count for change in watched.ann.changes) == 3

        watched.simulator.refresh_policy(ANN)
        watched.simulator.deliver(ANN)
        await until(lambda: watched.ann.conditions[-1].reason == "policy-loop")
        assert watched.sent("Provision") == keys + 2


@hurried
async def test_a_server_without_a_policy_is_watched_without_a_key() -> None:
    async with world(rules=EasRules(policy=False)) as watched:
        watched.start()
        await watched.until_held()

        assert watched.sent("Provision") == 1
        assert watched.ann.partnership.policy_key is None


@each_family
@hurried
async def test_a_wipe_ends_the_watch_for_good(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.wipe(ANN)
        watched.simulator.deliver(ANN)
        await until(lambda: not watched.fleet)

        assert watched.ann.conditions[-1].state is WatchState.WIPED
        assert watched.ann.changes == []
        (device,) = watched.simulator.devices(ANN)
        assert device.wipe is None


@each_family
@hurried
async def test_a_blocked_device_is_not_asked_for_again_within_the_hour(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.block(ANN)
        await until(lambda: watched.ann.conditions[-1].state is WatchState.BLOCKED)
        asked = len(watched.simulator.log(ANN))
        hurry(3000)
        await asyncio.sleep(0.05)
        assert len(watched.simulator.log(ANN)) == asked
        watched.simulator.block(ANN, blocked=False)
        watched.simulator.deliver(ANN)
        hurry(22000)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_the_heartbeat_that_the_server_allows_is_adopted(family: Family) -> None:
    async with world(rules=replace(FAMILIES[family], heartbeat_maximum=300)) as watched:
        watched.start()
        if FAMILIES[family].personality.late_limit:
            await watched.until_held()
            hurry(310)
        await watched.until_held(pings=2)
        hurry(310)
        await watched.until_held(pings=3)

        assert watched.sent("Ping") == 3
        assert watched.ann.changes == []


@hurried
async def test_a_device_in_quarantine_is_suspected_after_hours_and_hears_of_its_mail_once_it_is_allowed() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        assert watched.ann.conditions[-1].reason == "perhaps-in-discovery"
        watched.simulator.quarantine(ANN)
        watched.simulator.deliver(ANN)
        for _ in range(30):
            if watched.ann.conditions[-1].reason == "perhaps-quarantined":
                break
            pings = watched.sent("Ping")
            (device,) = watched.simulator.devices(ANN)
            assert device.ping is not None
            hurry(device.ping.heartbeat + 1.0)
            await watched.until_held(pings + 1)
        assert [condition.reason for condition in watched.ann.conditions] == [
            "perhaps-in-discovery",
            None,
            "perhaps-quarantined",
        ]
        assert {condition.state for condition in watched.ann.conditions} == {WatchState.WATCHING}
        watched.simulator.quarantine(ANN, quarantined=False)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.ann.conditions[-1].reason is None


@pytest.mark.parametrize("failure", [Cut(seconds=100.0), AnswerHttp(504, seconds=100.0)], ids=["cut", "504"])
@each_family
@hurried
async def test_an_idle_timeout_on_the_way_shortens_the_heartbeat(failure: Failure, family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.fail(ANN, FailurePlan(failure, "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") == 1)
        hurry(100.0)
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        (device,) = watched.simulator.devices(ANN)

        assert device.ping is not None
        assert 60 <= device.ping.heartbeat <= 76
        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_a_server_that_tells_its_limit_late_is_believed(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.fail(ANN, FailurePlan(AnswerStatus(5, seconds=300.0, heartbeat=300), "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") == 1)
        watched.simulator.deliver(ANN)
        hurry(300.0)
        await watched.until_changed()
        (device,) = watched.simulator.devices(ANN)

        assert device.ping is not None
        assert device.ping.heartbeat == 300
        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_all_classes_are_watched_in_one_ping(family: Family) -> None:
    async with world(rules=FAMILIES[family], classes=frozenset(CollectionClass)) as watched:
        watched.start()
        await watched.until_held()
        for cls in CollectionClass:
            watched.simulator.deliver(ANN, cls)
        await until(lambda: len(watched.ann.changes) == len(CollectionClass))

        assert {change.cls for change in watched.ann.changes} == set(CollectionClass)


@each_family
@hurried
async def test_a_ping_with_too_many_folders_keeps_the_inbox(family: Family) -> None:
    async with world(rules=replace(FAMILIES[family], max_folders=2), classes=frozenset(CollectionClass)) as watched:
        watched.start()
        await watched.until_held(pings=2)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@each_family
@hurried
async def test_a_wrong_password_is_tried_once_and_confirmed_sparingly(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start(password="wrong")
        for requests, wait in ((1, 60.0), (2, 900.0)):
            await until(lambda requests=requests: len(watched.ann.conditions) == requests)  # type: ignore[misc]
            assert len(watched.simulator.log(ANN)) == requests
            hurry(wait - 1.0)
            await asyncio.sleep(0.05)
            assert len(watched.simulator.log(ANN)) == requests
            hurry(2.0 + wait * 0.1)
        await until(lambda: len(watched.ann.conditions) == 3)

        first, second, third = (logged.moment for logged in watched.simulator.log(ANN))
        assert 60.0 <= second - first <= 70.0
        assert 900.0 <= third - second <= 1000.0
        assert watched.simulator.records.refusals == {ANN: 3}
        last = watched.ann.conditions[-1]
        assert (last.state, last.reason) == (WatchState.WAITING, Reason.HTTP_401_DOUBTFUL)


@each_family
@hurried
async def test_a_password_changed_on_the_server_stops_the_watch_until_it_is_confirmed(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.add_mailbox(ANN, "changed")
        watched.simulator.deliver(ANN)
        await until(lambda: watched.simulator.records.refusals[ANN] == 1)
        await asyncio.sleep(0.05)
        assert watched.simulator.records.refusals[ANN] == 1
        watched.simulator.add_mailbox(ANN, PASSWORD)
        hurry(67.0)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name is Family.EXCHANGE else pytest.mark.slow) for name in FAMILIES]
)
@hurried
async def test_a_hundred_mailboxes_hold_one_ping_each_and_lose_nothing(family: Family) -> None:
    users = [f"user{number}@example.com" for number in range(100)]
    async with world(rules=replace(FAMILIES[family], any_password=PASSWORD)) as watched:
        for user in users:
            watched.start(user)
        await until(lambda: watched.simulator.held == len(users))
        for user in users:
            watched.simulator.deliver(user)
        kept = watched.journal.kept
        await until(lambda: sum(len(each.changes) for each in kept.values()) == len(users))
        await until(lambda: watched.simulator.held == len(users))

        assert all(each.changes == ONE_MAIL for each in kept.values())
        assert watched.simulator.records.max_held == len(users)
        assert set(watched.simulator.ping_answered_at) == set(users)


@pytest.mark.parametrize("command", ["Sync", "Ping"])
async def test_a_kept_connection_that_was_closed_without_a_word_costs_no_wait(command: str) -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.fail(ANN, FailurePlan(Cut(), command))
        watched.simulator.deliver(ANN)
        await until(lambda: watched.ann.changes == ONE_MAIL and watched.simulator.held == 1)
        watched.simulator.deliver(ANN)
        await until(lambda: len(watched.ann.changes) == 2 and watched.simulator.held == 1)

        assert all(condition.state is WatchState.WATCHING for condition in watched.ann.conditions)


@hurried
async def test_mailboxes_share_a_connection_over_http_2_and_return_to_it_when_it_was_lost() -> None:
    OVER_HTTP_2.set(True)
    users = [f"user{number}@example.com" for number in range(20)]
    async with world(rules=replace(FAMILIES[Family.EXCHANGE], any_password=PASSWORD)) as watched:
        for user in users:
            watched.start(user)
        await until(lambda: watched.simulator.held == len(users))
        assert watched.simulator.connections.http2.shares == [len(users)]
        watched.simulator.connections.drop()
        await until(lambda: watched.simulator.held == 0)
        for user in users:
            watched.simulator.deliver(user)
        kept = watched.journal.kept
        for _ in range(400):
            if all(each.changes for each in kept.values()) and watched.simulator.held == len(users):
                break
            hurry(0.5)
            await asyncio.sleep(0.01)

        assert all(each.changes == ONE_MAIL for each in kept.values())
        assert watched.admissions.admission(watched.simulator.url, 1.0).state in {"serving", "starting"}
        assert watched.simulator.connections.http2.accepted == 2
