from dataclasses import replace
from datetime import timedelta

import pytest

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.folders import note_horizon, read_hierarchy, recall
from eas_watcher.machine.memory import Collection, Memory, Progress
from eas_watcher.machine.state import Policy, Record
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, SyncKey
from tests.unit.eas_watcher.watching import CALENDAR, EMAIL, INBOX, NEWEST, PARTNERSHIP, watch_of

INBOX_FOLDER = Folder(INBOX.id, CollectionId("0"), 2)
PROJECTS_FOLDER = Folder(CollectionId("20"), INBOX.id, 12)
HIERARCHY = (PROJECTS_FOLDER, INBOX_FOLDER)
PROJECTS = Collection(PROJECTS_FOLDER.id, CollectionClass.EMAIL, SyncKey("p1"), newest=NEWEST, sub=True)
POLICY = Policy()
EARLIER = NEWEST - timedelta(hours=1)
READ = replace(PARTNERSHIP, hierarchy_key=SyncKey("h2"), horizon=NEWEST)
"""The partnership after a FolderSync when sub-folders are asked for."""


def test_a_watch_starts_from_what_was_kept_and_syncs_all_first() -> None:
    memory = Memory(PARTNERSHIP, (INBOX, CALENDAR), EMAIL, refusals=1)

    watch, forgotten = recall(memory, POLICY)

    assert forgotten == []
    assert watch.collections == (INBOX, CALENDAR)
    assert watch.unsynced == {INBOX.id, CALENDAR.id}
    assert (watch.partnership, watch.classes, watch.counters.refusals) == (PARTNERSHIP, EMAIL, 1)
    assert not watch.hierarchy_due
    assert watch.hierarchy is None


def test_when_subfolders_are_first_asked_for_all_folders_are_read_again() -> None:
    watch, forgotten = recall(Memory(PARTNERSHIP, (INBOX,), EMAIL, subfolders=EMAIL), POLICY)

    assert forgotten == []
    assert watch.hierarchy_due
    assert watch.partnership == replace(PARTNERSHIP, hierarchy_key=NO_SYNC_KEY)
    assert watch.collections == (INBOX,)


def test_known_subfolders_go_on_from_their_sync_keys_without_a_request() -> None:
    memory = Memory(PARTNERSHIP, (INBOX, PROJECTS), EMAIL, subfolders=EMAIL, hierarchy=HIERARCHY)

    watch, forgotten = recall(memory, POLICY)

    assert forgotten == []
    assert watch.collections == watch.watched == (INBOX, PROJECTS)
    assert watch.hierarchy == HIERARCHY
    assert not watch.hierarchy_due


def test_another_class_finds_its_subfolders_in_the_hierarchy_that_is_kept() -> None:
    team = Folder(CollectionId("30"), CollectionId("0"), 13)
    both = EMAIL | {CollectionClass.CALENDAR}
    memory = Memory(PARTNERSHIP, (INBOX, CALENDAR, PROJECTS), both, subfolders=both, hierarchy=(*HIERARCHY, team))

    watch, _ = recall(memory, POLICY)

    assert not watch.hierarchy_due
    assert watch.collections[-1] == Collection(team.id, CollectionClass.CALENDAR, sub=True)


def test_when_subfolders_are_asked_for_no_more_the_hierarchy_is_forgotten() -> None:
    watch, forgotten = recall(Memory(PARTNERSHIP, (INBOX, PROJECTS), EMAIL, hierarchy=HIERARCHY), POLICY)

    assert forgotten == [Record(Progress(dropped=(PROJECTS.id,), hierarchy=()))]
    assert watch.collections == (INBOX,)
    assert watch.hierarchy is None


def test_subfolders_of_a_class_that_is_not_watched_are_not_either() -> None:
    watch = watch_of(INBOX, PROJECTS, classes=frozenset({CollectionClass.CALENDAR}), subfolders=EMAIL)

    assert watch.watched == ()
    assert watch_of(INBOX, PROJECTS).watched == (INBOX,)


def test_the_changes_of_a_folder_sync_are_recorded_with_its_key() -> None:
    watch = watch_of(INBOX, subfolders=EMAIL, hierarchy=(INBOX_FOLDER,), hierarchy_due=True)

    watch, progress = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), (PROJECTS_FOLDER,)))

    fresh = replace(PROJECTS, sync_key=NO_SYNC_KEY)
    assert progress == Progress(READ, (fresh,), hierarchy=HIERARCHY)
    assert watch.watched == (INBOX, fresh)
    assert watch.hierarchy == HIERARCHY
    assert not watch.hierarchy_due
    assert watch.unsynced == {INBOX.id, fresh.id}


def test_when_the_hierarchy_is_read_first_no_mail_in_a_subfolder_is_new() -> None:
    partnership = replace(PARTNERSHIP, hierarchy_key=NO_SYNC_KEY)
    watch = watch_of(INBOX, subfolders=EMAIL, partnership=partnership)

    _, progress = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), HIERARCHY))

    assert progress.collections == (replace(PROJECTS, sync_key=NO_SYNC_KEY, newest=None),)
    assert progress.hierarchy == HIERARCHY


def test_a_hierarchy_that_did_not_change_is_not_written_again() -> None:
    watch = watch_of(INBOX, PROJECTS, subfolders=EMAIL, hierarchy=HIERARCHY)

    after, progress = read_hierarchy(watch, FolderSyncReply(SyncKey("h2")))

    assert progress == Progress(READ)
    assert after.collections == (INBOX, PROJECTS)


def test_all_mail_is_new_in_a_folder_created_since_the_last_folder_sync_even_if_the_inbox_got_newer_mail() -> None:
    watch = watch_of(
        INBOX, subfolders=EMAIL, hierarchy=(INBOX_FOLDER,), partnership=replace(PARTNERSHIP, horizon=EARLIER)
    )

    after, _ = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), (PROJECTS_FOLDER,)))

    assert after.collections[-1].newest == EARLIER
    assert after.partnership.horizon == NEWEST


def test_a_folder_is_no_older_than_the_ping_that_would_have_reported_it() -> None:
    partnership = replace(PARTNERSHIP, horizon=EARLIER - timedelta(days=9))
    watch = watch_of(INBOX, subfolders=EMAIL, hierarchy=(INBOX_FOLDER,), partnership=partnership, created_after=EARLIER)

    after, _ = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), (PROJECTS_FOLDER,)))

    assert after.collections[-1].newest == EARLIER
    assert after.created_after is None


def test_in_a_folder_that_moves_in_only_mail_newer_than_all_known_mail_is_new() -> None:
    outside = replace(PROJECTS_FOLDER, parent=CollectionId("0"))
    watch = watch_of(
        INBOX, subfolders=EMAIL, hierarchy=(outside, INBOX_FOLDER), partnership=replace(PARTNERSHIP, horizon=EARLIER)
    )

    after, _ = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), updated=(PROJECTS_FOLDER,)))

    assert after.collections[-1] == replace(PROJECTS, sync_key=NO_SYNC_KEY)


def test_when_all_ids_are_new_no_folder_was_created() -> None:
    partnership = replace(PARTNERSHIP, hierarchy_key=NO_SYNC_KEY, horizon=EARLIER)
    watch = watch_of(INBOX, PROJECTS, subfolders=EMAIL, hierarchy=HIERARCHY, partnership=partnership)
    inbox, projects = (
        replace(INBOX_FOLDER, id=CollectionId("105")),
        Folder(CollectionId("120"), CollectionId("105"), 12),
    )

    after, _ = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), (inbox, projects)))

    assert [collection.newest for collection in after.collections] == [NEWEST, NEWEST]


def test_once_all_is_primed_the_newest_mail_is_noted_once_if_subfolders_are_asked_for() -> None:
    watch, actions = note_horizon(watch_of(INBOX, subfolders=EMAIL, hierarchy=(INBOX_FOLDER,)))

    assert watch.partnership == replace(PARTNERSHIP, horizon=NEWEST)
    assert actions == [Record(Progress(partnership=watch.partnership))]
    for other in (watch, watch_of(INBOX), watch_of(CALENDAR, subfolders=EMAIL)):
        assert note_horizon(other) == (other, [])


def test_a_subfolder_that_went_is_dropped() -> None:
    watch = watch_of(INBOX, PROJECTS, subfolders=EMAIL, hierarchy=HIERARCHY)

    after, progress = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), deleted=(PROJECTS.id,)))

    assert progress.dropped == (PROJECTS.id,)
    assert after.collections == (INBOX,)


def test_a_subfolder_that_becomes_the_inbox_is_replaced_and_not_dropped() -> None:
    watch = watch_of(INBOX, PROJECTS, subfolders=EMAIL, hierarchy=HIERARCHY)
    swapped = Folder(PROJECTS.id, CollectionId("0"), 2)

    after, progress = read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), updated=(swapped,), deleted=(INBOX.id,)))

    heir = Collection(PROJECTS.id, CollectionClass.EMAIL, newest=NEWEST)
    assert progress.dropped == (INBOX.id,)
    assert progress.collections == after.collections == (heir,)


def test_a_list_without_an_inbox_leaves_the_subfolders_alone_too() -> None:
    watch = watch_of(INBOX, PROJECTS, subfolders=EMAIL, hierarchy=HIERARCHY)

    with pytest.raises(ServerBusy):
        read_hierarchy(watch, FolderSyncReply(SyncKey("h2"), deleted=(INBOX.id, PROJECTS.id)))


def test_no_hierarchy_is_kept_while_no_registration_asks_for_subfolders() -> None:
    _, progress = read_hierarchy(watch_of(INBOX), FolderSyncReply(SyncKey("h2"), (PROJECTS_FOLDER,)))

    assert progress == Progress(replace(PARTNERSHIP, hierarchy_key=SyncKey("h2")))
