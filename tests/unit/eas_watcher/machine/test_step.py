from dataclasses import replace
from itertools import product
from typing import Final, get_args

import pytest

from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.folder_sync import Folder, FolderSync, FolderSyncReply
from eas_watcher.commands.options import Capabilities, Options
from eas_watcher.commands.ping import Ping, PingStatus
from eas_watcher.commands.settings import InformDevice
from eas_watcher.commands.sync import Sync, SyncReply
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    StateLost,
    Unauthorized,
    Unreachable,
    VersionRefused,
    Withheld,
)
from eas_watcher.heartbeat import HELD
from eas_watcher.machine.condition import SILENT
from eas_watcher.machine.counters import DOUBT_FOR, UNLISTED
from eas_watcher.machine.memory import Collection, Condition, Drain, Memory, Partnership, Progress, WatchState
from eas_watcher.machine.remedies import RECHECK
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Answered,
    Discovering,
    Doubt,
    Ended,
    Event,
    Failed,
    Full,
    Granted,
    Informing,
    NegotiatePolicy,
    Pause,
    Pausing,
    Pinging,
    Policy,
    Provisioning,
    ReadingHierarchy,
    Record,
    Send,
    State,
    Syncing,
    Watch,
    WipeAcknowledged,
    Wiping,
    Woken,
)
from eas_watcher.machine.step import BREATH, OTHERS_FIRST, PATIENCE, begin, proceed, refused_ago, step
from eas_watcher.machine.sync_reply import EPOCH
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, PolicyKey, ProtocolVersion, SyncKey
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import (
    CALENDAR,
    EMAIL,
    INBOX,
    NOW,
    PARTNERSHIP,
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

POLICY: Final = Policy()
FRESH: Final = replace(PARTNERSHIP, informed=False)
OFFER: Final = Capabilities(tuple(ProtocolVersion), frozenset({"Sync", "Provision", "Settings"}))
INBOX_FOLDER: Final = Folder(INBOX.id, CollectionId("0"), 2)
PING: Final = Ping(600, ((INBOX.id, INBOX.cls),))
WATCHING: Final = Progress(condition=Condition(WatchState.WATCHING))


def hierarchy(*added: Folder, deleted: tuple[CollectionId, ...] = ()) -> Answered:
    return Answered(FolderSyncReply(SyncKey("h2"), added, deleted=deleted), NOW)


# --- how a watch begins


def test_begins_with_options_when_nothing_is_known() -> None:
    state, actions = begin(Memory(), POLICY)

    assert isinstance(state, Discovering)
    assert actions == [Send(Options())]


def test_begins_with_a_sync_of_the_stored_keys_never_a_ping() -> None:
    state, actions = begin(Memory(PARTNERSHIP, (INBOX,)), POLICY)

    assert isinstance(state, Syncing)
    assert sent(actions) == SYNC


def test_begins_with_the_rest_of_a_wait() -> None:
    state, actions = begin(Memory(PARTNERSHIP, (INBOX,), retry_in=300.0, refusals=2), POLICY)

    assert actions == [Pause(Progress(), 0, 300.0)]
    assert sent(step(state, Woken())[1]) == SYNC


def test_a_doubtful_credential_waits_out_its_time_after_a_restart_and_no_early_sign_counts() -> None:
    state, actions = begin(Memory(PARTNERSHIP, (INBOX,), refusals=3, retry_in=3000.0), POLICY)
    late, last = begin(Memory(PARTNERSHIP, (INBOX,), refusals=5, retry_in=60.0), POLICY)

    assert (type(state), actions) == (Pausing, [Pause(Progress(), 0, 3000.0, doubt=Doubt(POLICY.lockout_window))])
    assert (type(late), last) == (Pausing, [Pause(Progress(), 0, 60.0, doubt=Doubt(60.0))])


def test_others_go_first_after_a_start_when_the_next_refusal_decides() -> None:
    _, overdue = begin(Memory(PARTNERSHIP, (INBOX,), refusals=2), POLICY)
    _, doubtful = begin(Memory(PARTNERSHIP, (INBOX,), refusals=3), POLICY)
    _, first = begin(Memory(PARTNERSHIP, (INBOX,), refusals=1), POLICY)

    assert overdue == [Pause(Progress(), 0, OTHERS_FIRST)]
    assert doubtful == [Pause(Progress(), 0, OTHERS_FIRST, doubt=Doubt(OTHERS_FIRST))]
    assert isinstance(first[0], Send)


@pytest.mark.parametrize(
    ("refusals", "retry_in", "ago"),
    [(0, 0.0, None), (1, 50.0, 10.0), (2, 0.0, 900.0), (2, 950.0, 0.0), (3, 600.0, 1200.0), (9, 80_000.0, 0.0)],
)
def test_a_start_knows_when_the_credential_was_refused_last_at_the_latest(
    refusals: int, retry_in: float, ago: float | None
) -> None:
    memory = Memory(PARTNERSHIP, (INBOX,), refusals=refusals, retry_in=retry_in)

    assert refused_ago(memory, POLICY) == ago


def test_a_doubtful_credential_that_a_sign_shows_early_waits_on_if_it_is_refused() -> None:
    waiting = Pausing(watch_of(refusals=3))

    state, _ = step(waiting, Woken(early=2500.0))
    again, [action] = step(state, Failed(Unauthorized("no")))

    assert isinstance(action, Pause)
    assert (action.seconds, action.progress.refusals, action.progress.attention) == (2500.0, 3, False)
    later, [action] = step(step(again, Woken())[0], Failed(Unauthorized("no")))
    assert isinstance(action, Pause)
    assert (action.seconds, action.progress.refusals) == (DOUBT_FOR[1], 4)
    assert isinstance(later, Pausing)


# --- what is due first


@pytest.mark.parametrize(
    ("watch", "state", "action"),
    [
        (watch_of(partnership=Partnership(), provision_due=True), Discovering, Send(Options())),
        (watch_of(provision_due=True, hierarchy_due=True), Provisioning, NegotiatePolicy(POLICY.acknowledgement)),
        (watch_of(hierarchy_due=True, partnership=FRESH), ReadingHierarchy, Send(FolderSync(SyncKey("h1")))),
        (watch_of(classes=frozenset({CollectionClass.NOTES})), ReadingHierarchy, Send(FolderSync(SyncKey("h1")))),
        (watch_of(partnership=FRESH, unsynced=frozenset({INBOX.id})), Informing, Send(InformDevice(DEVICE))),
        (watch_of(unsynced=frozenset({INBOX.id})), Syncing, Send(SYNC)),
        (watch_of(replace(INBOX, sync_key=NO_SYNC_KEY)), Syncing, Send(PRIME)),
        (watch_of(shown=WatchState.WATCHING), Pinging, Send(PING)),
    ],
)
def test_does_what_is_due_first(watch: Watch, state: type[State], action: object) -> None:
    following, actions = proceed(watch)

    assert isinstance(following, state)
    assert actions == [action]
    assert following.watch.counters.requests == 1


def test_records_once_that_it_watches() -> None:
    state, actions = proceed(watch_of())

    assert actions == [Record(WATCHING), Send(PING)]
    assert proceed(state.watch)[1] == [Send(PING)]


def test_pauses_after_many_requests_in_a_row() -> None:
    pause = paused(proceed(watch_of(requests=BREATH))[1])

    assert pause.progress.condition is not None
    assert pause.progress.condition.reason == Reason.SERVER_BUSY


# --- the start: version, policy, hierarchy, device


def test_takes_the_highest_version_and_provisions_where_the_server_can() -> None:
    state, actions = step(Discovering(watch_of(partnership=Partnership())), Answered(OFFER, NOW))

    assert isinstance(state, Provisioning)
    assert actions == [
        Record(Progress(partnership=Partnership(ProtocolVersion.V16_1))),
        NegotiatePolicy(POLICY.acknowledgement),
    ]


def test_neither_provisions_nor_informs_where_the_server_cannot() -> None:
    watch = watch_of(partnership=Partnership(), hierarchy_due=True)

    state, actions = step(Discovering(watch), Answered(replace(OFFER, commands=frozenset({"Sync"})), NOW))

    assert isinstance(state, ReadingHierarchy)
    assert recorded(actions) == [Progress(partnership=Partnership(ProtocolVersion.V16_1, informed=True))]


def test_keeps_its_policy_key_when_the_version_is_chosen_again() -> None:
    watch = watch_of(partnership=replace(PARTNERSHIP, version=None), unsynced=frozenset({INBOX.id}))

    state, _ = step(Discovering(watch), Answered(OFFER, NOW))

    assert isinstance(state, Syncing)
    assert state.watch.partnership == replace(PARTNERSHIP, version=ProtocolVersion.V16_1)


def test_takes_another_version_when_the_server_refuses_the_one_it_offers() -> None:
    state, _ = step(Discovering(watch_of(partnership=Partnership())), Answered(OFFER, NOW))
    tried = []
    while ProtocolVersion.V14_0 not in tried:
        version = state.watch.partnership.version
        if isinstance(state, Discovering):
            state, _ = step(state, Answered(OFFER, NOW))
        elif isinstance(state, Pausing):
            state, _ = step(state, Woken())
        else:
            tried.append(version)
            state, _ = step(state, Failed(VersionRefused("x")))

    assert list(dict.fromkeys(tried)) == sorted(ProtocolVersion, reverse=True)[:4]
    assert tried[:2] == [ProtocolVersion.V16_1, ProtocolVersion.V16_1]


def test_when_every_version_was_refused_all_are_tried_again() -> None:
    watch = watch_of(partnership=Partnership(), refused_versions=frozenset(ProtocolVersion))

    state, _ = step(Discovering(watch), Answered(OFFER, NOW))

    assert state.watch.partnership.version is ProtocolVersion.V16_1
    assert state.watch.refused_versions == frozenset()


def test_waits_long_for_a_version_that_it_may_use() -> None:
    pause = paused(step(Discovering(watch_of()), Answered(Capabilities((), frozenset()), NOW))[1])

    assert (pause.seconds, pause.progress.condition) == (
        RECHECK,
        Condition(
            WatchState.WAITING,
            Reason.VERSION,
            detail="none of the server's protocol versions can be used; it offers none",
        ),
    )


@pytest.mark.parametrize(
    ("version", "informed"),
    [(ProtocolVersion.V14_0, False), (ProtocolVersion.V14_1, True), (None, False)],
)
def test_keeps_the_granted_policy_key(version: ProtocolVersion | None, *, informed: bool) -> None:
    partnership = Partnership(version, hierarchy_key=SyncKey("h1"))

    state, actions = step(Provisioning(watch_of(partnership=partnership, provision_due=True)), Granted(PolicyKey("9")))

    granted = replace(partnership, policy_key=PolicyKey("9"), informed=informed)
    assert recorded(actions)[0] == Progress(partnership=granted)
    assert not state.watch.provision_due
    assert not isinstance(state, Provisioning)


def test_primes_the_folders_it_finds() -> None:
    watch = watch_of(partnership=replace(PARTNERSHIP, hierarchy_key=NO_SYNC_KEY), hierarchy_due=True)
    watch = replace(watch, collections=(), classes=EMAIL)

    state, actions = step(ReadingHierarchy(watch), hierarchy(INBOX_FOLDER))

    found = Collection(INBOX.id, INBOX.cls)
    assert recorded(actions) == [
        Progress(partnership=replace(PARTNERSHIP, hierarchy_key=SyncKey("h2")), collections=(found,))
    ]
    assert sent(actions) == PRIME
    assert not state.watch.hierarchy_due


def test_syncs_before_the_next_ping_when_the_hierarchy_was_read() -> None:
    _, actions = step(ReadingHierarchy(watch_of(hierarchy_due=True)), hierarchy())

    assert sent(actions) == SYNC


NO_LIST: Final = [ServerBusy("FolderSync status 6", suspect=True), ProtocolViolation("empty")]


@pytest.mark.parametrize("error", NO_LIST)
@pytest.mark.parametrize("tries", [0, 1])
def test_known_folders_are_watched_though_the_server_never_lists_folders(tries: int, error: EasError) -> None:
    state, _ = proceed(watch_of(replace(INBOX, tries=tries), hierarchy_due=True))
    lists = 0
    while not isinstance(state, Syncing):
        lists += isinstance(state, ReadingHierarchy)
        state, actions = step(state, Failed(error) if isinstance(state, ReadingHierarchy) else Woken())

    assert lists == PATIENCE[tries] + 2, "the last one from key 0, if that may help"
    assert state.watch.partnership.hierarchy_key == (NO_SYNC_KEY if error is NO_LIST[0] else SyncKey("h1"))
    state, actions = step(state, synced())
    assert sent(actions) == PING
    assert str(error) in state.watch.shown_detail
    assert state.watch.counters.unlisted_for == 0.0, "the list is asked for again some hours later"
    _, actions = step(ReadingHierarchy(altered(state.watch, failures=0)), Failed(error))
    assert sent(actions) == SYNC, "there is no wait the next time"
    state, _ = step(ReadingHierarchy(state.watch), hierarchy(INBOX_FOLDER))
    assert state.watch.hierarchy_fault == ""


@pytest.mark.parametrize(
    ("error", "most", "waits"),
    [
        (Unreachable("no answer in time"), PATIENCE[0] + 2, True),
        (ServerBusy("HTTP 503", reached=False, shared=True), PATIENCE[0] + 2, True),
        (ServerBusy("HTTP 503", retry_after=90.0, reached=False), PATIENCE[0] + 2, True),
        (StateLost("FolderSync status 9"), 2, False),
        (RequestRefused("FolderSync status 10"), 2, False),
        (AccessDenied("FolderSync status 151", Reason.EAS_151), 1, False),
    ],
)
def test_a_mailbox_stays_watched_though_the_list_of_every_few_hours_never_comes(
    error: EasError, most: int, waits: bool
) -> None:
    watch = watch_of(unsynced=frozenset())
    for tries in (most, 1):
        state, _ = proceed(altered(watch, unlisted_for=UNLISTED, failures=0))
        lists, waited = 0, False
        while not isinstance(state, Pinging):
            event: Event = Woken()
            if isinstance(state, ReadingHierarchy):
                lists, event = lists + 1, Failed(error)
            elif isinstance(state, Syncing):
                primes = state.watch.collections[0].sync_key == NO_SYNC_KEY
                event = synced(news(key="k5")) if primes else synced()
            before, (state, _) = state, step(state, event)
            if isinstance(before, ReadingHierarchy):
                waited = isinstance(state, Pausing)
        assert lists == tries, "mail waits for it once"
        assert waited == waits, "a server that may be away is left alone before the Sync"
        assert str(error) in state.watch.shown_detail
        watch = state.watch


@pytest.mark.parametrize("error", [Unreachable("x"), ServerBusy("HTTP 503", reached=False)])
def test_a_server_that_is_away_for_hours_has_to_list_the_folders_first(error: EasError) -> None:
    watch = watch_of(replace(INBOX, tries=1), hierarchy_due=True, failures=99, unlisted_for=2 * UNLISTED)

    state, _ = step(ReadingHierarchy(watch), Failed(error))

    assert isinstance(step(state, Woken())[0], ReadingHierarchy)


@pytest.mark.parametrize("error", [StateLost("x"), AccessDenied("x", Reason.EAS_151)])
def test_a_new_mailbox_waits_for_its_folders(error: EasError) -> None:
    fresh = replace(watch_of(partnership=replace(PARTNERSHIP, hierarchy_key=NO_SYNC_KEY)), collections=())
    state, actions = step(ReadingHierarchy(fresh), Failed(error))
    if isinstance(state, ReadingHierarchy):
        state, actions = step(state, Failed(error))

    assert paused(actions).failures
    assert isinstance(step(state, Woken())[0], ReadingHierarchy)


@pytest.mark.parametrize(("failed", "awaited"), [((), True), ((CALENDAR.id,), False)])
def test_no_key_is_used_up_while_folders_are_awaited_but_that_of_a_folder_at_fault(
    failed: tuple[CollectionId, ...], awaited: bool
) -> None:
    tried = replace(CALENDAR, tries=2)
    watch = watch_of(INBOX, tried, hierarchy_due=True, failures=PATIENCE[-1] + 1, sync_failures=failed)

    state, _ = step(ReadingHierarchy(watch), Failed(ServerBusy("x")))

    assert isinstance(state, Pausing if awaited else Syncing)


@pytest.mark.parametrize(
    ("inbox", "error"),
    [
        (replace(INBOX, sync_key=NO_SYNC_KEY), ServerBusy("x")),
        (replace(INBOX, tries=2), ServerBusy("x")),
        (INBOX, ServerBusy("x", reached=False)),
        (INBOX, ServerBusy("x", retry_after=60.0)),
        (INBOX, Unreachable("x")),
    ],
)
def test_folders_are_awaited_while_the_server_may_be_away_and_without_keys(inbox: Collection, error: EasError) -> None:
    state, actions = step(ReadingHierarchy(watch_of(inbox, hierarchy_due=True, failures=9)), Failed(error))

    assert paused(actions).failures
    assert isinstance(step(state, Woken())[0], ReadingHierarchy)


def test_drops_a_folder_that_is_gone_and_records_no_drain() -> None:
    draining = replace(INBOX, sync_key=NO_SYNC_KEY, drain=Drain(None))

    _, actions = step(ReadingHierarchy(watch_of(draining, CALENDAR)), hierarchy(deleted=(CALENDAR.id,)))

    [progress] = recorded(actions)
    assert (progress.collections, progress.dropped) == ((), (CALENDAR.id,))


def test_waits_when_the_list_of_folders_must_not_be_believed() -> None:
    state, actions = step(ReadingHierarchy(watch_of(hierarchy_due=True)), hierarchy(deleted=(INBOX.id,)))

    assert recorded(actions) == []
    assert paused(actions).progress.partnership is None
    assert state.watch.hierarchy_due
    assert state.watch.collections == (INBOX,)


def test_looks_for_a_folder_of_the_wanted_class_again_and_never_pings_nothing() -> None:
    watch = watch_of(INBOX, classes=frozenset({CollectionClass.NOTES}))

    state, actions = step(ReadingHierarchy(watch), hierarchy())
    assert paused(actions).seconds == RECHECK
    assert recorded(actions)[0].partnership == replace(PARTNERSHIP, hierarchy_key=SyncKey("h2"))

    assert sent(step(state, Woken())[1]) == FolderSync(SyncKey("h2"))


def test_sends_the_device_information_once() -> None:
    state, actions = step(Informing(watch_of(partnership=FRESH)), Answered(None, NOW))

    assert recorded(actions)[0] == Progress(partnership=PARTNERSHIP)
    assert isinstance(state, Pinging)


@pytest.mark.parametrize("error", [ServerBusy("x"), ProtocolViolation("x"), VersionRefused("x")])
def test_watches_a_server_that_cannot_take_the_device_information(error: EasError) -> None:
    state, actions = step(Informing(watch_of(partnership=FRESH)), Failed(error))

    assert isinstance(state, Pinging)
    assert [progress.partnership for progress in recorded(actions)] == [None]


@pytest.mark.parametrize("error", [ServerBusy("x", 30.0), ServerBusy("x", reached=False), Unreachable("x")])
def test_waits_for_a_server_that_asks_for_it_instead_of_the_device_information(error: EasError) -> None:
    assert paused(step(Informing(watch_of(partnership=FRESH)), Failed(error))[1]).failures == 1


# --- what operators see


def test_what_an_operator_should_know_is_recorded_when_it_changes() -> None:
    quiet = replace(INBOX, newest=EPOCH)
    watch = watch_of(quiet, shown=WatchState.WATCHING, silent_for=SILENT - 1.0)

    _, actions = step(Pinging(watch), pinged(PingStatus.EXPIRED, held=600.0))
    [odd] = recorded(actions)
    assert odd.condition is not None
    assert odd.condition.reason is Reason.PERHAPS_QUARANTINED

    watch = altered(watch, shown_detail=odd.condition.detail, silent_for=SILENT)
    assert recorded(step(Pinging(watch), pinged(PingStatus.EXPIRED, held=600.0))[1]) == []
    _, actions = step(Syncing(watch, (INBOX.id,)), synced(news("5:1")))
    assert WATCHING in recorded(actions)


def test_a_redirected_mailbox_begins_with_options_there_and_records_the_url() -> None:
    policy = replace(POLICY, hosts=frozenset({"mail2.example.com"}))
    state, actions = step(syncing(policy=policy), Failed(Redirected("https://mail2.example.com/eas")))

    assert (type(state), actions) == (Discovering, [Send(Options())])
    _, actions = step(state, Answered(OFFER, NOW))
    kept = recorded(actions)[0].partnership
    assert kept is not None
    assert (kept.url, kept.policy_key) == ("https://mail2.example.com/eas", PARTNERSHIP.policy_key)


# --- Ping


def pings_again(state: State, statuses: dict[CollectionId, int]) -> Watch:
    """Return the watch that holds its next Ping, after Syncs that are answered with these statuses."""
    while not isinstance(state, Pinging):
        assert isinstance(state, Syncing)
        asked = [c for c in state.watch.collections if c.id in state.asked]
        assert asked, "no Sync without a folder"
        failed = [news(of=c, status=statuses[c.id], key=None) for c in asked if statuses[c.id] != 1]
        state, _ = step(state, synced(*failed))
    return state.watch


SUB: Final = replace(INBOX, id=CollectionId("20"), sub=True)
LISTED: Final = Answered(FolderSyncReply(SyncKey("h2"), added=(Folder(SUB.id, INBOX.id, 12),)), NOW)


@pytest.mark.parametrize("status", [1, 5])
def test_folders_are_read_and_parked_ones_tried_again_every_few_hours_though_mail_comes_all_the_time(
    status: int,
) -> None:
    folders = (Folder(INBOX.id, CollectionId("0"), 2), Folder(SUB.id, INBOX.id, 12))
    watch = watch_of(INBOX, SUB, subfolders=EMAIL, hierarchy=folders, parked=frozenset({SUB.id}))
    watch = altered(watch, sync_failures=(SUB.id, SUB.id), unlisted_for=UNLISTED - 60.0, announced_until=NOW)
    state, _ = step(Pinging(watch), pinged(PingStatus.CHANGED, "5", held=60.0))

    state, actions = step(state, synced(news("5:1")))

    assert sent(actions) == FolderSync(PARTNERSHIP.hierarchy_key)
    assert state.watch.announced_until is None  # mail that came to the parked folder was not announced
    state, _ = step(state, LISTED)
    assert state.watch.counters.unlisted_for == 0.0
    watch = pings_again(state, {INBOX.id: 1, SUB.id: status})
    assert watch.parked == (frozenset() if status == 1 else {SUB.id})


@pytest.mark.parametrize(
    "ended",
    [
        pinged(PingStatus.EXPIRED, held=60.0),
        pinged(PingStatus.SERVER_ERROR, held=60.0),
        Failed(ServerBusy("x"), held=60.0),
        Failed(Unreachable("x", 60.0)),
    ],
)
def test_folders_are_read_every_few_hours_however_pings_end(ended: Event) -> None:
    state, actions = step(Pinging(watch_of(unlisted_for=UNLISTED - 60.0)), ended)
    while not isinstance(state, ReadingHierarchy):
        assert not isinstance(state, Pinging)
        state, actions = step(state, Woken() if isinstance(state, Pausing) else synced())

    assert sent(actions) == FolderSync(PARTNERSHIP.hierarchy_key)
    state, actions = step(state, Answered(FolderSyncReply(SyncKey("h2")), NOW))
    assert sent(actions) == SYNC


def test_parked_folders_are_tried_again_in_their_time_however_often_the_folders_are_read_meanwhile() -> None:
    watch = watch_of(INBOX, CALENDAR, parked=frozenset({CALENDAR.id}), unlisted_for=UNLISTED - 60.0, hierarchy_due=True)

    state, _ = step(ReadingHierarchy(watch), Answered(FolderSyncReply(SyncKey("h2")), NOW))

    assert state.watch.counters.unlisted_for == UNLISTED - 60.0


def test_a_parked_folder_that_is_gone_is_not_asked_for() -> None:
    state, _ = step(
        Pinging(watch_of(parked=frozenset({SUB.id}), unlisted_for=UNLISTED)), pinged(PingStatus.CHANGED, "5", held=60.0)
    )
    state, _ = step(state, synced())
    state, _ = step(state, Answered(FolderSyncReply(SyncKey("h2")), NOW))

    assert pings_again(state, {INBOX.id: 1}).parked == frozenset()


def test_a_folder_that_keeps_making_a_whole_sync_fail_is_parked_without_a_wait() -> None:
    watch = watch_of(INBOX, CALENDAR, unsynced=frozenset({CALENDAR.id}), sync_failures=(CALENDAR.id,) * 2)

    state, actions = step(Syncing(watch, (CALENDAR.id,)), Failed(ServerBusy("x")))

    assert sent(actions) == PING
    assert state.watch.parked == {CALENDAR.id}


def test_a_ping_that_expires_is_followed_by_the_next() -> None:
    assert step(Pinging(watch_of(shown=WatchState.WATCHING)), pinged(PingStatus.EXPIRED, held=600.0))[1] == [Send(PING)]


def test_a_change_is_synced() -> None:
    assert sent(step(Pinging(watch_of()), pinged(PingStatus.CHANGED, "5", held=60.0))[1]) == SYNC


def test_a_cut_after_a_long_hold_shortens_the_heartbeat_and_clears_the_failures() -> None:
    state, actions = step(Pinging(watch_of(failures=7)), Failed(Unreachable("x", 400.0)))

    assert state.watch.heartbeat.interval == 300
    assert paused(actions).failures == 1
    assert sent(step(state, Woken())[1]) == SYNC


def test_a_cut_after_a_short_hold_changes_no_heartbeat() -> None:
    state, actions = step(Pinging(watch_of(failures=7)), Failed(Unreachable("x", 20.0)))

    assert state.watch.heartbeat.interval == 600
    assert paused(actions).failures == 8


@pytest.mark.parametrize("error", [ServerBusy("x"), ServerBusy("x", reached=False), ProtocolViolation("x")])
def test_an_answer_that_breaks_off_a_held_ping_makes_no_wait_longer(error: EasError) -> None:
    watch = watch_of(failures=7, remedies=2)

    held_state, held_actions = step(Pinging(watch), Failed(error, held=HELD))
    _, soon_actions = step(Pinging(watch), Failed(error, held=HELD - 1.0))

    assert (paused(held_actions).failures, paused(soon_actions).failures) == (1, 8)
    assert held_state.watch.counters.remedies == 0
    assert held_state.watch.heartbeat == watch.heartbeat


def test_the_end_of_a_connection_that_others_shared_shows_no_idle_timeout() -> None:
    state, actions = step(Pinging(watch_of(failures=7)), Failed(Unreachable("x", 400.0, connection=3)))

    assert state.watch.heartbeat.interval == 600
    assert paused(actions).failures == 1


def test_after_every_wait_all_is_synced_before_the_next_ping() -> None:
    pausing, _ = proceed(watch_of(INBOX, CALENDAR, requests=BREATH))
    assert isinstance(pausing, Pausing)

    state, actions = step(pausing, Woken())

    request = sent(actions)
    assert isinstance(request, Sync)
    assert len(request.collections) == 2
    assert state.watch.counters.requests == 1


# --- the end


@pytest.mark.parametrize("event", [WipeAcknowledged(), Failed(Unreachable("x"))])
def test_a_wipe_ends_the_watch_whether_its_acknowledgement_arrives_or_not(event: Event) -> None:
    for account_only, reason in ((False, Reason.REMOTE_WIPE), (True, Reason.ACCOUNT_ONLY_WIPE)):
        state, actions = step(Wiping(watch_of(), account_only), event)

        assert isinstance(state, Ended)
        assert recorded(actions)[0].condition == Condition(WatchState.WIPED, reason)


def test_a_wipe_that_was_begun_goes_on_after_a_restart_and_nothing_else_does() -> None:
    state, actions = begin(Memory(PARTNERSHIP, (INBOX,), refusals=9, retry_in=900.0, wipe=True), POLICY)

    assert isinstance(state, Wiping)
    assert actions == [
        Record(Progress(condition=Condition(WatchState.WIPING, Reason.ACCOUNT_ONLY_WIPE))),
        AcknowledgeWipe(account_only=True),
    ]


# --- every pair

STATES: Final = [Syncing(watch_of(), (INBOX.id,)) if kind is Syncing else kind(watch_of()) for kind in get_args(State)]
REPLIES: Final[list[Event]] = [
    Answered(OFFER, NOW),
    hierarchy(),
    Answered(None, NOW),
    Answered(SyncReply(empty=True), NOW),
    pinged(PingStatus.EXPIRED, held=600.0),
]
FAILURES: Final = [
    Failed(error)
    for error in (
        Unreachable("x"),
        Unreachable("x", 400.0),
        ServerBusy("x"),
        ServerBusy("x", 9.0, reached=False),
        ServerBusy("x", shared=True, full=True),
        Unauthorized("x"),
        Withheld(1.0),
        AccessDenied("x", Reason.HTTP_403),
        NotProvisioned("x"),
        RemoteWipeRequested("x"),
        VersionRefused("x"),
        StateLost("x"),
        HierarchyChanged("x"),
        ProtocolViolation("x"),
    )
]
EVENTS: Final[list[Event]] = [*REPLIES, Full(90.0), Granted(None), Woken(), WipeAcknowledged(), *FAILURES]
LEGAL: Final[dict[type[State], list[Event]]] = {
    Discovering: REPLIES[:1],
    ReadingHierarchy: REPLIES[1:2],
    Informing: REPLIES[2:3],
    Syncing: REPLIES[3:4],
    Pinging: [*REPLIES[4:5], Full(90.0)],
    Provisioning: [Granted(None)],
    Pausing: [Woken()],
    Wiping: [WipeAcknowledged()],
    Ended: [*REPLIES, Full(90.0), Granted(None), Woken(), WipeAcknowledged()],
}


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)))
def test_every_pair_of_state_and_event_is_decided(state: State, event: Event) -> None:
    if isinstance(event, Failed) or event in LEGAL[type(state)]:
        following, actions = step(state, event)
        sent(actions)
        assert isinstance(following, State)
        assert actions or isinstance(state, Ended)
    else:
        with pytest.raises(ProtocolViolation, match=f"{type(event).__name__} in state {type(state).__name__}"):
            step(state, event)


def test_the_table_names_every_state() -> None:
    assert set(LEGAL) == set(get_args(State))


def test_a_sync_that_is_sent_again_at_once_uses_its_key_again() -> None:
    state, actions = step(syncing(), Failed(Unreachable("x", stale=True)))

    assert isinstance(state, Syncing)
    assert sent(actions) == SYNC
    assert state.watch.collections[0].tries == 2


def test_a_mailbox_that_is_polled_pauses_where_others_ping() -> None:
    state, actions = proceed(watch_of(policy=Policy(poll_interval=300.0)))

    assert isinstance(state, Pausing)
    assert paused(actions).seconds == 300.0
