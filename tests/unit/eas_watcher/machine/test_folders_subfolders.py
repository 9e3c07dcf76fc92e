from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply
from eas_watcher.machine.folders import find_subfolders, keep_subfolders, newest_mail, update_hierarchy
from eas_watcher.machine.memory import Collection, restart
from eas_watcher.names import CollectionClass, CollectionId, SyncKey

EMAIL, CALENDAR = CollectionClass.EMAIL, CollectionClass.CALENDAR
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def folder(id_: str, type_: int, parent: str = "0") -> Folder:
    return Folder(CollectionId(id_), CollectionId(parent), type_)


INBOX = folder("5", 2)
PROJECTS = folder("20", 12, "5")
ROME = folder("21", 12, "20")


def found(*folders: Folder, classes: frozenset[CollectionClass] = frozenset(CollectionClass)) -> dict[str, str]:
    return {id_: cls.value for id_, cls in find_subfolders(folders, classes).items()}


def test_mail_folders_count_below_the_inbox_however_deep() -> None:
    assert found(ROME, INBOX, PROJECTS) == {"20": "email", "21": "email"}


def test_mail_folders_beside_the_inbox_do_not_count_because_junk_is_one_of_them() -> None:
    assert found(INBOX, folder("30", 12), folder("31", 12, "30")) == {}


@pytest.mark.parametrize("type_", [3, 4, 5, 6])
def test_nothing_is_new_in_drafts_deleted_sent_or_outgoing_items_nor_below_them(type_: int) -> None:
    assert found(INBOX, folder("6", type_, "5"), folder("7", 12, "6"), folder("8", 13, "7")) == {}


@pytest.mark.parametrize("type_", [1, 11, 16, 18, 19])
def test_folders_that_are_not_watched_do_not_count_but_those_below_them_do(type_: int) -> None:
    assert found(INBOX, folder("6", type_, "5"), folder("7", 12, "6")) == {"7": "email"}


def test_folders_of_other_classes_count_wherever_they_are() -> None:
    others = folder("40", 13), folder("41", 14, "5"), folder("42", 15, "40"), folder("43", 17)

    assert found(INBOX, *others) == {"40": "calendar", "41": "contacts", "42": "tasks", "43": "notes"}


def test_only_classes_that_were_asked_for_count() -> None:
    assert found(INBOX, PROJECTS, folder("40", 13), classes=frozenset({CALENDAR})) == {"40": "calendar"}
    assert found(INBOX, PROJECTS, classes=frozenset()) == {}


def test_folders_in_a_circle_are_walked_once() -> None:
    assert found(INBOX, folder("20", 12, "21"), folder("21", 12, "20")) == {}
    assert found(folder("5", 2, "20"), folder("20", 12, "5")) == {"20": "email"}


def test_folders_without_their_parent_are_below_nothing() -> None:
    assert found(INBOX, ROME) == {}


def test_a_hierarchy_follows_folders_that_are_added_moved_and_deleted() -> None:
    reply = FolderSyncReply(SyncKey("h2"), (ROME,), (folder("20", 12),), (CollectionId("9"), CollectionId("99")))

    assert update_hierarchy((INBOX, PROJECTS, folder("9", 12)), reply, full=False) == (folder("20", 12), ROME, INBOX)


def test_a_full_answer_replaces_the_hierarchy() -> None:
    assert update_hierarchy((PROJECTS,), FolderSyncReply(SyncKey("h2"), (INBOX,)), full=True) == (INBOX,)


def test_a_folder_deleted_and_listed_in_one_answer_is_there() -> None:
    reply = FolderSyncReply(SyncKey("h2"), (PROJECTS,), (), (PROJECTS.id,))

    assert update_hierarchy((INBOX, PROJECTS), reply, full=False) == (PROJECTS, INBOX)


def test_known_subfolders_are_kept_and_deleted_ones_are_not() -> None:
    known = Collection(PROJECTS.id, EMAIL, SyncKey("k1"), newest=NOW, sub=True)
    gone = Collection(CollectionId("99"), EMAIL, SyncKey("k9"), sub=True)

    assert keep_subfolders((known, gone), (INBOX, PROJECTS), {EMAIL}, lambda _: NOW) == (known,)


def test_a_new_mail_folder_is_primed_against_its_receive_time_and_others_against_none() -> None:
    moments = {PROJECTS.id: NOW, ROME.id: NOW - timedelta(days=1)}

    assert keep_subfolders((), (INBOX, PROJECTS, ROME, folder("40", 13)), {EMAIL, CALENDAR}, moments.get) == (
        Collection(PROJECTS.id, EMAIL, newest=NOW, sub=True),
        Collection(ROME.id, EMAIL, newest=NOW - timedelta(days=1), sub=True),
        Collection(CollectionId("40"), CALENDAR, sub=True),
    )


def test_a_folder_that_becomes_another_class_starts_from_nothing() -> None:
    known = Collection(PROJECTS.id, CALENDAR, SyncKey("k1"), sub=True)

    assert keep_subfolders((known,), (INBOX, PROJECTS), {EMAIL}) == (Collection(PROJECTS.id, EMAIL, sub=True),)


def test_the_newest_mail_is_that_of_all_mail_folders_as_it_was_before_a_drain() -> None:
    inbox = Collection(INBOX.id, EMAIL, newest=NOW)
    later = NOW + timedelta(hours=1)
    drained = replace(restart(Collection(PROJECTS.id, EMAIL, newest=NOW - timedelta(days=1))), newest=later)
    calendar = Collection(CollectionId("7"), CALENDAR, newest=later)

    assert newest_mail((drained, inbox, calendar)) == NOW
    assert newest_mail((drained, replace(inbox, newest=None))) == NOW - timedelta(days=1)
    assert newest_mail((calendar,)) is None
