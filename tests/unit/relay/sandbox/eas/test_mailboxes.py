from datetime import UTC, datetime

import pytest

from eas_watcher.names import CollectionClass, CollectionId, ServerId
from relay.sandbox.eas.mailboxes import DEFAULT_FOLDERS, SimulatedMailbox

MOMENT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@pytest.fixture
def mailbox() -> SimulatedMailbox:
    return SimulatedMailbox("ann", "secret")


def add(mailbox: SimulatedMailbox, folder: CollectionId, subject: str = "Minutes") -> ServerId:
    return mailbox.add_item(folder, subject=subject, sender="ben@example.com", body="", received=MOMENT, read=False)


def test_each_class_has_one_default_folder(mailbox: SimulatedMailbox) -> None:
    for cls in CollectionClass:
        assert mailbox.folders[mailbox.default_folder(cls)].cls is cls


def test_there_is_exactly_one_inbox() -> None:
    assert [folder.type for folder in DEFAULT_FOLDERS].count(2) == 1


def test_a_removed_default_folder_raises_key_error(mailbox: SimulatedMailbox) -> None:
    inbox = mailbox.default_folder(CollectionClass.EMAIL)
    add(mailbox, inbox)
    mailbox.remove_folder(inbox)

    assert inbox in mailbox.removed
    assert not list(mailbox.items(inbox))
    with pytest.raises(KeyError):
        mailbox.default_folder(CollectionClass.EMAIL)


def test_ids_of_folders_and_items_are_never_reused(mailbox: SimulatedMailbox) -> None:
    folder = mailbox.add_folder("Projects")
    item = add(mailbox, folder)
    mailbox.delete(item)
    mailbox.remove_folder(folder)
    other = mailbox.add_folder("Projects")

    assert other != folder
    assert add(mailbox, other) != item


def test_items_stay_in_order_of_arrival_and_count_their_changes(mailbox: SimulatedMailbox) -> None:
    folder = mailbox.add_folder("Projects")
    first, second = add(mailbox, folder, "First"), add(mailbox, folder, "Second")
    mailbox.mark_read(first, read=True)

    assert [(item.id, item.read, item.revision) for item in mailbox.items(folder)] == [
        (first, True, 1),
        (second, False, 0),
    ]


def test_a_folder_without_a_class_accepts_no_items(mailbox: SimulatedMailbox) -> None:
    journal = next(folder.id for folder in DEFAULT_FOLDERS if folder.name == "Journal")

    with pytest.raises(KeyError):
        add(mailbox, journal)


def test_repr_does_not_show_content(mailbox: SimulatedMailbox) -> None:
    inbox = mailbox.default_folder(CollectionClass.EMAIL)
    add(mailbox, inbox, "canary")

    assert "canary" not in repr(list(mailbox.items(inbox)))


@pytest.mark.parametrize("server_id", ["5:1", "77:1", "odd"])
def test_an_unknown_item_raises_key_error(mailbox: SimulatedMailbox, server_id: str) -> None:
    with pytest.raises(KeyError):
        mailbox.delete(ServerId(server_id))
    with pytest.raises(KeyError):
        mailbox.mark_read(ServerId(server_id), read=True)
