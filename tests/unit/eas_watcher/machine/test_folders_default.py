from datetime import UTC, datetime

import pytest

from eas_watcher.commands.folder_sync import Folder, FolderSyncReply
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.folders import follow_default_folders
from eas_watcher.machine.memory import Collection, restart
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, SyncKey

NEWEST = datetime(2026, 11, 24, tzinfo=UTC)
KEY = SyncKey("h1")
INBOX = Collection(CollectionId("5"), CollectionClass.EMAIL, SyncKey("k1"), newest=NEWEST)
CALENDAR = Collection(CollectionId("7"), CollectionClass.CALENDAR, SyncKey("k2"), newest=NEWEST)
BOTH = (INBOX, CALENDAR)


def folder(id_: str, type_: int) -> Folder:
    return Folder(CollectionId(id_), CollectionId("0"), type_)


def reply(
    *, added: tuple[Folder, ...] = (), updated: tuple[Folder, ...] = (), deleted: tuple[str, ...] = ()
) -> FolderSyncReply:
    return FolderSyncReply(SyncKey("h2"), added, updated, tuple(map(CollectionId, deleted)))


def test_keeps_one_collection_for_each_default_folder() -> None:
    listed = tuple(folder(str(n), n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18, 19))

    collections = follow_default_folders((), NO_SYNC_KEY, reply(added=listed))

    assert [(c.id, c.cls) for c in collections] == [
        ("2", CollectionClass.EMAIL),
        ("7", CollectionClass.TASKS),
        ("8", CollectionClass.CALENDAR),
        ("9", CollectionClass.CONTACTS),
        ("10", CollectionClass.NOTES),
    ]
    assert all(c.sync_key == NO_SYNC_KEY and c.newest is None for c in collections)


def test_nothing_changes_when_nothing_changed() -> None:
    assert follow_default_folders(BOTH, KEY, reply()) == BOTH


def test_a_renamed_folder_keeps_its_key() -> None:
    assert follow_default_folders(BOTH, KEY, reply(updated=(folder("5", 2),))) == BOTH


def test_drops_a_deleted_folder() -> None:
    assert follow_default_folders(BOTH, KEY, reply(deleted=("7", "99"))) == (INBOX,)


def test_a_full_list_drops_what_it_does_not_name_and_keeps_the_keys_of_the_rest() -> None:
    assert follow_default_folders(BOTH, NO_SYNC_KEY, reply(added=(folder("5", 2),))) == (INBOX,)


@pytest.mark.parametrize(
    ("asked_with", "answer"),
    [
        (KEY, reply(deleted=("5", "7"))),
        (NO_SYNC_KEY, reply()),
        (NO_SYNC_KEY, reply(added=(folder("7", 8),))),
    ],
)
def test_a_list_without_an_inbox_is_not_believed(asked_with: SyncKey, answer: FolderSyncReply) -> None:
    with pytest.raises(ServerBusy):
        follow_default_folders(BOTH, asked_with, answer)


def test_a_folder_deleted_and_listed_in_one_answer_is_kept_with_all_that_is_known() -> None:
    assert follow_default_folders(BOTH, KEY, reply(added=(folder("5", 2),), deleted=("5",))) == BOTH


def test_an_inbox_under_a_new_id_is_primed_against_the_newest_mail_of_the_old_one() -> None:
    collections = follow_default_folders(BOTH, KEY, reply(added=(folder("8", 2),), deleted=("5",)))

    assert collections == (CALENDAR, Collection(CollectionId("8"), CollectionClass.EMAIL, newest=NEWEST))


def test_a_default_folder_under_a_new_id_replaces_the_old_one_without_a_delete() -> None:
    collections = follow_default_folders(BOTH, KEY, reply(added=(folder("8", 2),)))

    assert [c.id for c in collections] == ["7", "8"]


def test_an_inbox_replaced_during_a_drain_passes_on_the_receive_time_from_before_it() -> None:
    collections = follow_default_folders((restart(INBOX),), KEY, reply(added=(folder("8", 2),)))

    assert collections[0].newest == NEWEST


def test_a_folder_that_becomes_another_class_starts_from_nothing() -> None:
    collections = follow_default_folders(BOTH, KEY, reply(updated=(folder("7", 9),)))

    assert collections == (INBOX, Collection(CollectionId("7"), CollectionClass.CONTACTS))
