from typing import Any

from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.sync import Sync
from eas_watcher.errors import ServerBusy
from eas_watcher.machine.memory import Change, Condition, Memory, WatchState
from eas_watcher.machine.ping import HIERARCHY
from eas_watcher.machine.state import Failed, Move, Pausing, Policy, Syncing, Watch, Woken
from eas_watcher.machine.step import begin, proceed, step
from eas_watcher.names import CollectionClass
from tests.unit.eas_watcher.watching import INBOX, PARTNERSHIP, altered, news, paused, recorded, sent, synced, watch_of

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
    state, actions = step(state, synced())
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
