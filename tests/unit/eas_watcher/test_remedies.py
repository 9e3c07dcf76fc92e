from dataclasses import replace

import pytest

from eas_watcher.errors import (
    AccessDenied,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    ServerBusy,
    StateLost,
    Unauthorized,
    Unreachable,
    VersionRefused,
)
from eas_watcher.names import NO_SYNC_KEY, ProtocolVersion
from eas_watcher.progress import Condition, Drain, Partnership, Progress, WatchState
from eas_watcher.remedies import CONFIRM_AFTER, IMMEDIATE, RECHECK, at_once, end, pause, remedy
from eas_watcher.states import AcknowledgeWipe, Ended, Pause, Pausing, Record, Watch, Wiping
from tests.unit.eas_watcher.watching import CALENDAR, INBOX, watch_of


def decide(watch: Watch, error: EasError) -> Pause:
    """Return the pause that an error asks for."""
    decided = remedy(watch, error)
    assert isinstance(decided, tuple)
    state, [action] = decided
    assert isinstance(state, Pausing)
    assert isinstance(action, Pause)
    assert action.progress.condition is not None
    assert state.watch.shown is action.progress.condition.state
    return action


@pytest.mark.parametrize(
    ("error", "reason", "state", "seconds"),
    [
        (Unreachable("x"), "unreachable", WatchState.WAITING, None),
        (ServerBusy("x"), "server-busy", WatchState.WAITING, None),
        (ServerBusy("x", 77.0), "server-busy", WatchState.WAITING, 77.0),
        (ProtocolViolation("x"), "protocol-violation", WatchState.WAITING, None),
        (Redirected("https://example.com/"), "redirected", WatchState.WAITING, RECHECK),
        (AccessDenied("x", "eas-129"), "eas-129", WatchState.BLOCKED, RECHECK),
        (Unauthorized("x"), "http-401", WatchState.WAITING, 60.0),
        (EasError("x"), "failed", WatchState.WAITING, None),
    ],
)
def test_what_waits_and_how_it_is_shown(error: EasError, reason: str, state: WatchState, seconds: float | None) -> None:
    action = decide(watch_of(), error)

    assert action.progress.condition == Condition(state, reason, detail=str(error))
    assert (action.failures, action.seconds) == (1, seconds)


def test_the_backoff_grows_with_the_failures_in_a_row() -> None:
    assert decide(watch_of(failures=4), Unreachable("x")).failures == 5


def test_a_short_time_named_again_and_again_gives_way_to_the_backoff() -> None:
    busy = ServerBusy("x", 1.0)

    assert [decide(watch_of(failures=n), busy).seconds for n in range(5)] == [1.0, 1.0, 1.0, None, None]


@pytest.mark.parametrize("failures", range(20))
def test_a_long_time_named_is_always_kept(failures: int) -> None:
    assert decide(watch_of(failures=failures), ServerBusy("x", 3600.0)).seconds == 3600.0


def test_not_provisioned_provisions_at_once() -> None:
    assert remedy(watch_of(), NotProvisioned("x")) == watch_of(provision_due=True, failures=1)


def test_a_changed_hierarchy_is_read_at_once() -> None:
    assert remedy(watch_of(), HierarchyChanged("x")) == watch_of(hierarchy_due=True, failures=1)


def test_a_refused_version_is_chosen_again() -> None:
    watch = watch_of()

    assert remedy(watch, VersionRefused("x")) == watch_of(
        partnership=replace(watch.partnership, version=None), failures=1
    )


def test_a_version_refused_twice_in_a_row_is_distrusted() -> None:
    watch = watch_of(failures=1)

    assert remedy(watch, VersionRefused("x")) == watch_of(
        partnership=replace(watch.partnership, version=None),
        failures=2,
        distrusted=frozenset({ProtocolVersion.V14_1}),
    )


def test_before_a_version_is_chosen_none_can_be_distrusted() -> None:
    watch = watch_of(partnership=Partnership(), failures=1)

    assert remedy(watch, VersionRefused("x")) == replace(watch, failures=2)


def test_a_lost_state_voids_every_key_and_remembers_the_newest_item() -> None:
    watch = watch_of(INBOX, CALENDAR)

    decided = remedy(watch, StateLost("x"))

    assert isinstance(decided, Watch)
    assert decided.hierarchy_due
    assert decided.partnership.hierarchy_key == NO_SYNC_KEY
    assert [(c.sync_key, c.drain) for c in decided.collections] == [
        (NO_SYNC_KEY, Drain(INBOX.newest)),
        (NO_SYNC_KEY, Drain(CALENDAR.newest)),
    ]


def test_a_wipe_is_acknowledged_as_asked() -> None:
    watch = watch_of()

    assert remedy(watch, RemoteWipeRequested("x", account_only=True)) == (Wiping(watch), [AcknowledgeWipe(True)])  # noqa: FBT003 -- the flag of the protocol


@pytest.mark.parametrize("error", [NotProvisioned("x"), HierarchyChanged("x"), VersionRefused("x"), StateLost("x")])
def test_remedies_that_do_not_help_wait_after_a_while(error: EasError) -> None:
    decided: object = watch_of()
    for _ in range(IMMEDIATE):
        assert isinstance(decided, Watch)
        decided = remedy(decided, error)
    assert isinstance(decided, Watch)

    assert decide(decided, error).failures == IMMEDIATE + 1


def test_what_is_done_at_once_counts_as_a_failure_until_all_is_well() -> None:
    assert at_once(watch_of(failures=2), ServerBusy("x"), "heartbeat") == watch_of(failures=3)


def test_a_refused_credential_is_tried_twice_more_with_long_waits_then_never() -> None:
    watch = watch_of()
    for refusals, seconds in enumerate(CONFIRM_AFTER, start=1):
        action = decide(watch, Unauthorized("x"))
        assert (action.seconds, action.progress.refusals) == (seconds, refusals)
        watch = replace(watch, refusals=refusals)

    decided = remedy(watch, Unauthorized("x"))

    condition = Condition(WatchState.CREDENTIAL_REFUSED, "http-401", detail="x")
    assert decided == (
        Ended(replace(watch, refusals=3, shown=WatchState.CREDENTIAL_REFUSED)),
        [Record(Progress(condition=condition, refusals=3, attention=True))],
    )
    assert CONFIRM_AFTER == (60.0, 900.0)


def test_a_pause_keeps_how_often_a_key_was_tried_but_nothing_of_a_drain() -> None:
    tried = replace(INBOX, tries=2)
    draining = replace(CALENDAR, tries=1, drain=Drain(None))
    keyless = replace(CALENDAR, tries=1, sync_key=NO_SYNC_KEY)

    for other in (draining, keyless):
        _, [action] = pause(watch_of(tried, other), ServerBusy("x"), "server-busy")
        assert isinstance(action, Pause)
        assert action.progress.collections == (tried,)


def test_a_pause_may_have_a_backoff_of_its_own() -> None:
    state, [action] = pause(watch_of(failures=7), ServerBusy("x"), "ping-too-fast", failures=2)

    assert isinstance(action, Pause)
    assert (action.failures, action.seconds, state.watch.failures) == (2, None, 8)


def test_an_end_tells_the_phones() -> None:
    condition = Condition(WatchState.WIPED, "remote-wipe")

    state, actions = end(watch_of(), condition)

    assert isinstance(state, Ended)
    assert actions == [Record(Progress(condition=condition, refusals=0, attention=True))]
