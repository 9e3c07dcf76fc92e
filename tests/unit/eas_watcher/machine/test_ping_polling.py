from dataclasses import replace
from typing import Any

from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.ping import PingStatus
from eas_watcher.commands.sync import Sync
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.memory import Change, Condition, Memory, WatchState
from eas_watcher.machine.ping import HIERARCHY
from eas_watcher.machine.remedies import IMMEDIATE
from eas_watcher.machine.state import Failed, Full, Move, Pausing, Pinging, Policy, Syncing, Watch, Woken
from eas_watcher.machine.step import POLL_AGAIN, begin, proceed, step
from eas_watcher.names import CollectionClass
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import (
    INBOX,
    PARTNERSHIP,
    altered,
    news,
    paused,
    pinged,
    recorded,
    sent,
    synced,
    watch_of,
)

POLICY = Policy(poll_interval=300.0)


def polling(**changes: Any) -> Watch:
    return watch_of(INBOX, policy=POLICY, **changes)


def rested(watch: Watch) -> Move:
    """Pause once and wake."""
    state, actions = proceed(watch)
    assert isinstance(state, Pausing)
    assert paused(actions).seconds == 300.0
    return step(state, Woken())


def test_pauses_instead_of_a_ping_and_records_once_that_it_watches() -> None:
    state, actions = proceed(polling())

    assert isinstance(state, Pausing)
    assert paused(actions).progress.condition is None
    assert [progress.condition for progress in recorded(actions)] == [Condition(WatchState.WATCHING)]
    assert recorded(proceed(altered(state.watch, requests=0))[1]) == []


def test_a_poll_pause_is_followed_by_a_sync_of_everything() -> None:
    state, actions = rested(polling())

    assert isinstance(state, Syncing)
    assert isinstance(sent(actions), Sync)


def test_what_a_sync_shows_is_committed_before_the_next_pause() -> None:
    state, _ = rested(polling())

    state, actions = step(state, synced(news("5:1")))
    assert recorded(actions)[0].changes == (Change(CollectionClass.EMAIL, 1),)
    assert isinstance(state, Pausing)
    assert paused(actions).seconds == 300.0


def test_never_pings() -> None:
    state, actions = begin(Memory(PARTNERSHIP, (INBOX,)), POLICY)
    for _ in range(100):
        state, actions = step(state, Woken() if isinstance(state, Pausing) else synced())
        assert isinstance(state, Pausing) or isinstance(sent(actions), Sync | FolderSync)
        if isinstance(sent(actions), FolderSync):
            break
    else:
        raise AssertionError("the hierarchy is never read")


def test_reads_the_hierarchy_once_an_hour() -> None:
    polled_for, hours = 0.0, []
    for round_ in range(1, 50):
        state, actions = rested(polling(polled_for=polled_for))
        if isinstance(sent(actions), FolderSync):
            hours.append(round_ * 300.0)
        polled_for = state.watch.counters.polled_for

    assert hours == [HIERARCHY, 2 * HIERARCHY, 3 * HIERARCHY, 4 * HIERARCHY]


def test_a_poll_that_was_answered_clears_the_count_of_failures() -> None:
    state, _ = rested(polling(failures=2))
    state, actions = step(state, Failed(ServerBusy("busy")))

    assert paused(actions).failures == 1
    assert paused(actions).seconds is None


def test_silence_is_counted_for_the_operator() -> None:
    state, _ = proceed(polling())

    assert state.watch.counters.silent_for == 300.0


TURNS = "mail.example.com holds about 4 Pings at once"


def test_where_the_server_holds_no_more_pings_a_sync_stands_in_until_it_is_the_mailboxs_turn() -> None:
    state, actions = step(Pinging(watch_of(shown=WatchState.WATCHING, failures=3)), Full(90.0, TURNS))

    assert isinstance(state, Pausing)
    pause = paused(actions)
    assert (pause.seconds, pause.polls, pause.in_turn) == (90.0, True, True)
    assert [progress.condition for progress in recorded(actions)] == [Condition(WatchState.WATCHING, detail=TURNS)]
    assert state.watch.counters.failures == 0
    assert isinstance(step(state, Woken())[0], Syncing)
    assert recorded(step(Pinging(state.watch), Full(90.0, TURNS))[1]) == [], "it is recorded already"


def test_what_the_capacity_means_is_shown_no_longer_once_all_are_held() -> None:
    watch = watch_of(shown=WatchState.WATCHING, shown_detail=TURNS, capacity=TURNS)

    state, actions = step(Pinging(watch), pinged(PingStatus.EXPIRED, held=600.0))

    assert isinstance(state, Pinging)
    assert [progress.condition for progress in recorded(actions)] == [Condition(WatchState.WATCHING)]


def test_a_ping_that_was_shortened_for_others_says_nothing_of_longer_ones() -> None:
    watch = watch_of(shown=WatchState.WATCHING)
    for _ in range(3):
        state, _ = step(Pinging(watch), replace(pinged(PingStatus.EXPIRED, held=60.4), asked=60))
        assert isinstance(state, Pinging)
        assert (state.watch.heartbeat, state.watch.unsynced) == (watch.heartbeat, frozenset())

    early, _ = step(Pinging(watch), replace(pinged(PingStatus.EXPIRED, held=40.0), asked=60))
    assert isinstance(early, Syncing), "a server that restarts may have lost a change"


def test_a_ping_that_found_no_worker_shortens_no_heartbeat_and_keeps_the_mailbox_watched() -> None:
    watch = watch_of(shown=WatchState.WATCHING)

    state, actions = step(Pinging(watch), Failed(ServerBusy("x", shared=True, full=True)))

    assert isinstance(state, Pausing)
    assert (state.watch.heartbeat, recorded(actions), paused(actions).seconds) == (watch.heartbeat, [], POLL_AGAIN)


def test_other_requests_that_find_no_worker_are_repeated_within_a_minute() -> None:
    state, actions = step(Syncing(watch_of(failures=8), (INBOX.id,)), Failed(ServerBusy("x", shared=True, full=True)))

    assert isinstance(state, Pausing)
    pause = paused(actions)
    assert (pause.failures, pause.seconds) == (IMMEDIATE, None)
    assert pause.progress.condition is not None
    assert pause.progress.condition.reason is Reason.SERVER_BUSY
