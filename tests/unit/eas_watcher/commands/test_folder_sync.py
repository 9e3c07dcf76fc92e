import pytest

from eas_watcher.commands.folder_sync import Folder, FolderSync, FolderSyncReply, class_of
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    NotProvisioned,
    ProtocolViolation,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    StateLost,
)
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion, SyncKey
from eas_watcher.wbxml.element import FOLDERHIERARCHY, Element
from eas_watcher.wbxml.encode import encode
from tests.unit.eas_watcher.wbxml.vectors import body_of


def read(body: bytes) -> FolderSyncReply:
    return FolderSync(NO_SYNC_KEY).read(HttpReply(200, {}, body))


def answer(*content: Element) -> FolderSyncReply:
    return read(encode(FOLDERHIERARCHY("FolderSync", *content)))


def folder(id_: str, parent: str, type_: int) -> Folder:
    return Folder(CollectionId(id_), CollectionId(parent), type_)


@pytest.mark.parametrize(("key", "vector"), [("0", "foldersync-request-key0"), ("1", "foldersync-request-key1")])
def test_writes_the_key(key: str, vector: str) -> None:
    assert FolderSync(SyncKey(key)).encode(ProtocolVersion.V16_1) == body_of(vector)
    assert FolderSync.name == "FolderSync"


def test_reads_the_whole_hierarchy() -> None:
    reply = read(body_of("foldersync-response-initial"))

    assert reply.sync_key == "1"
    assert folder("5", "0", 2) in reply.added
    assert (len(reply.added), reply.updated, reply.deleted) == (9, (), ())


def test_reads_what_came_changed_and_went() -> None:
    assert read(body_of("foldersync-response-changes")) == FolderSyncReply(
        SyncKey("2"),
        added=(folder("14", "12", 12),),
        updated=(folder("12", "0", 12),),
        deleted=(CollectionId("13"),),
    )


def test_reads_an_answer_without_changes() -> None:
    assert read(body_of("foldersync-response-nochange")) == FolderSyncReply(SyncKey("2"))
    assert answer(FOLDERHIERARCHY("Status", "1"), FOLDERHIERARCHY("SyncKey", "2")) == FolderSyncReply(SyncKey("2"))


def test_keeps_no_name_of_a_folder() -> None:
    assert "Inbox" not in repr(read(body_of("foldersync-response-initial")))


def test_a_folder_without_a_type_is_unknown_and_one_without_a_parent_is_at_the_top() -> None:
    added = FOLDERHIERARCHY("Add", FOLDERHIERARCHY("ServerId", "5"))

    reply = answer(FOLDERHIERARCHY("Status", "1"), FOLDERHIERARCHY("SyncKey", "1"), FOLDERHIERARCHY("Changes", added))

    assert reply.added == (folder("5", "0", 18),)
    assert reply.added[0].cls is None


@pytest.mark.parametrize("change", ["Add", "Update", "Delete"])
def test_a_change_must_name_its_folder(change: str) -> None:
    with pytest.raises(ProtocolViolation, match=f"{change} has no ServerId"):
        answer(
            FOLDERHIERARCHY("Status", "1"),
            FOLDERHIERARCHY("SyncKey", "1"),
            FOLDERHIERARCHY("Changes", FOLDERHIERARCHY(change)),
        )


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (6, ServerBusy),
        (8, ServerBusy),
        (9, StateLost),
        (10, RequestRefused),
        (11, ServerBusy),
        (12, ServerBusy),
        (99, ProtocolViolation),
        (140, RemoteWipeRequested),
        (142, NotProvisioned),
        (177, AccessDenied),
    ],
)
def test_a_failing_status_raises_the_error_that_it_means(status: int, remedy: type[EasError]) -> None:
    with pytest.raises(EasError, match=rf"\b{status}\b") as caught:
        # A key beside a failure is ignored.
        answer(FOLDERHIERARCHY("Status", str(status)), FOLDERHIERARCHY("SyncKey", "7"))

    assert type(caught.value) is remedy


@pytest.mark.parametrize(
    "content",
    [
        (FOLDERHIERARCHY("SyncKey", "1"),),
        (FOLDERHIERARCHY("Status", "1"),),
        (FOLDERHIERARCHY("Status", "1"), FOLDERHIERARCHY("SyncKey", "0")),
    ],
)
def test_success_needs_a_status_and_a_new_key(content: tuple[Element, ...]) -> None:
    with pytest.raises(ProtocolViolation):
        answer(*content)


def test_takes_no_key_from_an_answer_that_broke_off() -> None:
    body = body_of("foldersync-response-nochange")

    with pytest.raises(ProtocolViolation):
        read(body[:-1])
    with pytest.raises(ProtocolViolation):
        FolderSync(NO_SYNC_KEY).read(HttpReply(500, {}, body))


def test_knows_the_class_of_every_type() -> None:
    email, calendar, contacts = CollectionClass.EMAIL, CollectionClass.CALENDAR, CollectionClass.CONTACTS
    tasks, notes = CollectionClass.TASKS, CollectionClass.NOTES
    expected = [None, email, email, email, email, email, email, tasks, calendar, contacts, notes, None]
    expected += [email, calendar, contacts, tasks, None, notes, None, None, None]

    assert [class_of(folder_type) for folder_type in range(21)] == expected
    assert folder("5", "0", 2).cls is email


@pytest.mark.parametrize(
    ("type_", "cls"), [(2, CollectionClass.EMAIL), (8, CollectionClass.CALENDAR), (12, None), (6, None)]
)
def test_only_the_default_folder_of_a_class_is_its_default(type_: int, cls: CollectionClass | None) -> None:
    assert folder("5", "0", type_).default_class is cls
