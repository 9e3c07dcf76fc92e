"""Test which progress is news, and what news are on their way to PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import cast

import pytest

from eas_watcher.machine.memory import Change, Collection, Condition, Partnership, Progress, WatchState
from eas_watcher.machine.seen import NONE_SEEN, SeenIds
from eas_watcher.names import CollectionClass, CollectionId, MailboxId, ServerId, SyncKey
from relay.domain.model import CommitEntry
from relay.store.marks import SOON
from relay.store.news import are_news, news, read_news

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
NOW_AS_TEXT = "2026-11-24 08:30:00.000000+00:00"
MAIL = Collection(
    CollectionId("5"), CollectionClass.EMAIL, SyncKey("k"), 1, NOW, SeenIds.of([ServerId("5:1"), ServerId('"')])
)
NEW_MAIL = Change(CollectionClass.EMAIL, 2)
CHANGED = Progress(collections=(MAIL,), changes=(NEW_MAIL,))


def entry(progress: Progress, name: str = "ann") -> CommitEntry:
    return CommitEntry(MailboxId(name), 7, 3, progress)


def arrived(*changes: Change) -> list[tuple[object, ...]]:
    values = news([entry(Progress(changes=changes))], NOW)
    names = ("owner", "mark", "top", "top_certain", "total", "total_certain")
    return list(zip(*(cast("tuple[object, ...]", values[name]) for name in names), strict=True))


def test_keys_and_changes_are_news() -> None:
    assert are_news([entry(CHANGED), entry(Progress(), "ben")])


@pytest.mark.parametrize(
    "more",
    [
        Progress(Partnership()),
        Progress(dropped=(MAIL.id,)),
        Progress(condition=Condition(WatchState.WATCHING)),
        Progress(refusals=0),
        Progress(attention=True),
        Progress(hierarchy=()),
    ],
)
def test_all_other_progress_is_none(more: Progress) -> None:
    assert not are_news([entry(CHANGED, "ben"), entry(more)])


def test_two_entries_of_one_mailbox_are_no_news() -> None:
    assert not are_news([entry(CHANGED), entry(CHANGED)])


def test_entries_and_collections_travel_as_columns_in_the_order_of_their_keys() -> None:
    calendar = replace(MAIL, id=CollectionId("10"), cls=CollectionClass.CALENDAR, newest=None, seen=NONE_SEEN, sub=True)
    values = news([entry(Progress(collections=(MAIL, calendar)), "ben"), entry(CHANGED)], NOW)

    assert (values["id"], values["changed"]) == (["ann", "ben"], [True, False])
    assert (values["shard"], values["epoch"]) == ([7, 7], [3, 3])
    assert (values["now"], values["soon"]) == (NOW, NOW + SOON)
    assert values["collection_mailbox_id"] == ("ann", "ben", "ben")
    assert values["collection_collection_id"] == ("5", "10", "5")
    assert values["collection_class"] == ("email", "calendar", "email")
    assert values["collection_newest"] == (NOW_AS_TEXT, None, NOW_AS_TEXT)
    assert values["collection_seen"] == ('["5:1", "\\""]', "[]", '["5:1", "\\""]')
    assert values["collection_sub"] == (False, True, False)
    assert values["collection_changed_at"] == (NOW_AS_TEXT, None, None)


def test_moments_travel_in_utc_and_never_without_a_time_zone() -> None:
    eastern = replace(MAIL, newest=NOW.astimezone(timezone(timedelta(hours=3))))
    values = news([entry(Progress(collections=(eastern,)))], NOW)
    assert values["collection_newest"] == (NOW_AS_TEXT,)

    with pytest.raises(ValueError, match="without time zone"):
        news([entry(Progress(collections=(replace(MAIL, newest=NOW.replace(tzinfo=None)),)))], NOW)


def test_columns_without_rows_are_empty() -> None:
    values = news([entry(Progress())], NOW)
    assert (values["collection_seen"], values["mark"], values["changed"]) == ((), (), [False])


def test_changes_are_added_up_by_class_with_and_without_sub_folders() -> None:
    doubtful, deep = replace(NEW_MAIL, certain=False), replace(NEW_MAIL, sub=True)
    assert arrived(NEW_MAIL) == [("ann", "email", 2, True, 2, True)]
    assert arrived(deep) == [("ann", "email", None, None, 2, True)]
    assert arrived(deep, deep) == [("ann", "email", None, None, 4, True)]
    assert arrived(doubtful, deep, Change(CollectionClass.CALENDAR, 1)) == [
        ("ann", "calendar", 1, True, 1, True),
        ("ann", "email", 2, False, 4, True),
    ]


def test_the_answer_names_mailboxes_and_platforms() -> None:
    assert read_news([(["ann", "ben"], ["apns"])]) == ({"ann", "ben"}, {"apns"})
    assert read_news([([], [])]) == (set(), set())
