from datetime import UTC, datetime

import pytest

from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId, SyncKey
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import AIRSYNC
from relay.sandbox.eas.items import write_item
from relay.sandbox.eas.mailboxes import SimulatedItem
from relay.sandbox.eas.sync_answer import LONGEST, CollectionAnswer, write_sync

NOW = datetime(2026, 11, 30, 8, 15, 30, tzinfo=UTC)
INBOX = CollectionId("5")


def item(number: int = 1, cls: CollectionClass = CollectionClass.EMAIL, body: str = "See you.") -> SimulatedItem:
    return SimulatedItem(ServerId(f"5:{number}"), cls, "Minutes", "ben@example.com", body, NOW)


def answer(*items: SimulatedItem, number: int = 1, more: bool = False, cls: str = "") -> CollectionAnswer:
    return CollectionAnswer(INBOX, SyncKey(f"key{number}"), 1, [("Add", each.id, each) for each in items], more, cls)


def test_no_changes_are_an_empty_body() -> None:
    assert write_sync([], "ann", ProtocolVersion.V16_1) == b""


@pytest.mark.parametrize("version", [ProtocolVersion.V12_1, ProtocolVersion.V16_1])
@pytest.mark.parametrize("one", [item(), item(body="x" * (LONGEST + 1)), item(cls=CollectionClass.CALENDAR)])
def test_one_item_is_written_as_among_others(one: SimulatedItem, version: ProtocolVersion) -> None:
    for user in ("ann", "ben"):
        collection = decode(write_sync([answer(one, more=True, cls="Email")], user, version)).children[0].children[0]
        assert collection == AIRSYNC(
            "Collection",
            AIRSYNC("Class", "Email"),
            AIRSYNC("SyncKey", "key1"),
            AIRSYNC("CollectionId", "5"),
            AIRSYNC("Status", "1"),
            AIRSYNC("MoreAvailable"),
            AIRSYNC("Commands", write_item("Add", one, user, version)),
        )


def test_several_items_and_collections_keep_their_order() -> None:
    gone = CollectionAnswer(CollectionId("6"), "key2", 1, [("Delete", ServerId("6:1"), None)])
    root = decode(write_sync([answer(item(1), item(2)), gone], "ann", ProtocolVersion.V16_1))

    first, second = root.children[0].children
    assert [command.children[0].string for command in first.children[-1].children] == ["5:1", "5:2"]
    assert second.children[-1] == AIRSYNC("Commands", AIRSYNC("Delete", AIRSYNC("ServerId", "6:1")))
