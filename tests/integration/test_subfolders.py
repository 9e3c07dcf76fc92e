"""Sub-folders on request, over TLS and with each family of servers: they come, move, vanish, and the watch follows."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from eas_watcher.machine.memory import Change
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, CollectionId
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerStatus, FailurePlan
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import Family
from tests.integration.eas_world import ANN, ONE_MAIL, WatchWorld, hurried, hurry, world
from tests.waiting import until

MAIL = frozenset({CollectionClass.EMAIL})
IN_SUBFOLDER = [Change(CollectionClass.EMAIL, 1, sub=True)]
EACH = pytest.mark.parametrize("family", list(FAMILIES))
TELLING = pytest.mark.parametrize(
    "family", [name for name, rules in FAMILIES.items() if rules.personality.reports_folders]
)
USER_CALENDAR = 13


def inbox(watched: WatchWorld) -> CollectionId:
    return watched.simulator.mailbox(ANN).default_folder(CollectionClass.EMAIL)


def pinged(watched: WatchWorld) -> set[CollectionId]:
    """Return the folders in the Ping that is held now."""
    (device,) = watched.simulator.devices(ANN)
    assert device.ping is not None
    return {id_ for id_, _ in device.ping.folders}


async def until_pinged(watched: WatchWorld, condition: Callable[[set[CollectionId]], bool]) -> None:
    """Put the time forward over waits until a Ping is held for the wanted folders."""
    for _ in range(400):
        if watched.simulator.held and condition(pinged(watched)):
            return
        await asyncio.sleep(0.01)
        if not watched.simulator.held:
            hurry(1.0)
    raise AssertionError("no such Ping")


@EACH
@hurried
async def test_mail_in_a_subfolder_is_told_as_such(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        projects = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        deep = watched.simulator.add_folder(ANN, "Old", parent=projects)
        watched.simulator.deliver(ANN, folder=deep)
        watched.start()
        await watched.until_held()
        assert watched.ann.changes == []
        watched.simulator.deliver(ANN, folder=deep)
        await watched.until_changed()

        assert watched.ann.changes == IN_SUBFOLDER
        assert pinged(watched) == {inbox(watched), projects, deep}
        watched.ann.changes.clear()
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        assert watched.ann.changes == ONE_MAIL


@EACH
@hurried
async def test_nobody_looks_into_folders_that_were_not_asked_for(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        beside = watched.simulator.add_folder(ANN, "Junk")
        deleted = next(f.id for f in watched.simulator.mailbox(ANN).folders.values() if f.type == 4)
        watched.simulator.add_folder(ANN, "Thrown away", parent=deleted)
        watched.simulator.add_folder(ANN, "Birthdays", USER_CALENDAR, parent=inbox(watched))
        watched.start()
        await watched.until_held()

        assert beside not in pinged(watched)
        assert pinged(watched) == {inbox(watched)}


@TELLING
@hurried
async def test_a_folder_that_appears_is_watched_and_its_first_mail_told(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_held()
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        watched.simulator.deliver(ANN, folder=folder)
        await watched.until_changed()

        assert watched.ann.changes == IN_SUBFOLDER
        assert folder in pinged(watched)


def bear_a_folder_with_mail(watched: WatchWorld) -> CollectionId:
    """Make a folder with a mail that its user moved there, and one that came there before the newest of the Inbox."""
    folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
    watched.simulator.deliver(ANN, folder=folder, received=now() - timedelta(minutes=11))
    watched.simulator.deliver(ANN, folder=folder, received=now() - timedelta(minutes=1))
    return folder


@TELLING
@hurried
async def test_mail_in_a_folder_that_appears_is_told_though_the_inbox_got_newer_mail_before(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        watched.simulator.deliver(ANN, received=now() - timedelta(minutes=10))
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        folder = bear_a_folder_with_mail(watched)
        await until_pinged(watched, lambda ids: folder in ids)

        assert watched.ann.changes == ONE_MAIL + IN_SUBFOLDER


@hurried
async def test_mail_in_a_folder_that_its_server_never_told_of_is_told_once_the_folder_is_found() -> None:
    async with world(Policy(poll_interval=600), FAMILIES[Family.SOGO], subfolders=MAIL) as watched:
        watched.simulator.deliver(ANN, received=now() - timedelta(minutes=10))
        watched.start()
        await watched.until_idle()
        assert watched.ann.partnership.horizon is not None
        watched.simulator.deliver(ANN)
        hurry(661)  # a rest lasts up to 10 % longer
        await until(lambda: watched.ann.changes == ONE_MAIL)
        bear_a_folder_with_mail(watched)
        for _ in range(12):
            hurry(661)
            await watched.until_idle()

        assert watched.ann.changes == ONE_MAIL + IN_SUBFOLDER


@TELLING
@hurried
async def test_a_folder_moved_in_with_its_mail_is_no_news_and_watched_with_all_below_it(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        outside = watched.simulator.add_folder(ANN, "Projects")
        below = watched.simulator.add_folder(ANN, "Rome", parent=outside)
        watched.simulator.deliver(ANN, folder=below, received=now() - timedelta(minutes=5))
        watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_held()
        watched.simulator.move_folder(ANN, outside, inbox(watched))
        await until_pinged(watched, lambda ids: {outside, below} <= ids)
        assert watched.ann.changes == []
        watched.simulator.deliver(ANN, folder=below)
        await watched.until_changed()
        assert watched.ann.changes == IN_SUBFOLDER

        watched.simulator.move_folder(ANN, outside)
        await until_pinged(watched, lambda ids: ids == {inbox(watched)})
        assert watched.ann.collections.keys().isdisjoint({outside, below})


@TELLING
@hurried
async def test_a_folder_that_vanishes_leaves_the_others_watched(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        below = watched.simulator.add_folder(ANN, "Rome", parent=folder)
        watched.start()
        await watched.until_held()
        assert {folder, below} <= pinged(watched)
        watched.simulator.remove_folder(ANN, folder)
        await until_pinged(watched, lambda ids: ids == {inbox(watched)})
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.ann.collections.keys().isdisjoint({folder, below})


@TELLING
@hurried
async def test_folders_that_change_their_ids_lose_no_mail_and_repeat_none(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        watched.simulator.deliver(ANN, folder=folder, received=now() - timedelta(minutes=5))
        watched.simulator.deliver(ANN, read=True)
        watched.start()
        await watched.until_held()
        for old in (folder, inbox(watched)):
            new = watched.simulator.renumber_folder(ANN, old)
            await until_pinged(watched, lambda ids, new=new: new in ids)  # type: ignore[misc]
        assert watched.ann.changes == []
        (moved,) = pinged(watched) - {inbox(watched)}
        watched.simulator.deliver(ANN, folder=moved)
        await watched.until_changed()

        assert watched.ann.changes == IN_SUBFOLDER


@EACH
@hurried
async def test_a_mail_that_its_user_moves_into_a_subfolder_was_told_of_before(family: Family) -> None:
    async with world(rules=FAMILIES[family], subfolders=MAIL) as watched:
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        watched.start()
        await watched.until_held()
        mail = watched.simulator.deliver(ANN)
        await watched.until_changed()
        watched.ann.changes.clear()
        pings = watched.sent("Ping")
        hurry(90.0)
        watched.simulator.move(ANN, mail, folder)
        await watched.until_held(pings + 1)
        assert watched.ann.changes == []
        watched.simulator.deliver(ANN, folder=folder, received=now() + timedelta(seconds=90))
        await watched.until_changed()

        assert watched.ann.changes == IN_SUBFOLDER


@EACH
@hurried
async def test_more_folders_than_a_ping_takes_keep_the_inbox_and_say_so(family: Family) -> None:
    async with world(rules=replace(FAMILIES[family], max_folders=3), subfolders=MAIL) as watched:
        for number in range(5):
            watched.simulator.add_folder(ANN, f"Project {number}", parent=inbox(watched))
        watched.start()
        await watched.until_held(pings=2)

        assert len(pinged(watched)) == 3
        assert inbox(watched) in pinged(watched)
        detail = watched.ann.conditions[-1].detail
        assert "no more than 3 folders fit into one Ping; not watched: 3 sub-folders of email" in detail


@hurried
async def test_many_subfolders_are_watched_with_few_requests() -> None:
    async with world(subfolders=MAIL) as watched:
        folders = [watched.simulator.add_folder(ANN, f"Project {n}", parent=inbox(watched)) for n in range(120)]
        watched.start()
        await watched.until_held()
        assert pinged(watched) == {inbox(watched), *folders}
        assert watched.sent("Sync") <= 16
        watched.simulator.deliver(ANN, folder=folders[77])
        await watched.until_changed()

        assert watched.ann.changes == IN_SUBFOLDER


@hurried
async def test_a_subfolder_that_cannot_be_synced_does_not_keep_the_inbox_from_being_watched() -> None:
    async with world(subfolders=MAIL) as watched:
        broken = watched.simulator.add_folder(ANN, "Broken", parent=inbox(watched))
        watched.simulator.break_folder(ANN, broken)
        watched.start()
        await until_pinged(watched, lambda ids: ids == {inbox(watched)})
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert "the server does not sync 1 sub-folder of email" in watched.ann.conditions[-1].detail
        assert watched.sent("FolderSync") <= 4

        watched.simulator.break_folder(ANN, broken, broken=False)
        for _ in range(24):
            if broken in pinged(watched):
                break
            pings = watched.sent("Ping")
            (device,) = watched.simulator.devices(ANN)
            assert device.ping is not None
            hurry(device.ping.heartbeat + 1.0)
            await watched.until_held(pings + 1)
        assert pinged(watched) == {inbox(watched), broken}


@hurried
async def test_all_folders_are_read_anew_for_the_first_who_asks_and_none_is_watched_after_the_last() -> None:
    async with world(rules=FAMILIES[Family.SOGO]) as watched:
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        watched.simulator.deliver(ANN, folder=folder)
        watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_held()
        assert watched.ann.hierarchy is None
        assert folder not in pinged(watched)

        watched.subfolders = MAIL
        await watched.stop()
        await until(lambda: watched.simulator.held == 0)
        watched.start()
        await watched.until_held()
        assert folder in pinged(watched)
        assert watched.ann.changes == []  # although this server voids all keys when its folders are read again
        watched.simulator.deliver(ANN, folder=folder)
        await watched.until_changed()
        assert watched.ann.changes == IN_SUBFOLDER

        watched.subfolders = frozenset()
        await watched.stop()
        await until(lambda: watched.simulator.held == 0)
        watched.start()
        await watched.until_held()
        assert folder not in pinged(watched)
        assert watched.ann.hierarchy == ()
        assert folder not in watched.ann.collections


@hurried
async def test_mail_that_came_into_a_subfolder_while_nobody_watched_is_told_after_the_restart() -> None:
    async with world(subfolders=MAIL) as watched:
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        watched.start()
        await watched.until_held()
        await watched.stop()
        await until(lambda: watched.simulator.held == 0)
        watched.simulator.deliver(ANN, folder=folder)
        watched.simulator.deliver(ANN)
        watched.start()
        await until(lambda: len(watched.ann.changes) == 2)

        assert sorted(watched.ann.changes, key=lambda change: change.sub) == ONE_MAIL + IN_SUBFOLDER
        assert watched.sent("FolderSync") == 1


@EACH
@hurried
async def test_other_calendars_are_watched_wherever_they_are(family: Family) -> None:
    calendar = frozenset({CollectionClass.CALENDAR})
    async with world(rules=FAMILIES[family], classes=calendar, subfolders=calendar) as watched:
        team = watched.simulator.add_folder(ANN, "Team", USER_CALENDAR)
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN, CollectionClass.CALENDAR, folder=team)
        await watched.until_changed()

        assert watched.ann.changes == [Change(CollectionClass.CALENDAR, 1, sub=True)]


@hurried
async def test_a_server_that_forgets_all_keys_repeats_no_mail_of_a_subfolder_and_loses_none() -> None:
    async with world(subfolders=MAIL) as watched:
        folder = watched.simulator.add_folder(ANN, "Projects", parent=inbox(watched))
        watched.simulator.deliver(ANN, folder=folder)
        watched.start()
        await watched.until_held()
        watched.simulator.lose_state(ANN)
        watched.simulator.fail(ANN, FailurePlan(AnswerStatus(134), "Sync"))
        watched.simulator.deliver(ANN, folder=folder)
        await watched.until_changed()

        assert watched.ann.changes == IN_SUBFOLDER
