from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import process_time

import pytest

from eas_watcher.commands.reading import IDENTIFIER
from eas_watcher.commands.sync import Add, CollectionReply, SyncReply
from eas_watcher.errors import EasError, HierarchyChanged, NotProvisioned, ProtocolViolation, RequestRefused, ServerBusy
from eas_watcher.machine.memory import Change, Collection, Drain, restart
from eas_watcher.machine.seen import SEEN_KEPT, SeenIds
from eas_watcher.machine.sync_reply import EPOCH, Digest, digest
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ServerId, SyncKey

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
INBOX, CALENDAR = CollectionId("5"), CollectionId("7")
EMAIL = CollectionClass.EMAIL


def inbox(
    key: str = "k1",
    tries: int = 1,
    newest: datetime | None = BEFORE,
    seen: tuple[str, ...] = (),
    drain: Drain | None = None,
) -> Collection:
    return Collection(INBOX, EMAIL, SyncKey(key), tries, newest, SeenIds.of(map(ServerId, seen)), drain)


def calendar(key: str = "c1", newest: datetime | None = EPOCH, drain: Drain | None = None) -> Collection:
    return Collection(CALENDAR, CollectionClass.CALENDAR, SyncKey(key), 1, newest, drain=drain)


def mail(id_: str, received: datetime | None = AFTER, *, read: bool | None = False) -> Add:
    return Add(ServerId(id_), read, received)


def answer(
    *adds: Add,
    id_: CollectionId = INBOX,
    status: int = 1,
    key: str | None = "k2",
    more: bool = False,
    commands: bool | None = None,
) -> CollectionReply:
    has_commands = bool(adds) if commands is None else commands
    return CollectionReply(id_, status, None if key is None else SyncKey(key), more, has_commands, adds)


def read(collection: Collection, *answers: CollectionReply) -> Digest:
    return digest((collection,), SyncReply(not answers, answers), NOW)


def test_an_unread_mail_not_seen_before_is_new() -> None:
    result = read(inbox(), answer(mail("5:1")))

    assert result == Digest(
        (inbox("k2", tries=0, newest=AFTER, seen=("5:1",)),), (Change(EMAIL, 1),), moved=frozenset({INBOX})
    )


def test_a_mail_seen_before_or_read_elsewhere_is_not_new() -> None:
    result = read(inbox(seen=("5:1",)), answer(mail("5:1"), mail("5:2", read=True), mail("5:3"), mail("5:3")))

    assert result.changes == (Change(EMAIL, 1),)


def test_a_mail_of_which_the_server_does_not_say_whether_it_is_read_is_new() -> None:
    assert read(inbox(), answer(mail("5:1", read=None))).changes == (Change(EMAIL, 1),)


def test_items_of_other_classes_are_new_when_not_seen_before() -> None:
    result = read(calendar(), answer(Add(ServerId("7:1")), id_=CALENDAR))

    assert result.changes == (Change(CollectionClass.CALENDAR, 1),)


def test_changes_and_deletes_are_not_new_but_items() -> None:
    result = read(inbox(), answer(commands=True))

    assert (result.changes, result.again, result.moved) == ((), frozenset(), frozenset({INBOX}))


def test_more_available_without_items_asks_for_one_more_sync() -> None:
    result = read(inbox(), answer(more=True))

    assert (result.again, result.moved) == (frozenset({INBOX}), frozenset())


def test_a_key_that_stays_the_same_asks_for_no_more_but_its_items_count() -> None:
    result = read(inbox(), answer(mail("5:1"), key="k1", more=True))

    assert (result.changes, result.again, result.moved) == ((Change(EMAIL, 1),), frozenset(), frozenset())


@pytest.mark.parametrize("answers", [(), (answer(),), (answer(id_=CollectionId("other")),)])
def test_an_answer_without_items_ends_the_drain(answers: tuple[CollectionReply, ...]) -> None:
    result = read(inbox(tries=2), *answers)

    assert (result.changes, result.again, result.trouble) == ((), frozenset(), None)
    assert result.collections[0].tries == 0


def test_remembers_a_bounded_number_of_items_the_last_ones() -> None:
    [collection] = read(inbox(), answer(*(mail(f"5:{n}") for n in range(SEEN_KEPT + 9)))).collections

    assert len(collection.seen) == SEEN_KEPT
    assert list(collection.seen)[-1] == f"5:{SEEN_KEPT + 8}"


def test_many_items_are_compared_with_the_longest_ids_in_little_time() -> None:
    long = tuple(str(n) + "\N{GRINNING FACE}" * (IDENTIFIER - 2) for n in range(SEEN_KEPT))
    many = answer(*(mail(f"x{n}") for n in range(10_000)), mail(long[0]))

    began = process_time()
    result = read(inbox(seen=long), many)

    assert process_time() - began < 1.0, "it takes 20 ms, and seconds if each id is looked for in the text of all"
    assert result.changes == (Change(EMAIL, 10_000),)


def test_an_older_mail_does_not_move_the_newest_receive_time_back() -> None:
    assert read(inbox(newest=AFTER), answer(mail("5:1", BEFORE))).collections[0].newest == AFTER


def test_after_a_mail_dated_years_ahead_the_next_drain_still_finds_new_mail() -> None:
    [now] = read(inbox(), answer(mail("5:1", NOW + timedelta(days=3000)))).collections
    assert now.newest == NOW

    draining = replace(restart(now), sync_key=SyncKey("k3"))
    later = digest(
        (draining,), SyncReply(empty=False, collections=(answer(mail("5:9", NOW + timedelta(minutes=5))),)), NOW
    )

    assert later.collections[0].drain == Drain(NOW, frozenset({ServerId("5:1")}), found=1)


def test_the_first_key_begins_a_silent_drain() -> None:
    primed = inbox("k2", tries=0, newest=None, drain=Drain(None))

    assert read(inbox(NO_SYNC_KEY, newest=None), answer()) == Digest((primed,), again=frozenset({INBOX}))


def test_the_backlog_of_a_first_drain_is_not_new() -> None:
    draining = inbox(newest=None, drain=Drain(None))

    result = read(draining, answer(mail("5:1"), mail("5:2", None)))
    assert (result.changes, result.again) == ((), frozenset({INBOX}))

    [settled] = (done := read(result.collections[0], answer(key="k3"))).collections
    assert (done.changes, done.again, settled.drain, settled.newest) == ((), frozenset(), None, AFTER)


def test_a_drain_that_found_nothing_dated_remembers_the_epoch() -> None:
    assert read(inbox(newest=None, drain=Drain(None))).collections[0].newest == EPOCH


def test_an_unknown_key_starts_the_collection_over() -> None:
    result = read(inbox(seen=("5:1",)), answer(status=3, key=None))

    assert result == Digest(
        (inbox(NO_SYNC_KEY, 0, drain=Drain(BEFORE, frozenset({ServerId("5:1")}))),),
        again=frozenset({INBOX}),
        lost=frozenset({INBOX}),
    )


def after_lost_state(*adds: Add, seen: tuple[str, ...] = ("5:1",)) -> tuple[Change, ...]:
    lost = restart(inbox(seen=seen))
    primed = read(lost, answer(key="n1")).collections[0]
    drained = read(primed, answer(*adds, key="n2"))
    assert drained.changes == ()
    return read(drained.collections[0]).changes


def test_after_a_lost_state_items_that_arrived_later_are_new() -> None:
    assert after_lost_state(mail("5:8", BEFORE - timedelta(days=1)), mail("5:9", AFTER)) == (Change(EMAIL, 1),)


def test_after_a_lost_state_nothing_is_new_when_nothing_arrived() -> None:
    assert after_lost_state(mail("5:1", BEFORE), mail("5:9", AFTER, read=True)) == ()


def test_after_a_lost_state_an_id_that_is_reused_is_not_a_known_item() -> None:
    assert after_lost_state(mail("5:1", AFTER)) == (Change(EMAIL, 1),)


def test_after_a_lost_state_ids_decide_where_the_receive_time_cannot() -> None:
    assert after_lost_state(mail("5:1", BEFORE), mail("5:2", BEFORE)) == (Change(EMAIL, 1),)
    assert after_lost_state(mail("5:1", None), mail("5:2", None)) == (Change(EMAIL, 1),)


def test_ids_of_a_lost_state_hide_no_later_mail() -> None:
    primed = read(restart(inbox(seen=("5:40",))), answer(key="n1")).collections[0]
    [settled] = read(primed).collections

    assert read(settled, answer(mail("5:40", NOW))).changes == (Change(EMAIL, 1),)


def test_a_drain_that_is_interrupted_finds_the_same_items_again() -> None:
    primed = read(restart(inbox()), answer(key="n1")).collections[0]
    half = read(primed, answer(mail("5:1", AFTER), key="n2", more=True)).collections[0]

    again = read(restart(half), answer(key="m1")).collections[0]
    whole = read(again, answer(mail("5:1", AFTER), key="m2")).collections[0]

    assert read(whole).changes == (Change(EMAIL, 1),)


def test_classes_without_a_receive_time_have_uncertain_changes_after_a_lost_state() -> None:
    draining = calendar(drain=Drain(EPOCH))

    assert digest((draining,), SyncReply(empty=True), NOW).changes == (
        Change(CollectionClass.CALENDAR, 1, certain=False),
    )


def test_a_drain_ends_with_a_key_that_stays_the_same() -> None:
    result = read(inbox(drain=Drain(BEFORE)), answer(mail("5:1"), key="k1", more=True))

    assert result.changes == (Change(EMAIL, 1),)
    assert result.collections[0].drain is None


@pytest.mark.parametrize("status", [6, 7])
def test_complaints_about_items_that_were_never_sent_do_not_hide_an_answer(status: int) -> None:
    result = read(inbox(), answer(status=status))

    assert result.trouble is None
    assert result.collections[0].sync_key == "k2"


@pytest.mark.parametrize(
    ("collection", "answers", "trouble"),
    [
        (inbox(NO_SYNC_KEY), (), HierarchyChanged),
        (inbox(NO_SYNC_KEY), (answer(status=3),), ServerBusy),
        (inbox(), (answer(key=None),), ProtocolViolation),
        (inbox(), (answer(key=NO_SYNC_KEY),), ProtocolViolation),
        (inbox(), (answer(status=4),), RequestRefused),
        (inbox(), (answer(status=5),), ServerBusy),
        (inbox(), (answer(status=6, key=None),), ServerBusy),
        (inbox(), (answer(status=7, key=None),), ServerBusy),
        (inbox(), (answer(status=8),), HierarchyChanged),
        (inbox(), (answer(status=9),), ServerBusy),
        (inbox(), (answer(status=12),), HierarchyChanged),
        (inbox(), (answer(status=16),), ServerBusy),
        (inbox(), (answer(status=142),), NotProvisioned),
        (inbox(), (answer(status=999),), ProtocolViolation),
    ],
)
def test_the_failure_of_a_collection_leaves_it_as_it_was(
    collection: Collection, answers: tuple[CollectionReply, ...], trouble: type[EasError]
) -> None:
    result = read(collection, *answers)

    assert type(result.trouble) is trouble
    assert (result.collections, result.changes, result.again) == ((collection,), (), frozenset())


def test_the_failure_of_one_collection_keeps_the_changes_of_the_other() -> None:
    reply = SyncReply(empty=False, collections=(answer(status=8), answer(Add(ServerId("7:1")), id_=CALENDAR)))

    result = digest((inbox(), calendar()), reply, NOW)

    assert isinstance(result.trouble, HierarchyChanged)
    assert result.changes == (Change(CollectionClass.CALENDAR, 1),)
    assert (result.again, result.moved) == (frozenset(), frozenset({CALENDAR}))


def test_the_first_failure_is_the_one_returned() -> None:
    reply = SyncReply(empty=False, collections=(answer(status=8), answer(id_=CALENDAR, status=5)))

    assert isinstance(digest((inbox(), calendar()), reply, NOW).trouble, HierarchyChanged)


def test_mail_that_was_announced_and_appears_in_a_subfolder_was_moved() -> None:
    sub = replace(inbox(), sub=True)
    answered = SyncReply(empty=False, collections=(answer(mail("5:7", BEFORE), mail("5:8", AFTER), mail("5:9", None)),))

    assert digest((sub,), answered, NOW, announced_until=BEFORE).changes == (Change(EMAIL, 2, sub=True),)
    assert digest((sub,), answered, NOW).changes == (Change(EMAIL, 3, sub=True),)
    assert digest((inbox(),), answered, NOW, announced_until=BEFORE).changes == (Change(EMAIL, 3),)


def test_items_of_other_classes_in_subfolders_are_new_whenever_they_arrived() -> None:
    sub = replace(calendar(), sub=True)
    answered = SyncReply(empty=False, collections=(answer(Add(ServerId("7:1")), id_=CALENDAR),))

    assert digest((sub,), answered, NOW, announced_until=NOW).changes == (
        Change(CollectionClass.CALENDAR, 1, sub=True),
    )
