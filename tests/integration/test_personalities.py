"""The oddities of each family of servers, with the whole watcher over TLS: no mail is lost or announced twice."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, ProtocolVersion
from eas_watcher.reasons import Reason
from relay.sandbox.eas.failures import Crash, Cut, FailurePlan
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import Family
from relay.sandbox.eas.rules import EasRules
from tests.integration.eas_world import ANN, ONE_MAIL, PASSWORD, WatchWorld, hurried, hurry, world
from tests.waiting import until

EXCHANGE, SOGO, ZPUSH, TRAVELER = FAMILIES.values()
EACH = pytest.mark.parametrize("family", list(FAMILIES))
MAIL_AND_CALENDAR = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})


def commands(watched: WatchWorld, since: int = 0) -> list[str]:
    return [logged.command for logged in watched.simulator.log(ANN)][since:]


async def restarted(watched: WatchWorld) -> None:
    """Restart the server and return when the watch has noticed."""
    before = watched.sent("Ping"), len(watched.ann.conditions), watched.sent("Sync")
    watched.simulator.restart()
    await until(lambda: (watched.sent("Ping"), len(watched.ann.conditions), watched.sent("Sync")) != before)


@EACH
@hurried
async def test_a_broken_backend_costs_no_mail_and_no_credential(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.break_backend()
        await restarted(watched)
        watched.simulator.deliver(ANN)
        assert watched.ann.changes == []
        watched.simulator.break_backend(broken=False)
        hurry(70.0)  # longer than the first wait after a 401
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.ann.conditions[-1].state is WatchState.WATCHING
        assert watched.ann.refusals == 0


@EACH
@hurried
async def test_a_watch_that_starts_while_the_backend_is_broken_starts_later(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.simulator.deliver(ANN, subject="Old")
        watched.simulator.break_backend()
        watched.start()
        await until(lambda: bool(watched.ann.conditions))
        assert watched.ann.conditions[-1].state is WatchState.WAITING
        watched.simulator.break_backend(broken=False)
        hurry(70.0)
        await watched.until_held()
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@EACH
@hurried
async def test_a_restarted_server_is_asked_at_once_and_not_in_a_loop(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        watched.start()
        await watched.until_held()
        for _ in range(3):
            before = len(watched.simulator.log(ANN))
            watched.simulator.deliver(ANN)
            watched.ann.changes.clear()
            await watched.until_changed()
            await restarted(watched)
            for _ in range(20):
                hurry(1.0)
                await asyncio.sleep(0.01)
            await watched.until_held()
            assert watched.ann.changes == ONE_MAIL
            assert len(watched.simulator.log(ANN)) - before < 12


@EACH
@hurried
async def test_a_key_from_a_crashed_answer_is_never_used(family: Family) -> None:
    async with world(rules=FAMILIES[family]) as watched:
        for command in ("FolderSync", "Sync"):
            watched.simulator.fail(ANN, FailurePlan(Crash(), command))
        watched.start()
        await asyncio.sleep(0.05)
        for _ in range(30):
            hurry(1.0)
            await asyncio.sleep(0.01)
        await watched.until_held()
        watched.simulator.fail(ANN, FailurePlan(Crash(), "Sync"))
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@EACH
@hurried
async def test_a_folder_that_vanishes_leaves_the_inbox_watched(family: Family) -> None:
    async with world(rules=FAMILIES[family], classes=MAIL_AND_CALENDAR) as watched:
        watched.start()
        await watched.until_held()
        calendar = watched.simulator.mailbox(ANN).default_folder(CollectionClass.CALENDAR)
        watched.simulator.remove_folder(ANN, calendar)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        if FAMILIES[family].personality.reports_folders:
            assert calendar not in watched.ann.collections


@hurried
async def test_a_limit_that_is_told_late_is_held_to_from_then_on() -> None:
    async with world(rules=SOGO) as watched:
        watched.start()
        await watched.until_held()
        assert watched.sent("Ping") == 1
        hurry(305.0)
        await watched.until_held(pings=2)
        (device,) = watched.simulator.devices(ANN)
        assert device.ping is not None
        assert device.ping.heartbeat == 300
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_short_limit_that_is_not_named_is_found() -> None:
    async with world(rules=replace(ZPUSH, heartbeat_minimum=700)) as watched:
        watched.start()
        await watched.until_held(pings=2)
        (device,) = watched.simulator.devices(ANN)

        assert device.ping is not None
        assert 700 <= device.ping.heartbeat <= 3540


@hurried
async def test_a_server_that_fell_deaf_without_a_word_is_found_out_within_hours() -> None:
    async with world(rules=SOGO) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.lose_state(ANN)
        watched.simulator.deliver(ANN)
        waited = 0.0
        while not watched.ann.changes and waited < 4 * 3600:
            hurry(305.0)
            waited += 305.0
            await asyncio.sleep(0.05)
            await until(lambda: watched.ann.changes or watched.simulator.held)

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_one_more_sync_after_adds_ends_the_hot_loop() -> None:
    async with world(rules=SOGO) as watched:
        watched.start()
        await watched.until_held()
        before = len(watched.simulator.log(ANN))
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert commands(watched, before) == ["Sync", "Ping", "Sync", "Ping"]
        before = len(watched.simulator.log(ANN))
        watched.simulator.deliver(ANN)
        await until(lambda: watched.ann.changes == 2 * ONE_MAIL)
        await watched.until_held()

        assert commands(watched, before) == ["Sync", "Sync", "Ping"]


@hurried
async def test_folders_that_are_told_as_deleted_all_at_once_are_not_given_up() -> None:
    async with world(rules=SOGO) as watched:
        watched.start()
        await watched.until_held()
        kept = dict(watched.ann.collections)
        watched.simulator.break_backend()
        watched.simulator.fail(ANN, FailurePlan(Cut(applied=True), "Sync"))
        watched.simulator.restart()
        for _ in range(40):
            hurry(5.0)
            await asyncio.sleep(0.01)
        assert watched.sent("FolderSync") >= 2
        assert watched.ann.collections.keys() == kept.keys()
        watched.simulator.deliver(ANN)
        watched.simulator.break_backend(broken=False)
        hurry(900.0)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_items_are_never_asked_for_so_often_that_they_are_kept_back() -> None:
    async with world(rules=ZPUSH) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.fail(ANN, FailurePlan(Cut(applied=True), "Sync", times=6))
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        # The server complains when it keeps an item back, which no test of this file allows.
        assert sum(change.count for change in watched.ann.changes) == 1


@pytest.mark.parametrize("version", ZPUSH.versions)
@hurried
async def test_a_policy_that_shows_only_as_a_changed_hierarchy_is_taken_in_a_bounded_chain(
    version: ProtocolVersion,
) -> None:
    async with world(Policy(versions=(version,)), ZPUSH) as watched:
        watched.start()
        await watched.until_held()
        before = len(watched.simulator.log(ANN))
        watched.simulator.refresh_policy(ANN)
        await watched.until_held(pings=2)

        chain = commands(watched, before)
        assert chain[:4] == ["FolderSync", "Provision", "Provision", "FolderSync"]
        assert chain[-1] == "Ping"
        assert len(chain) <= 7
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_backend_that_refuses_every_password_for_long_is_asked_sparingly_and_comes_back() -> None:
    async with world(rules=ZPUSH) as watched:
        watched.start()
        await watched.until_held()
        before = len(watched.simulator.log(ANN))
        watched.simulator.break_backend()
        watched.simulator.restart()
        for _ in range(200):
            hurry(60.0)
            await asyncio.sleep(0.002)
            await until(lambda: not watched.transport.busy)

        # One when the Ping was lost, two confirmations, and one after an hour.
        assert len(watched.simulator.log(ANN)) - before == 4
        last = watched.ann.conditions[-1]
        assert (last.state, last.reason) == (WatchState.WAITING, Reason.HTTP_401_DOUBTFUL)

        watched.simulator.break_backend(broken=False)
        while not watched.simulator.held:
            hurry(600.0)
            await asyncio.sleep(0.01)
        assert watched.ann.conditions[-1].state is WatchState.WATCHING


@hurried
async def test_a_short_maximum_makes_no_busy_loop() -> None:
    async with world(rules=replace(SOGO, heartbeat_minimum=5, heartbeat_maximum=10)) as watched:
        watched.start()
        await watched.until_held()
        for pings in range(1, 11):
            await watched.until_held(pings=pings)
            hurry(10.2)
        await watched.until_held(pings=11)
        sent = len(watched.simulator.log(ANN))
        assert sent <= 11 + 12  # Pings, and what starts a watch
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


def test_the_families_are_those_that_the_command_line_names() -> None:
    assert list(FAMILIES) == ["exchange", "sogo", "zpush", "traveler"]
    assert FAMILIES[Family.EXCHANGE] == EasRules()
    assert all(rules.personality.name == name for name, rules in FAMILIES.items())


@hurried
async def test_a_policy_that_is_told_before_the_password_is_looked_at_costs_one_try_of_a_wrong_one() -> None:
    async with world(rules=ZPUSH) as watched:
        watched.start()
        await watched.until_held()
        before = len(watched.simulator.log(ANN))
        watched.simulator.add_mailbox(ANN, "changed")
        watched.simulator.refresh_policy(ANN)
        await until(lambda: watched.simulator.records.refusals[ANN] == 1)
        await watched.until_idle()

        assert commands(watched, before) == ["FolderSync", "Provision"]
        assert watched.ann.conditions[-1].reason == "http-401"
        watched.simulator.add_mailbox(ANN, PASSWORD)
        watched.simulator.deliver(ANN)
        hurry(67.0)
        await watched.until_changed()
        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_wipe_is_carried_out_although_the_password_was_changed() -> None:
    async with world(rules=ZPUSH) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.add_mailbox(ANN, "changed")
        watched.simulator.wipe(ANN)
        await until(lambda: not watched.fleet)

        assert watched.ann.conditions[-1].state is WatchState.WIPED
        (device,) = watched.simulator.devices(ANN)
        assert device.wipe is None


@pytest.mark.parametrize("rules", [SOGO, ZPUSH], ids=["sogo", "zpush"])
@hurried
async def test_a_hang_up_that_is_not_noticed_ends_with_the_next_ping_of_the_device(rules: EasRules) -> None:
    async with world(rules=replace(rules, workers=2)) as watched:
        for restarts in range(1, 4):
            watched.start()
            await watched.until_held(pings=restarts)
            assert watched.simulator.pings.busy == 1
            await watched.stop()
            await until(lambda: watched.simulator.held == 0)
            assert watched.simulator.pings.busy == 1

        watched.start()
        await watched.until_held(pings=4)
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_server_whose_workers_are_all_taken_is_watched_again_when_one_is_free() -> None:
    async with world(rules=replace(SOGO, workers=1)) as watched:
        watched.start()
        await watched.until_held()
        await watched.stop()
        await until(lambda: watched.simulator.held == 0)
        watched.simulator.deliver(ANN)
        watched.start()
        await put_forward_until(lambda: len(watched.ann.conditions) > 1)
        assert watched.ann.conditions[-1].state is WatchState.WAITING
        hurry(310.0)  # the Ping that the client has given up has ended
        await put_forward_until(lambda: bool(watched.ann.changes))

        assert watched.ann.changes == ONE_MAIL


async def put_forward_until(fact: Callable[[], bool]) -> None:
    """Put the time forward over every wait until `fact()` is true, whether or not a Ping is held."""
    for _ in range(400):
        if fact():
            return
        await asyncio.sleep(0.01)
        hurry(1.0)
    raise AssertionError("no change was committed")


@hurried
async def test_a_server_that_ends_every_ping_after_its_own_time_holds_pings_all_the_time() -> None:
    async with world() as watched:
        watched.simulator.pings.forced = 60.0
        watched.start()
        await watched.until_held()
        for pings in range(2, 6):
            hurry(61.0)
            await watched.until_held(pings=pings)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert [each.reason for each in watched.ann.conditions if each.state is not WatchState.WATCHING] == []
        assert "the server ends every Ping after 6" in watched.ann.conditions[-1].detail
