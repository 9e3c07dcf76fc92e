from dataclasses import replace

import pytest

from eas_watcher.errors import (
    AccessDenied,
    CredentialVoid,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    ServerRenewed,
    StateLost,
    TooManyCollections,
    Unauthorized,
    Unreachable,
    VersionRefused,
    Withheld,
)
from eas_watcher.machine.counters import CONFIRM_AFTER, HOUR, PROVISIONS, HourlyCount
from eas_watcher.machine.memory import Condition, Drain, Partnership, Progress, WatchState
from eas_watcher.machine.remedies import (
    DAILY,
    HOPELESS,
    IMMEDIATE,
    RECHECK,
    REDIRECTS,
    REPEATED,
    SELDOM,
    at_once,
    end,
    pause,
    remedy,
)
from eas_watcher.machine.state import (
    LOCKOUT_WINDOW,
    AcknowledgeWipe,
    Doubt,
    Ended,
    Pause,
    Pausing,
    Policy,
    Record,
    Watch,
    Wiping,
)
from eas_watcher.names import NO_SYNC_KEY, ProtocolVersion
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import CALENDAR, INBOX, PARTNERSHIP, altered, watch_of


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


def elsewhere(url: str | None) -> Partnership:
    """Return a partnership without a version, at `url`."""
    return replace(PARTNERSHIP, version=None, url=url)


def sent_to(url: str | None, *, discovered: bool = False, failures: int = 0) -> Watch:
    """Return a watch that may be redirected to two hosts, and was redirected to `url`."""
    hosts = frozenset({"mail1.example.com", "mail2.example.com"})
    policy = Policy(hosts=hosts, discovered=discovered)
    return watch_of(policy=policy, partnership=replace(PARTNERSHIP, url=url), failures=failures)


@pytest.mark.parametrize(
    ("error", "reason", "state", "seconds"),
    [
        (Unreachable("x"), Reason.UNREACHABLE, WatchState.WAITING, None),
        (ServerBusy("x"), Reason.SERVER_BUSY, WatchState.WAITING, None),
        (ServerBusy("x", 77.0), Reason.SERVER_BUSY, WatchState.WAITING, 77.0),
        (ProtocolViolation("x"), Reason.PROTOCOL_VIOLATION, WatchState.WAITING, None),
        (Withheld(40.0), Reason.HTTP_401, WatchState.WAITING, 40.0),
        (AccessDenied("x", Reason.EAS_130), Reason.EAS_130, WatchState.BLOCKED, RECHECK),
        (AccessDenied("x", Reason.EAS_129), Reason.EAS_129, WatchState.BLOCKED, SELDOM),
        (AccessDenied("x", Reason.HTTP_457), Reason.HTTP_457, WatchState.BLOCKED, DAILY),
        (Unauthorized("x"), Reason.HTTP_401, WatchState.WAITING, 60.0),
        (EasError("x"), Reason.FAILED, WatchState.WAITING, None),
    ],
)
def test_what_waits_and_how_it_is_shown(
    error: EasError, reason: Reason, state: WatchState, seconds: float | None
) -> None:
    action = decide(watch_of(), error)

    assert action.progress.condition == Condition(state, reason, detail=str(error))
    assert (action.failures, action.seconds) == (1, seconds)


def test_the_backoff_grows_with_the_failures_in_a_row() -> None:
    assert decide(watch_of(failures=4), Unreachable("x")).failures == 5


def test_a_request_over_a_stale_connection_is_repeated_at_once_but_not_twice() -> None:
    stale = Unreachable("x", stale=True)

    again = remedy(watch_of(), stale)

    assert isinstance(again, Watch)
    assert (again.counters.remedies, again.counters.failures, again.unsynced) == (1, 1, frozenset({INBOX.id}))
    assert decide(again, stale).failures == 2


def test_a_short_time_that_a_server_names_repeatedly_gives_way_to_the_backoff() -> None:
    busy = ServerBusy("x", 1.0)

    assert [decide(watch_of(failures=n), busy).seconds for n in range(5)] == [1.0, 1.0, 1.0, None, None]


@pytest.mark.parametrize(("before", "failures"), [(0, 1), (2, 3), (8, IMMEDIATE)])
def test_the_wait_for_a_worker_does_not_outlast_the_pings_that_are_too_many(before: int, failures: int) -> None:
    assert decide(watch_of(failures=before), ServerBusy("x", shared=True, full=True)).failures == failures


@pytest.mark.parametrize("failures", range(20))
def test_a_long_time_that_a_server_names_is_always_kept(failures: int) -> None:
    assert decide(watch_of(failures=failures), ServerBusy("x", 3600.0)).seconds == 3600.0


@pytest.mark.parametrize(
    ("location", "detail"),
    [
        ("https://elsewhere.example.com/eas", "elsewhere.example.com, which the settings do not allow"),
        ("http://mail2.example.com/eas", "a URL that is not https"),
        ("https://ann:secret@mail2.example.com/eas", "a URL that is not https or not sound"),
    ],
)
def test_a_redirect_to_a_host_that_is_not_allowed_waits_and_names_it(location: str, detail: str) -> None:
    action = decide(sent_to("https://mail1.example.com/eas"), Redirected(location))

    assert action.seconds == RECHECK
    assert action.progress.condition is not None
    assert (action.progress.condition.state, action.progress.condition.reason) == (
        WatchState.WAITING,
        Reason.REDIRECTED,
    )
    assert detail in action.progress.condition.detail
    assert "secret" not in action.progress.condition.detail


def test_a_redirect_to_an_allowed_host_is_followed_with_options_first() -> None:
    assert remedy(sent_to(None), Redirected("https://MAIL2.example.com/eas?Cmd=Sync")) == altered(
        sent_to("https://mail2.example.com/eas"), partnership=elsewhere("https://mail2.example.com/eas"), redirects=1
    )


def test_a_mailbox_that_servers_redirect_in_circles_waits_for_an_hour() -> None:
    watch = sent_to(None)
    for turn in range(REDIRECTS):
        decided = remedy(watch, Redirected(f"https://mail{1 + turn % 2}.example.com/"))
        assert isinstance(decided, Watch)
        watch = decided

    decided = remedy(watch, Redirected("https://mail1.example.com/"))

    assert isinstance(decided, tuple)
    assert isinstance(decided[0], Pausing)
    assert (decided[0].watch.partnership.url, decided[0].watch.counters.redirects) == (None, 0)
    assert decided[1][0].seconds == RECHECK  # type: ignore[union-attr]


def test_a_mailbox_redirected_to_a_server_that_does_not_answer_returns_to_the_configured_one() -> None:
    stray = sent_to("https://mail2.example.com/eas")

    assert decide(stray, Unreachable("x")).seconds is None
    decided = remedy(altered(stray, failures=IMMEDIATE), Unreachable("x"))

    assert isinstance(decided, tuple)
    assert decided[0].watch.partnership == elsewhere(None)
    assert remedy(stray, AccessDenied("x", Reason.HTTP_404)) == altered(
        stray, partnership=elsewhere(None), failures=1, remedies=1
    )


def test_a_mailbox_that_autodiscover_found_has_no_configured_url_to_return_to() -> None:
    found = sent_to("https://mail2.example.com/eas", failures=IMMEDIATE, discovered=True)

    decided = remedy(found, Unreachable("x"))

    assert isinstance(decided, tuple)
    assert decided[0].watch.partnership == found.partnership
    assert decide(found, AccessDenied("x", Reason.HTTP_404)).seconds == RECHECK


def test_a_server_that_no_policy_key_satisfies_is_asked_hourly() -> None:
    first = remedy(watch_of(provisions=HourlyCount(PROVISIONS - 1)), NotProvisioned("x"))
    assert isinstance(first, Watch)
    decided = remedy(altered(first, provisions=HourlyCount(PROVISIONS)), NotProvisioned("x"))

    assert isinstance(decided, tuple)
    state, [action] = decided
    assert isinstance(action, Pause)
    assert action.progress.condition is not None
    assert (action.seconds, action.progress.condition.reason) == (RECHECK, Reason.POLICY_LOOP)
    assert (state.watch.provision_due, state.watch.counters.provisions) == (True, HourlyCount(PROVISIONS - 1))
    again = remedy(replace(state.watch, counters=state.watch.counters.provisioned()), NotProvisioned("x"))
    assert isinstance(again, tuple)  # one key an hour from then on


def test_not_provisioned_provisions_at_once() -> None:
    assert remedy(watch_of(), NotProvisioned("x")) == watch_of(provision_due=True, failures=1, remedies=1)


def test_a_changed_hierarchy_is_read_at_once() -> None:
    assert remedy(watch_of(), HierarchyChanged("x")) == watch_of(hierarchy_due=True, failures=1, remedies=1)


def test_a_refused_version_is_chosen_again() -> None:
    watch = watch_of()

    assert remedy(watch, VersionRefused("x")) == watch_of(
        partnership=replace(watch.partnership, version=None), failures=1, remedies=1
    )


def test_a_version_refused_twice_in_a_row_is_not_chosen_again() -> None:
    watch = watch_of(failures=1, remedies=1)

    assert remedy(watch, VersionRefused("x")) == watch_of(
        partnership=replace(watch.partnership, version=None),
        failures=2,
        remedies=2,
        refused_versions=frozenset({ProtocolVersion.V14_1}),
    )


def test_before_a_version_is_chosen_none_can_be_dropped() -> None:
    watch = watch_of(partnership=Partnership(), failures=1, remedies=1)

    assert remedy(watch, VersionRefused("x")) == altered(watch, failures=2, remedies=2)


def test_a_lost_state_drops_every_key_and_keeps_the_newest_receive_time() -> None:
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

    for account_only, reason in ((True, Reason.ACCOUNT_ONLY_WIPE), (False, Reason.REMOTE_WIPE)):
        decided = remedy(watch, RemoteWipeRequested("x", account_only=account_only))
        assert decided == (
            Wiping(replace(watch, shown=WatchState.WIPING), account_only),
            [Record(Progress(condition=Condition(WatchState.WIPING, reason))), AcknowledgeWipe(account_only)],
        )


@pytest.mark.parametrize("error", [NotProvisioned("x"), HierarchyChanged("x"), VersionRefused("x")])
def test_remedies_that_do_not_help_wait_after_a_while(error: EasError) -> None:
    decided: object = watch_of()
    for _ in range(IMMEDIATE):
        assert isinstance(decided, Watch)
        decided = remedy(decided, error)
    assert isinstance(decided, Watch)

    assert decide(decided, error).failures == IMMEDIATE + 1


@pytest.mark.parametrize(
    "error", [NotProvisioned("x"), VersionRefused("x"), StateLost("x"), ServerRenewed("x"), RequestRefused("x")]
)
def test_a_remedy_that_costs_the_server_much_is_in_the_end_tried_once_an_hour(error: EasError) -> None:
    assert decide(watch_of(remedies=HOPELESS), error).seconds == RECHECK


@pytest.mark.parametrize("error", [StateLost("x"), ServerRenewed("x")])
def test_a_second_start_from_key_0_within_the_hour_waits_long_and_in_the_end_an_hour(error: EasError) -> None:
    first = remedy(watch_of(), error)
    assert isinstance(first, Watch)
    well = altered(first, remedies=0, failures=0)  # as after a Ping held to its end

    waits = []
    for _ in range(HOPELESS):
        action, (state, _) = decide(well, error), remedy(well, error)  # type: ignore[misc]  # it waits
        waits.append((action.failures, action.seconds))
        assert all(c.sync_key == NO_SYNC_KEY for c in state.watch.collections)
        well = altered(state.watch, remedies=0, failures=0)

    patient = [(REPEATED + restarts, None) for restarts in range(2, HOPELESS + 1)]
    assert waits == [*patient, (REPEATED + HOPELESS + 1, RECHECK)]


def test_a_start_from_key_0_is_no_repetition_an_hour_later() -> None:
    first = remedy(watch_of(), StateLost("x"))
    assert isinstance(first, Watch)

    soon, later = (replace(first, counters=first.counters.waited(seconds)) for seconds in (HOUR - 1.0, HOUR))

    assert isinstance(remedy(soon, StateLost("x")), tuple)
    assert isinstance(remedy(later, StateLost("x")), Watch)


def test_the_time_since_a_start_from_key_0_counts_waits() -> None:
    first = remedy(watch_of(), StateLost("x"))
    assert isinstance(first, Watch)

    state, _ = remedy(first, AccessDenied("x", Reason.HTTP_404))  # type: ignore[misc]  # it waits

    assert state.watch.counters.restarts.times == 0


def test_a_request_called_malformed_after_a_start_from_key_0_within_the_hour_waits_for_an_hour() -> None:
    watch = watch_of(restarts=HourlyCount(1))

    assert decide(watch, RequestRefused("x")).seconds == RECHECK


@pytest.mark.parametrize("error", [HierarchyChanged("x"), TooManyCollections("x", None)])
def test_a_remedy_that_costs_little_is_tried_with_the_backoff(error: EasError) -> None:
    assert decide(watch_of(remedies=HOPELESS), error).seconds is None


def test_an_outage_before_does_not_delay_a_remedy() -> None:
    assert isinstance(remedy(watch_of(failures=9), NotProvisioned("x")), Watch)


def test_after_a_change_of_the_server_options_come_first_and_every_key_starts_from_0() -> None:
    decided = remedy(watch_of(INBOX, CALENDAR), ServerRenewed("x"))

    assert isinstance(decided, Watch)
    assert (decided.partnership.version, decided.partnership.hierarchy_key) == (None, NO_SYNC_KEY)
    assert all(c.sync_key == NO_SYNC_KEY for c in decided.collections)
    assert not decided.refused_versions


def test_a_request_called_malformed_starts_over_once() -> None:
    decided = remedy(watch_of(), RequestRefused("x"))

    assert isinstance(decided, Watch)
    assert [c.sync_key for c in decided.collections] == [NO_SYNC_KEY]
    assert decide(decided, RequestRefused("x")).seconds == RECHECK


@pytest.mark.parametrize(("named", "before", "after"), [(1, 20, 1), (None, 20, 1), (0, 20, 1), (None, 1, 1)])
def test_fewer_collections_are_asked_for_at_a_time(named: int | None, before: int, after: int) -> None:
    decided = remedy(watch_of(INBOX, CALENDAR, max_collections=before), TooManyCollections("x", named))

    assert isinstance(decided, Watch)
    assert decided.max_collections == after


def test_a_hierarchy_key_is_suspected_when_the_server_fails_again_and_again() -> None:
    failing = ServerBusy("x", suspect=True)

    for failures in range(IMMEDIATE):
        state, _ = remedy(watch_of(failures=failures), failing)  # type: ignore[misc]  # it waits
        assert state.watch.partnership.hierarchy_key != NO_SYNC_KEY
    state, _ = remedy(watch_of(failures=IMMEDIATE), failing)  # type: ignore[misc]  # it waits

    assert (state.watch.partnership.hierarchy_key, state.watch.hierarchy_due) == (NO_SYNC_KEY, True)
    assert state.watch.collections == (INBOX,)


def test_a_403_provisions_once_because_it_may_mean_a_policy_or_a_wipe() -> None:
    forbidden = AccessDenied("x", Reason.HTTP_403)

    first = remedy(watch_of(), forbidden)
    assert first == watch_of(provision_due=True, failures=1, remedies=1)
    assert isinstance(first, Watch)

    for refused in (first, replace(first, provision_due=False)):
        state, [action] = remedy(refused, forbidden)  # type: ignore[misc]  # it waits
        assert isinstance(action, Pause)
        assert (state.watch.shown, action.seconds) == (WatchState.BLOCKED, RECHECK)
        assert state.watch.provision_due, "the next try asks for the policy again"


def test_a_403_before_a_version_is_chosen_waits() -> None:
    assert decide(watch_of(partnership=Partnership()), AccessDenied("x", Reason.HTTP_403)).seconds == RECHECK


def test_a_remedy_at_once_counts_as_a_failure() -> None:
    assert at_once(watch_of(failures=2), ServerBusy("x"), Reason.HEARTBEAT) == watch_of(failures=3, remedies=1)


def test_a_refused_credential_is_tried_twice_more_with_long_waits() -> None:
    watch = watch_of()
    for refusals, seconds in enumerate(CONFIRM_AFTER, start=1):
        action = decide(watch, Unauthorized("x"))
        assert (action.seconds, action.progress.refusals, action.doubt) == (seconds, refusals, None)
        watch = altered(watch, refusals=refusals)
    assert CONFIRM_AFTER == (60.0, 900.0)


def test_the_third_refusal_ends_the_watch_if_the_server_accepts_others() -> None:
    decided = remedy(watch_of(refusals=2), Unauthorized("x", others_accepted=True))

    condition = Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, detail="x")
    assert decided == (
        Ended(watch_of(refusals=3, shown=WatchState.CREDENTIAL_REFUSED)),
        [Record(Progress(condition=condition, refusals=3, attention=True))],
    )


def test_a_server_that_accepts_no_other_is_in_doubt_for_an_hour_then_for_days_and_phones_hear_of_it_once() -> None:
    waits = [decide(watch_of(refusals=refusals), Unauthorized("x")) for refusals in (2, 3, 4, 5, 50)]

    assert [action.seconds for action in waits] == [HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR]
    assert [action.progress.attention for action in waits] == [True, False, False, False, False]
    assert [action.progress.in_doubt for action in waits] == [True, False, False, False, False]
    assert waits[0].doubt == Doubt(LOCKOUT_WINDOW, begins=True)
    condition = waits[0].progress.condition
    assert condition is not None
    assert (condition.state, condition.reason) == (WatchState.WAITING, Reason.HTTP_401_DOUBTFUL)
    assert condition.detail == "x; it refused this credential 3 times, while it refused everyone who was asked"


def test_no_wait_in_doubt_is_shorter_than_the_lock_out_window_of_the_directory() -> None:
    watch = watch_of(refusals=2, policy=Policy(lockout_window=7200.0))

    assert decide(watch, Unauthorized("x")).seconds == 7200.0
    assert decide(altered(watch, refusals=3, doubt_left=60.0), Unauthorized("x")).seconds == 7200.0


def test_of_many_that_are_refused_each_is_tried_after_an_hour_and_a_day_although_others_are_accepted() -> None:
    refused = Unauthorized("x", shared=True, others_accepted=True)

    first, second = (decide(watch_of(refusals=refusals), refused) for refusals in (2, 3))
    third = remedy(watch_of(refusals=4), refused)

    assert (first.seconds, second.seconds) == (HOUR, 24 * HOUR)
    assert first.doubt == Doubt(LOCKOUT_WINDOW, others_accepted=True, begins=True)
    assert first.progress.condition is not None
    assert first.progress.condition.detail.endswith("though it accepted others")
    assert isinstance(third, tuple)
    assert isinstance(third[0], Ended)


def test_a_credential_in_doubt_ends_once_the_server_accepts_others() -> None:
    decided = remedy(watch_of(refusals=3, doubt_left=1000.0), Unauthorized("x", others_accepted=True))

    assert isinstance(decided, tuple)
    assert isinstance(decided[0], Ended)


def test_a_pause_records_the_tries_of_a_key_but_nothing_of_a_drain() -> None:
    tried = replace(INBOX, tries=2)
    draining = replace(CALENDAR, tries=1, drain=Drain(None))
    keyless = replace(CALENDAR, tries=1, sync_key=NO_SYNC_KEY)

    for other in (draining, keyless):
        _, [action] = pause(watch_of(tried, other), ServerBusy("x"), Reason.SERVER_BUSY)
        assert isinstance(action, Pause)
        assert action.progress.collections == (tried,)


def test_the_failures_of_a_pause_may_differ_from_those_counted() -> None:
    state, [action] = pause(watch_of(failures=7), ServerBusy("x"), Reason.PING_TOO_FAST, failures=2)

    assert isinstance(action, Pause)
    assert (action.failures, action.seconds, state.watch.counters.failures) == (2, None, 8)


def test_the_end_of_a_watch_sends_an_attention_push() -> None:
    condition = Condition(WatchState.WIPED, Reason.REMOTE_WIPE)

    state, actions = end(watch_of(), condition)

    assert isinstance(state, Ended)
    assert actions == [Record(Progress(condition=condition, refusals=0, attention=True))]


def test_a_credential_that_is_void_ends_the_watch() -> None:
    decided = remedy(watch_of(), CredentialVoid("expired", Reason.CERTIFICATE_EXPIRED))

    condition = Condition(WatchState.CREDENTIAL_REFUSED, Reason.CERTIFICATE_EXPIRED, detail="expired")
    assert decided == end(watch_of(), condition)


def test_a_server_that_asks_for_the_same_request_again_gets_it_once() -> None:
    error = ServerBusy("x", again=True)
    watch = remedy(watch_of(), error)

    assert watch == at_once(watch_of(), error, Reason.SERVER_BUSY)
    assert isinstance(watch, Watch)
    assert decide(watch, error).seconds is None  # a wait that grows, as after any outage
