from dataclasses import replace

import pytest

from eas_watcher.commands.ping import PingReply, PingStatus
from eas_watcher.heartbeat import HELD, Heartbeat
from eas_watcher.machine.memory import Progress
from eas_watcher.machine.ping import BREATHER, HASTY_ALLOWED, SETTLED, ping_of, read_ping
from eas_watcher.machine.remedies import RECHECK
from eas_watcher.machine.state import Move, Pause, Pausing, Watch
from eas_watcher.names import NO_SYNC_KEY, CollectionId
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import CALENDAR, EMAIL, INBOX, NEWEST, altered, watch_of

BOTH = frozenset({INBOX.id, CALENDAR.id})
WATCH = watch_of(INBOX, CALENDAR, requests=3, failures=2)


def go_on(decided: Watch | Move) -> Watch:
    assert isinstance(decided, Watch)
    return decided


def wait(decided: Watch | Move) -> tuple[Reason | None, Pause]:
    assert isinstance(decided, tuple)
    [action] = decided[1]
    assert isinstance(action, Pause)
    assert action.progress.condition is not None
    return action.progress.condition.reason, action


def rested(decided: Watch | Move) -> Move:
    assert isinstance(decided, tuple)
    assert isinstance(decided[0], Pausing)
    return decided


def expired(watch: Watch, held: float) -> Watch | Move:
    return read_ping(watch, PingReply(PingStatus.EXPIRED), held)


def changed(watch: Watch, *ids: str, held: float) -> Watch | Move:
    return read_ping(watch, PingReply(PingStatus.CHANGED, tuple(map(CollectionId, ids))), held)


def test_a_ping_held_to_its_end_clears_the_failures() -> None:
    watch = go_on(expired(WATCH, 600.0))

    assert watch == altered(
        WATCH,
        heartbeat=Heartbeat(expiries=1),
        requests=0,
        failures=0,
        fast_pings=0,
        unlisted_for=600.0,
        silent_for=600.0,
        unsynced=frozenset(),
    )


def test_a_ping_that_ends_early_is_followed_by_a_sync_and_changes_no_heartbeat() -> None:
    watch = go_on(expired(WATCH, 400.0))

    assert (watch.unsynced, watch.heartbeat) == (BOTH, Heartbeat(ended_early=400.0))


@pytest.mark.parametrize("hold", [5.0, 11.0, 30.0, 60.0, 149.0, 151.0, 300.0, 440.0])
def test_a_server_that_ends_every_ping_after_its_own_time_is_pinged_without_pauses_and_suspicion(hold: float) -> None:
    watch = WATCH
    syncs = 0
    for n in range(120):
        watch = go_on(expired(watch, hold + (0.5 if n % 2 else 0.0)))
        syncs += bool(watch.unsynced)
        watch = replace(watch, unsynced=frozenset(), counters=watch.counters.requested())
        if syncs > 1:
            break

    assert syncs == 1
    assert (watch.counters.fast_pings, watch.counters.requests) == (0, 1)
    assert watch.heartbeat.hold == pytest.approx(hold, abs=0.5)
    assert watch.heartbeat.interval == WATCH.heartbeat.interval


def test_a_ping_that_ends_before_the_servers_own_time_is_followed_by_a_sync() -> None:
    watch = replace(WATCH, heartbeat=Heartbeat(hold=60.0))
    assert go_on(expired(watch, 60.0)).unsynced == frozenset()

    restarted = go_on(expired(watch, 40.0))

    assert (restarted.unsynced, restarted.heartbeat.hold) == (BOTH, 60.0)


def test_pings_of_varying_length_show_no_hold_and_raise_no_suspicion() -> None:
    watch = WATCH
    for held in (30.0, 150.0, 77.0, 41.0, 120.0):
        watch = go_on(expired(watch, held))
        assert (watch.unsynced, watch.counters.fast_pings, watch.heartbeat.hold) == (BOTH, 0, None)


def test_after_a_ping_that_ends_at_once_comes_a_sync_and_after_another_a_wait() -> None:
    once = go_on(expired(WATCH, 1.0))
    assert (once.unsynced, once.counters.fast_pings, once.counters.requests, once.counters.failures) == (BOTH, 1, 3, 2)

    pauses = [wait(expired(altered(once, fast_pings=n), 1.0)) for n in (1, 2, 3)]
    assert [(reason, action.failures) for reason, action in pauses] == [(Reason.PING_TOO_FAST, n) for n in (1, 2, 3)]


def test_pings_that_end_at_once_in_a_row_suggest_a_second_client() -> None:
    once = go_on(expired(WATCH, 11.0))
    assert (once.unsynced, once.counters.fast_pings, once.counters.requests) == (BOTH, 1, 3)

    reason, action = wait(expired(once, 4.0))
    condition = action.progress.condition
    assert (reason, action.failures) == (Reason.PING_TOO_FAST, 1)
    assert condition is not None
    assert "is the device id in use twice?" in condition.detail
    assert go_on(expired(once, 14.0)).counters.fast_pings == 0


def test_a_server_with_short_heartbeats_is_not_hasty() -> None:
    short = replace(WATCH, heartbeat=Heartbeat(interval=10, maximum=10))

    assert go_on(expired(short, 10.0)).counters.fast_pings == 0
    assert go_on(expired(short, 2.4)).counters.fast_pings == 1


def test_a_server_that_holds_pings_for_a_moment_only_is_asked_every_five_seconds() -> None:
    second = replace(WATCH, heartbeat=Heartbeat(interval=1, minimum=1, maximum=1))

    for held in (0.5, 1.0):
        state, actions = rested(expired(second, held))
        assert (state.watch.counters.fast_pings, state.watch.counters.failures) == (0, 0)
        assert actions == [Pause(Progress(), 0, BREATHER - held)]


def test_syncs_what_the_server_names() -> None:
    watch = go_on(changed(WATCH, "7", "99", held=100.0))

    assert watch == altered(WATCH, unsynced=frozenset({CALENDAR.id}), requests=0, failures=0, unlisted_for=100.0)


@pytest.mark.parametrize("ids", [(), ("99",)])
def test_syncs_everything_when_the_server_names_nothing_we_know(ids: tuple[str, ...]) -> None:
    assert go_on(changed(WATCH, *ids, held=100.0)).unsynced == BOTH


def test_changes_that_pings_report_at_once_again_and_again_wait_longer_and_longer() -> None:
    watch = WATCH
    for n in range(1, HASTY_ALLOWED):
        watch = go_on(changed(watch, "5", held=1.0))
        assert (watch.counters.fast_pings, watch.counters.requests, watch.counters.failures) == (n, 3, 2)

    pauses = [wait(changed(altered(watch, fast_pings=n), "5", held=1.0)) for n in (4, 5, 6)]
    assert [(reason, action.failures) for reason, action in pauses] == [(Reason.PING_TOO_FAST, n) for n in (1, 2, 3)]


def test_a_change_after_a_while_clears_the_count_of_fast_pings() -> None:
    assert go_on(changed(altered(WATCH, fast_pings=4), "5", held=12.0)).counters.fast_pings == 0


@pytest.mark.parametrize(("named", "interval"), [(240, 240), (900, 900), (None, 1200), (0, 1200)])
def test_adopts_a_heartbeat_in_range(named: int | None, interval: int) -> None:
    reply = PingReply(PingStatus.HEARTBEAT_OUT_OF_RANGE, heartbeat=named)

    watch = go_on(read_ping(WATCH, reply, 0.1))

    assert watch.heartbeat.interval == interval
    assert watch.counters.failures == 3


@pytest.mark.parametrize("limit", [600, 620])
def test_a_limit_between_the_interval_and_what_was_asked_is_an_upper_bound(limit: int) -> None:
    watch = altered(WATCH, jitter=0.07)
    asked = ping_of(watch, watch.watched).heartbeat
    reply = PingReply(PingStatus.HEARTBEAT_OUT_OF_RANGE, heartbeat=limit)

    corrected = go_on(read_ping(watch, reply, 0.1))

    assert asked == 642
    assert ping_of(corrected, corrected.watched).heartbeat == limit


def test_a_lower_bound_for_a_shortened_ping_leaves_the_interval() -> None:
    reply = PingReply(PingStatus.HEARTBEAT_OUT_OF_RANGE, heartbeat=120)

    watch = go_on(read_ping(WATCH, reply, 0.1, 60))

    assert (watch.heartbeat.interval, watch.heartbeat.minimum) == (600, 120)


@pytest.mark.parametrize(("named", "left"), [(1, 1), (None, 1), (0, 1), (-5, 1), (2, 2)])
def test_pings_no_more_folders_than_the_server_takes(named: int | None, left: int) -> None:
    reply = PingReply(PingStatus.TOO_MANY_FOLDERS, max_folders=named)

    watch = go_on(read_ping(WATCH, reply, 0.1))

    assert [c.id for c in watch.watched] == ["5", "7"][:left]


@pytest.mark.parametrize("status", [PingStatus.HEARTBEAT_OUT_OF_RANGE, PingStatus.TOO_MANY_FOLDERS])
def test_a_server_that_keeps_correcting_a_ping_is_asked_after_a_backoff(status: PingStatus) -> None:
    reason, _ = wait(read_ping(altered(WATCH, remedies=3), PingReply(status), 0.1))

    assert reason in {Reason.HEARTBEAT, Reason.TOO_MANY_FOLDERS}


def test_a_changed_hierarchy_is_read() -> None:
    assert go_on(read_ping(WATCH, PingReply(PingStatus.HIERARCHY_CHANGED), 0.1)).hierarchy_due


def test_a_hierarchy_that_changes_now_and_then_is_read_each_time_at_once() -> None:
    watch, changed_again = altered(WATCH, remedies=3), PingReply(PingStatus.HIERARCHY_CHANGED)

    assert go_on(read_ping(watch, changed_again, SETTLED)).hierarchy_due
    assert wait(read_ping(watch, changed_again, SETTLED - 1.0))[0] is Reason.HIERARCHY_CHANGED


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (PingStatus.PARAMETERS_MISSING, Reason.PING_PARAMETERS),
        (PingStatus.SERVER_ERROR, Reason.SERVER_BUSY),
    ],
)
def test_failures_after_which_the_watch_waits(status: PingStatus, reason: Reason) -> None:
    assert wait(read_ping(WATCH, PingReply(status), 0.1))[0] == reason


@pytest.mark.parametrize("status", [PingStatus.PARAMETERS_MISSING, PingStatus.SERVER_ERROR])
def test_errors_that_end_pings_held_for_a_while_make_no_wait_longer(status: PingStatus) -> None:
    watch, soon = altered(WATCH, failures=6), altered(WATCH, failures=6)

    _, held_action = wait(read_ping(watch, PingReply(status), HELD))
    _, soon_action = wait(read_ping(soon, PingReply(status), HELD - 1.0))

    assert (held_action.failures, soon_action.failures) == (1, 7)


def test_a_ping_called_malformed_starts_over_once_then_hourly() -> None:
    malformed = PingReply(PingStatus.SYNTAX)

    again = go_on(read_ping(WATCH, malformed, 0.1))

    assert again.hierarchy_due
    assert {c.sync_key for c in again.collections} == {NO_SYNC_KEY}
    reason, action = wait(read_ping(again, malformed, 0.1))
    assert (reason, action.seconds) == (Reason.REQUEST_REFUSED, RECHECK)


@pytest.mark.parametrize("status", list(PingStatus))
def test_a_ping_that_was_held_counts_as_a_wait(status: PingStatus) -> None:
    held, at_once = read_ping(WATCH, PingReply(status), 20.0), read_ping(WATCH, PingReply(status), 1.0)

    assert watch_after(held).counters.requests == 0
    assert watch_after(at_once).counters.requests == (3 if isinstance(at_once, Watch) else 0)  # a pause is a wait, too


def watch_after(decided: Watch | Move) -> Watch:
    return decided if isinstance(decided, Watch) else decided[0].watch


@pytest.mark.parametrize("status", [PingStatus.EXPIRED, PingStatus.CHANGED, PingStatus.HIERARCHY_CHANGED])
def test_a_ping_that_was_held_long_shows_that_earlier_mail_was_announced(status: PingStatus) -> None:
    sub = replace(INBOX, id=CollectionId("20"), sub=True)
    watch, reply = watch_of(INBOX, sub, subfolders=EMAIL), PingReply(status, (sub.id,))

    assert watch_after(read_ping(watch, reply, SETTLED)).announced_until == NEWEST
    assert watch_after(read_ping(watch, reply, SETTLED - 1.0)).announced_until is None
    assert watch_after(read_ping(watch_of(INBOX), reply, SETTLED)).announced_until is None


def test_a_server_that_reports_folders_had_reported_all_that_existed_when_a_ping_began() -> None:
    watch = watch_of(INBOX, subfolders=EMAIL, announced_until=NEWEST)

    assert watch_after(read_ping(watch, PingReply(PingStatus.HIERARCHY_CHANGED), 1.0)).created_after == NEWEST
    assert watch_after(read_ping(watch, PingReply(PingStatus.EXPIRED), 600.0)).created_after is None
