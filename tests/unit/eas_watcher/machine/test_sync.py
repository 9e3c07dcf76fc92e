from dataclasses import replace
from typing import Final

import pytest

from eas_watcher import backoff
from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.commands.ping import Ping, PingStatus
from eas_watcher.commands.sync import CollectionReply, CollectionRequest, Sync
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    RequestRefused,
    ServerBusy,
    StateLost,
    TooManyCollections,
    Unauthorized,
    Unreachable,
    VersionRefused,
)
from eas_watcher.machine.counters import UNLISTED, HourlyCount
from eas_watcher.machine.memory import Change, Collection, Condition, Drain, Progress, WatchState
from eas_watcher.machine.ping import HASTY
from eas_watcher.machine.remedies import HOPELESS
from eas_watcher.machine.seen import SeenIds
from eas_watcher.machine.state import (
    MOST_COLLECTIONS,
    Action,
    Answered,
    Event,
    Failed,
    Pause,
    Pausing,
    Pinging,
    ReadingHierarchy,
    Record,
    Send,
    State,
    Syncing,
    Woken,
)
from eas_watcher.machine.step import proceed, step
from eas_watcher.machine.sync import KEY_TRIES, MOST_TRIES, SYNC_FAILURES
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ServerId, SyncKey
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import (
    CALENDAR,
    EMAIL,
    INBOX,
    NOW,
    PRIME,
    SYNC,
    altered,
    news,
    paused,
    pinged,
    recorded,
    sent,
    synced,
    syncing,
    watch_of,
)

PING: Final = Ping(600, ((INBOX.id, INBOX.cls),))
WATCHING: Final = Progress(condition=Condition(WatchState.WATCHING))


def test_primes_collections_without_a_key_by_themselves() -> None:
    keyless = replace(CALENDAR, sync_key=NO_SYNC_KEY)

    _, actions = proceed(watch_of(INBOX, keyless, unsynced=frozenset({INBOX.id, keyless.id})))

    assert sent(actions) == Sync((CollectionRequest(keyless.id, keyless.cls, NO_SYNC_KEY),))


def test_syncs_all_that_is_due_in_one_request() -> None:
    state, actions = proceed(watch_of(INBOX, CALENDAR, unsynced=frozenset({INBOX.id, CALENDAR.id})))

    request = sent(actions)
    assert isinstance(request, Sync)
    assert [c.id for c in request.collections] == ["5", "7"]
    assert [c.tries for c in state.watch.collections] == [1, 1]


def test_ignores_answers_for_collections_that_were_not_asked_for() -> None:
    notes = Collection(CollectionId("9"), CollectionClass.NOTES)

    assert sent(proceed(watch_of(INBOX, notes, classes=EMAIL))[1]) == PING


def test_gives_up_a_key_that_was_tried_three_times() -> None:
    worn = replace(INBOX, tries=KEY_TRIES)

    state, actions = proceed(watch_of(worn, unsynced=frozenset({INBOX.id})))

    assert sent(actions) == PRIME
    assert state.watch.collections[0].drain == Drain(INBOX.newest)
    assert recorded(actions) == []


def test_new_items_are_committed_with_their_key_before_the_next_request() -> None:
    state, actions = step(syncing(shown=WatchState.WATCHING), synced(news("5:1", "5:2")))

    moved = replace(INBOX, sync_key=SyncKey("k2"), newest=NOW, seen=SeenIds.of([ServerId("5:1"), ServerId("5:2")]))
    assert actions == [
        Record(Progress(collections=(moved,), changes=(Change(CollectionClass.EMAIL, 2),))),
        Send(PING),
    ]
    assert isinstance(state, Pinging)


def test_a_server_that_has_more_gets_another_sync() -> None:
    state, actions = step(syncing(), synced(news("5:1", more=True)))

    assert sent(actions) == Sync((CollectionRequest(INBOX.id, INBOX.cls, SyncKey("k2")),))
    assert isinstance(state, Syncing)
    assert sent(step(state, synced())[1]) == PING


def after_ping(state: State, held: float, *answer: CollectionReply) -> tuple[State, list[Action]]:
    """Return what follows a Ping that reports changes of the Inbox, and the answer to the Sync of them."""
    state, actions = step(state, pinged(PingStatus.CHANGED, INBOX.id, held=held))
    assert isinstance(sent(actions), Sync)
    return step(state, synced(*answer))


def test_a_server_whose_ping_ends_at_once_after_items_gets_another_sync_after_items_from_then_on() -> None:
    state, _ = step(syncing(), synced(news("5:1")))

    state, actions = after_ping(state, 0.1)
    assert (sent(actions), state.watch.confirms) == (PING, True)
    state, actions = after_ping(state, 60.0, news("5:2", key="k3"))
    assert sent(actions) == Sync((CollectionRequest(INBOX.id, INBOX.cls, SyncKey("k3")),))
    state, actions = step(state, synced(news(key="k4")))
    assert sent(actions) == PING


@pytest.mark.parametrize(
    ("held", "answer"),
    [
        (0.1, (news("5:2", key="k3"),)),  # another mail came before the Ping
        (0.1, (replace(news(key="k3"), has_commands=True),)),  # or something was read
        (0.1, (news(key=None, status=8),)),
        (HASTY, ()),  # something came and went
    ],
)
def test_a_ping_that_ends_for_another_reason_asks_for_no_more_syncs(
    held: float, answer: tuple[CollectionReply, ...]
) -> None:
    state, _ = step(syncing(), synced(news("5:1")))

    state, _ = after_ping(state, held, *answer)

    assert not state.watch.confirms


def test_a_sync_after_a_wait_or_of_another_collection_says_nothing_about_the_pings() -> None:
    state, _ = step(syncing(INBOX, CALENDAR), synced(news("5:1")))
    other, _ = step(state, pinged(PingStatus.CHANGED, CALENDAR.id, held=0.1))
    rested, _ = step(Pausing(state.watch), Woken())

    assert [step(each, synced())[0].watch.confirms for each in (other, rested)] == [False, False]


def test_pings_when_a_sync_shows_nothing() -> None:
    _, actions = step(syncing(shown=WatchState.WATCHING), synced())

    assert actions == [Send(PING)]


def test_a_sync_that_is_answered_clears_the_count_of_redirects() -> None:
    state, _ = step(syncing(redirects=2, provisions=HourlyCount(2), silent_for=9.0), synced())
    shown, _ = step(syncing(silent_for=9.0), synced(news("5:1")))

    assert (state.watch.counters.redirects, state.watch.counters.silent_for) == (0, 9.0)
    assert state.watch.counters.provisions == HourlyCount(
        2
    )  # a policy that is due again after each Sync is a loop, too
    assert shown.watch.counters.silent_for == 0.0


def test_new_items_are_a_sign_that_all_is_well() -> None:
    state, _ = step(syncing(failures=5, fast_pings=3), synced(news("5:1")))
    quiet, _ = step(syncing(failures=5, fast_pings=3), synced())

    assert (state.watch.counters.failures, state.watch.counters.fast_pings) == (0, 0)
    assert (quiet.watch.counters.failures, quiet.watch.counters.fast_pings) == (5, 3)


def test_what_a_user_does_elsewhere_is_no_hot_loop_while_the_syncs_show_it() -> None:
    read_or_deleted = replace(news(), has_commands=True)
    elsewhere, _ = step(syncing(failures=5, fast_pings=3), synced(read_or_deleted))
    repeated, _ = step(syncing(fast_pings=3), synced(replace(read_or_deleted, sync_key=INBOX.sync_key)))
    lost, _ = step(syncing(fast_pings=3), synced(news(status=3)))

    assert (elsewhere.watch.counters.failures, elsewhere.watch.counters.fast_pings) == (5, 0)
    assert [repeated.watch.counters.fast_pings, lost.watch.counters.fast_pings] == [3, 3]


def test_what_a_user_does_elsewhere_is_a_good_reason_for_a_ping_to_end_at_once() -> None:
    tidied = replace(news(), has_commands=True)

    state, _ = step(syncing(failures=5, fast_pings=3), synced(tidied))

    assert (state.watch.counters.failures, state.watch.counters.fast_pings) == (5, 0)


def test_a_whole_answer_clears_the_tries_of_the_key_in_the_journal_too() -> None:
    _, actions = step(syncing(replace(INBOX, tries=2), shown=WatchState.WATCHING), synced())

    assert recorded(actions) == [Progress(collections=(INBOX,))]


def test_an_accepted_credential_is_recorded_even_when_nothing_is_new() -> None:
    state, actions = step(syncing(refusals=2, shown=WatchState.WATCHING), synced())

    assert recorded(actions) == [Progress(refusals=0)]
    assert state.watch.counters.refusals == 0


def test_records_nothing_of_a_drain_until_it_ends() -> None:
    keyless = replace(INBOX, sync_key=NO_SYNC_KEY)
    state, actions = step(syncing(keyless), synced(news(key="n1")))
    assert recorded(actions) == []
    state, actions = step(state, synced(news("5:7", key="n2")))
    assert recorded(actions) == []

    state, actions = step(state, synced())

    settled = replace(INBOX, sync_key=SyncKey("n2"), newest=NOW, seen=SeenIds.of([ServerId("5:7")]))
    assert recorded(actions)[0] == Progress(collections=(settled,), changes=(Change(CollectionClass.EMAIL, 1),))
    assert sent(actions) == PING


def test_a_key_the_server_forgot_starts_the_collection_over_at_once() -> None:
    state, actions = step(syncing(), synced(news(key=None, status=3)))

    assert sent(actions) == PRIME
    assert state.watch.counters.failures == 1


def test_a_server_that_forgets_every_key_is_not_asked_in_a_busy_loop() -> None:
    assert paused(step(syncing(failures=3, remedies=3), synced(news(key=None, status=3)))[1]).failures == 4


def test_the_failure_of_one_collection_commits_the_changes_of_the_other_first() -> None:
    trouble, good = news(status=5), news("7:1", of=CALENDAR, key="c2")

    state, actions = step(syncing(INBOX, CALENDAR), synced(trouble, good))

    assert recorded(actions)[0].changes == (Change(CollectionClass.CALENDAR, 1),)
    assert paused(actions).failures == 1
    assert state.watch.unsynced == {INBOX.id, CALENDAR.id}


def test_a_failure_that_asks_for_the_hierarchy_reads_it_after_the_commit() -> None:
    _, actions = step(syncing(INBOX, CALENDAR), synced(news(status=8), news("7:1", of=CALENDAR, key="c2")))

    assert recorded(actions)[0].changes == (Change(CollectionClass.CALENDAR, 1),)
    assert sent(actions) == FolderSync(SyncKey("h1"))


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("x", reached=False),
        ServerBusy("x", reached=False),
        Unauthorized("x"),
        NotProvisioned("x"),
        AccessDenied("x", Reason.HTTP_403),
        VersionRefused("x"),
    ],
)
def test_a_sync_that_the_server_did_not_process_uses_up_no_try(error: EasError) -> None:
    state, _ = step(syncing(), Failed(error))

    assert state.watch.collections[0].tries == 0
    assert not state.watch.hierarchy_due


@pytest.mark.parametrize("error", [Unreachable("x", 1.0), ServerBusy("x"), ProtocolViolation("x")])
def test_a_lost_answer_to_a_sync_uses_up_a_try_of_the_key_and_is_recorded(error: EasError) -> None:
    state, actions = step(syncing(), Failed(error))

    tried = replace(INBOX, tries=1)
    assert state.watch.collections == (tried,)
    assert paused(actions).progress.collections == (tried,)


def test_a_sync_over_a_stale_connection_is_repeated_at_once_and_uses_up_a_try() -> None:
    stale = Failed(Unreachable("x", stale=True))

    state, actions = step(syncing(), stale)

    assert sent(actions) == SYNC
    assert [collection.tries for collection in state.watch.collections] == [2]
    state, actions = step(state, stale)
    assert isinstance(state, Pausing)
    assert state.watch.hierarchy_due  # each try uses up the key, so a request that may be repeated goes first


def test_an_outage_uses_up_no_tries_of_the_keys() -> None:
    state, _ = step(syncing(), Failed(ServerBusy("x")))
    for _ in range(10):
        state, actions = step(state, Woken())
        assert sent(actions) == FolderSync(SyncKey("h1"))
        state, _ = step(state, Failed(ServerBusy("x")))
    state, _ = step(state, Woken())

    _, actions = step(state, Answered(FolderSyncReply(SyncKey("h2")), NOW))

    assert sent(actions) == SYNC


def test_a_lost_state_uses_up_no_try_of_a_key() -> None:
    state, actions = step(syncing(), Failed(StateLost("x")))

    assert sent(actions) == FolderSync(NO_SYNC_KEY)
    assert state.watch.collections[0].tries == 0


def test_a_changed_hierarchy_is_read_before_the_next_sync() -> None:
    assert sent(step(syncing(), Failed(HierarchyChanged("x")))[1]) == FolderSync(SyncKey("h1"))


def test_a_server_that_loses_its_keys_again_and_again_is_not_made_to_start_over_again_and_again() -> None:
    """A Ping reports a change, the Sync finds the key unknown, Pings are held again, and so on for a day."""
    state, actions = step(Pinging(watch_of()), pinged(PingStatus.CHANGED, "5", held=60.0))
    now, starts = 60.0, []
    lost, key = news(key=None, status=3), news(key="k2")
    while now < 24 * 3600:
        match actions[-1]:
            case Send(Sync((asked,))) if asked.sync_key == NO_SYNC_KEY:
                starts.append(now)
                event: Event = synced(key)
            case Send(Sync()):
                event = synced() if state.watch.collections[0].drain else synced(lost)
            case Send(FolderSync()):
                event = Answered(FolderSyncReply(SyncKey("h2")), NOW)
            case Send(Ping()):
                now += 60.0
                event = pinged(PingStatus.CHANGED, "5", held=60.0)
            case Pause(_, failures, seconds):
                now += backoff.least(failures) if seconds is None else seconds
                event = Woken()
            case action:
                raise AssertionError(action)
        state, actions = step(state, event)

    hours = [sum(start <= moment < start + 3600 for moment in starts) for start in starts]
    assert max(hours) <= HOPELESS + 1
    assert len(starts) <= 24 * HOPELESS


def test_a_subfolder_that_cannot_be_synced_is_parked_at_the_third_failure() -> None:
    sub = replace(INBOX, id=CollectionId("20"), sub=True)
    watch = watch_of(INBOX, sub, subfolders=EMAIL, unsynced=frozenset({INBOX.id, sub.id}))
    answer = synced(news(key="k2"), news(of=sub, status=8, key=None))

    for _ in range(2):
        state, actions = step(Syncing(watch, (INBOX.id, sub.id)), answer)
        assert isinstance(sent(actions), FolderSync)
        watch = replace(state.watch, hierarchy_due=False)
    state, _ = step(Syncing(watch, (INBOX.id, sub.id)), answer)

    assert isinstance(state, Syncing)  # the Inbox again, without it
    assert state.asked == (INBOX.id,)
    assert state.watch.parked == {sub.id}
    assert hash(state.watch.parked)  # watches have equal ones in common


def test_a_subfolder_that_is_synced_in_between_has_no_failures_any_more() -> None:
    sub = replace(INBOX, id=CollectionId("20"), sub=True)
    watch = watch_of(INBOX, sub, subfolders=EMAIL, unsynced=frozenset({sub.id}), sync_failures=(sub.id, sub.id))

    state, _ = step(Syncing(watch, (sub.id,)), synced(news(of=sub)))

    assert state.watch.sync_failures == ()


def test_mail_does_not_wait_for_a_folder_that_the_server_does_not_prime() -> None:
    calendar = replace(CALENDAR, sync_key=NO_SYNC_KEY, tries=1)
    watch = watch_of(INBOX, calendar, unsynced=frozenset({INBOX.id, CALENDAR.id}))

    state, actions = proceed(watch)
    assert sent(actions) == SYNC
    state, actions = step(state, synced(news("5:1")))

    assert [change.count for change in recorded(actions)[0].changes] == [1]
    assert isinstance(state, Syncing)
    assert state.asked == (CALENDAR.id,)
    assert paused(step(state, synced(news(of=CALENDAR, status=5, key=None)))[1]).failures == 1


def test_mail_does_not_wait_for_a_calendar_that_cannot_be_synced() -> None:
    asked = INBOX.id, CALENDAR.id
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset(asked))
    answer = synced(news(key="k2"), news(of=CALENDAR, status=5, key=None))

    for _ in range(2):
        state, actions = step(Syncing(watch, asked), answer)
        assert paused(actions).failures
        watch = state.watch
    state, _ = step(Syncing(watch, asked), answer)

    assert state.watch.parked == {CALENDAR.id}
    _, actions = step(state, synced())
    assert sent(actions) == PING


@pytest.mark.parametrize(
    "error",
    [ServerBusy("Sync status 5"), ServerBusy("HTTP 502", shared=True), ProtocolViolation("x"), Unreachable("x")],
)
def test_the_folder_that_makes_a_whole_sync_fail_is_found_and_parked(error: EasError) -> None:
    state, _ = proceed(watch_of(INBOX, CALENDAR, unsynced=frozenset({INBOX.id, CALENDAR.id})))
    asked: list[tuple[CollectionId, ...]] = []

    while not isinstance(state, Pinging):
        event: Event = Woken()
        if isinstance(state, ReadingHierarchy):
            event = Answered(FolderSyncReply(SyncKey("h2")), NOW)
        elif isinstance(state, Syncing):
            asked.append(state.asked)
            event = Failed(error) if CALENDAR.id in state.asked else synced()
        state, _ = step(state, event)

    inbox, calendar = (INBOX.id,), (CALENDAR.id,)
    assert asked[:4] == [(*inbox, *calendar), (*inbox, *calendar), inbox, calendar]
    assert asked.count(calendar) == SYNC_FAILURES + 1
    assert set(asked[4:]) == {inbox, calendar}
    assert state.watch.parked == {CALENDAR.id}
    assert not state.watch.singly


@pytest.mark.parametrize(
    "error",
    [
        ServerBusy("HTTP 503", reached=False),
        Unreachable("x", reached=False),
        StateLost("x"),
        NotProvisioned("x"),
        TooManyCollections("x", None),
        AccessDenied("x", Reason.HTTP_403),
    ],
)
def test_failures_that_are_no_folders_fault_park_none(error: EasError) -> None:
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset({CALENDAR.id}), sync_failures=(CALENDAR.id,) * 2, failures=1)

    alone, _ = step(Syncing(watch, (CALENDAR.id,)), Failed(error))
    together, _ = step(Syncing(watch, (INBOX.id, CALENDAR.id)), Failed(error))

    assert (alone.watch.parked, together.watch.singly) == (frozenset(), False)


def test_the_inbox_is_never_parked() -> None:
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset({INBOX.id}))
    for _ in range(6):
        state, _ = step(Syncing(watch, (INBOX.id,)), synced(news(status=8, key=None)))
        watch = state.watch

    assert watch.parked == frozenset()


@pytest.mark.parametrize("asked", [(CALENDAR.id,), (INBOX.id, CALENDAR.id)])
def test_no_folder_is_parked_while_none_is_in_step(asked: tuple[CollectionId, ...]) -> None:
    """The server may have a fault that is no folder's; and something must be left to watch."""
    answer = synced(news(status=5, key=None), news(of=CALENDAR, status=5, key=None))
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset({INBOX.id, CALENDAR.id}))
    alone = watch_of(CALENDAR)
    for _ in range(6):
        state, _ = step(Syncing(watch, asked), answer)
        watch = replace(state.watch, unsynced=frozenset({INBOX.id, CALENDAR.id}))
        state, _ = step(Syncing(alone, (CALENDAR.id,)), answer)
        alone = state.watch

    assert watch.parked == frozenset()
    assert alone.parked == frozenset()


def test_failures_while_no_folder_is_in_step_park_none_when_the_first_one_is() -> None:
    """The mail store was away, and comes back folder by folder."""
    asked = INBOX.id, CALENDAR.id
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset(asked))
    broken, whole = news(of=CALENDAR, status=5, key=None), news(status=5, key=None)

    for answer in (synced(whole, broken),) * 6 + (synced(broken),) * SYNC_FAILURES:
        state, _ = step(Syncing(watch, asked), answer)
        watch = replace(state.watch, unsynced=frozenset(asked))
        assert watch.parked == frozenset()

    assert step(Syncing(watch, asked), synced(broken))[0].watch.parked == {CALENDAR.id}


def test_a_parked_folder_is_tried_again_soon_then_ever_more_seldom() -> None:
    """A fault of two minutes must not keep the mail of a sub-folder for hours."""
    broken = synced(news(of=CALENDAR, status=5, key=None))
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset({CALENDAR.id}), sync_failures=(CALENDAR.id,) * SYNC_FAILURES)
    waits = []
    for _ in range(8):
        watch = step(Syncing(watch, (CALENDAR.id,)), broken)[0].watch
        assert watch.parked == {CALENDAR.id}
        waits.append((UNLISTED - watch.counters.unlisted_for) / 60.0)
        watch = altered(watch.unparked(), unlisted_for=0.0, unsynced=frozenset({CALENDAR.id}))

    assert waits == [10, 20, 40, 80, 160, 180, 180, 180]
    assert len(watch.sync_failures) == SYNC_FAILURES + MOST_TRIES


@pytest.mark.parametrize("key", [CALENDAR.sync_key, NO_SYNC_KEY])
def test_folders_that_failed_lately_are_asked_for_after_all_others(key: SyncKey) -> None:
    calendar = replace(CALENDAR, sync_key=key)
    watch = watch_of(INBOX, calendar, unsynced=frozenset({INBOX.id, CALENDAR.id}), sync_failures=(CALENDAR.id,) * 2)
    refused = RequestRefused("Sync status 4")

    state, actions = proceed(watch)
    assert sent(actions) == SYNC
    state, _ = step(state, synced())
    assert isinstance(state, Syncing)
    assert state.asked == (CALENDAR.id,)

    state, actions = step(state, Failed(refused))
    assert sent(actions) == PING, "no other folder starts from key 0 for it"
    assert state.watch.parked == {CALENDAR.id}


def test_no_more_than_some_collections_are_asked_for_in_one_sync() -> None:
    subs = tuple(replace(INBOX, id=CollectionId(str(n)), sync_key=NO_SYNC_KEY, sub=True) for n in range(100, 145))

    state, _ = proceed(watch_of(INBOX, *subs, subfolders=EMAIL))

    assert isinstance(state, Syncing)
    assert len(state.asked) == MOST_COLLECTIONS
