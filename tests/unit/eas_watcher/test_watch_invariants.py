"""What holds for a watch whatever the server answers, in whatever order."""

from collections import Counter, deque
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from random import Random
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from eas_watcher import backoff
from eas_watcher.commands.folder_sync import Folder, FolderSyncReply
from eas_watcher.commands.options import Capabilities
from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.sync import Add, CollectionReply, Sync, SyncReply
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
    ServerRenewed,
    StateLost,
    TooManyCollections,
    Unauthorized,
    Unreachable,
    VersionRefused,
)
from eas_watcher.machine.memory import Memory
from eas_watcher.machine.ping import HASTY
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
    Discovering,
    Ended,
    Event,
    Failed,
    Granted,
    Informing,
    NegotiatePolicy,
    Pause,
    Pausing,
    Pinging,
    Policy,
    Provisioning,
    ReadingHierarchy,
    Send,
    State,
    Syncing,
    WipeAcknowledged,
    Wiping,
    Woken,
)
from eas_watcher.machine.step import BREATH, begin, step
from eas_watcher.machine.sync import KEY_TRIES
from eas_watcher.machine.sync_reply import digest
from eas_watcher.names import (
    NO_SYNC_KEY,
    CollectionClass,
    CollectionId,
    PolicyKey,
    ProtocolVersion,
    ServerId,
    SyncKey,
)
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import CALENDAR, INBOX, NOW, PARTNERSHIP, recorded, sent

STEPS: Final = 200
MANY_STEPS: Final = 3000
CLASSES: Final = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})
WAYS_TO_FAIL: Final[tuple[Callable[[Random], EasError], ...]] = (
    lambda random: Unreachable("x", random.choice([0.0, 40.0, 500.0]), reached=random.random() < 0.7),
    lambda _: Unreachable("x", stale=True),
    lambda random: ServerBusy("x", random.choice([None, 1.0, 3600.0]), reached=random.random() < 0.7),
    lambda _: HierarchyChanged("x"),
    lambda _: NotProvisioned("x"),
    lambda _: StateLost("x"),
    lambda _: VersionRefused("x"),
    lambda _: ProtocolViolation("x"),
    lambda _: RequestRefused("x"),
    lambda _: ServerRenewed("x"),
    lambda random: TooManyCollections("x", random.choice([None, 0, 1, 9])),
    lambda _: ServerBusy("x", suspect=True),
    lambda _: AccessDenied("x", Reason.HTTP_403),
    lambda _: Redirected("https://example.com/"),
    lambda _: Unauthorized("x"),
    lambda _: RemoteWipeRequested("x"),
)


class Mood:
    """A server that answers at random, but with preferences, so that loops get deep."""

    def __init__(self, random: Random, *, news: bool = True) -> None:
        self._random = random
        self._numbers = count()
        self._failing = random.choice([0.0, 0.05, 0.5, 1.0])
        # The last two failures end a watch soon, so only some servers have them.
        self._ways = WAYS_TO_FAIL[: random.choice([1, 2, 3, 13, 13, 15])]
        self._hasty = random.choice([0.0, 0.5, 1.0])
        self._statuses = random.choices([*PingStatus, PingStatus.CHANGED], k=random.choice([1, 2, 20]))
        self._empty = random.choice([0.0, 0.0, 0.2])
        self._sync_statuses = [1] * random.choice([1, 5, 50]) + random.choices([1, 1, 1, 3, 5, 8, 12, 142], k=2)
        self._items = random.choice([0, 0, 1, 3]) if news else 0
        self._more = random.choice([0.0, 0.5, 1.0])
        self._new_key = random.choice([1.0, 1.0, 0.5, 0.0])

    def event(self, state: State) -> Event:  # noqa: PLR0911 -- one answer for each state
        """Return a random event for the request or wait of a state."""
        random = self._random
        if isinstance(state, Pausing):
            return Woken()
        if random.random() < self._failing:
            return Failed(random.choice(self._ways)(random))
        match state:
            case Discovering():
                commands = frozenset({"Provision", "Settings"}) if random.random() < 0.5 else frozenset({"Sync"})
                return Answered(Capabilities((ProtocolVersion.V14_0,), commands), NOW)
            case Provisioning():
                return Granted(random.choice([None, PolicyKey("9")]))
            case ReadingHierarchy():
                return Answered(self._hierarchy(), NOW)
            case Informing():
                return Answered(None, NOW)
            case Syncing(_, asked):
                return Answered(self._sync(state, asked), NOW)
            case Pinging(watch):
                hasty = random.random() < self._hasty
                held = random.uniform(0.0, 2.0) if hasty else random.uniform(HASTY, watch.heartbeat.interval * 1.1)
                return Answered(self._ping(), NOW, held)
            case Wiping() | Ended():
                return WipeAcknowledged()

    def _hierarchy(self) -> FolderSyncReply:
        random = self._random
        listed = [Folder(CollectionId(random.choice(["5", "6"])), CollectionId("0"), 2)]
        if random.random() < 0.5:
            listed.append(Folder(CollectionId("7"), CollectionId("0"), 8))
        listed = listed[: random.randint(0, 2)]
        for id_, type_ in (("20", 12), ("21", 12), ("30", 13)):
            if random.random() < 0.3:
                listed.append(
                    Folder(CollectionId(id_), CollectionId(random.choice(["0", "5", "6", "20", "21"])), type_)
                )
        gone = tuple(CollectionId(id_) for id_ in ("5", "7", "20", "30") if random.random() < 0.2)
        return FolderSyncReply(SyncKey(f"h{next(self._numbers)}"), tuple(listed), deleted=gone)

    def _sync(self, state: Syncing, asked: tuple[CollectionId, ...]) -> SyncReply:
        random = self._random
        if random.random() < self._empty:
            return SyncReply(empty=True)
        keys = {c.id: c.sync_key for c in state.watch.collections}
        answers = []
        for id_ in asked:
            number = next(self._numbers)
            new = keys[id_] == NO_SYNC_KEY or random.random() < self._new_key
            adds = tuple(
                Add(
                    ServerId(f"{id_}:{number}.{n}"),
                    random.choice([False, False, True]),
                    NOW - timedelta(hours=number % 9),
                )
                for n in range(random.randint(0, self._items))
            )
            answers.append(
                CollectionReply(
                    id_,
                    random.choice(self._sync_statuses),
                    SyncKey(f"k{number}") if new else keys[id_],
                    random.random() < self._more,
                    bool(adds),
                    adds,
                )
            )
        return SyncReply(empty=False, collections=tuple(answers[: random.choice([1, 9])]))

    def _ping(self) -> PingReply:
        random = self._random
        changed = tuple(CollectionId(id_) for id_ in ("5", "7", "20", "99") if random.random() < 0.5)
        return PingReply(
            random.choice(self._statuses),
            changed,
            random.choice([None, 0, 10, 900, 4_000_000_000]),
            random.choice([None, 0, 1, 9]),
        )


class Watchdog:
    """Checks every move against the rules that always hold."""

    def __init__(self, memory: Memory) -> None:
        self._row = 0
        self._kept = {c.id: c.sync_key for c in memory.collections}
        """What a store holds: the sync keys from which a watch starts after a crash."""
        self._tries: Counter[tuple[CollectionId, SyncKey]] = Counter()

    def check(self, before: State | None, event: Event | None, after: State, actions: list[Action]) -> None:
        """Fail if a move breaks a rule."""
        command = sent(actions)  # fails for two requests in one list
        assert not any(c.drain for progress in recorded(actions) for c in progress.collections)
        self._check_news(before, event, actions)
        self._check_pace(before, event, actions)
        self._check_tries(before, event, command)
        self._check_keys(after, actions, command)
        if isinstance(command, Ping):
            watched = after.watch.watched
            assert watched
            assert not any(c.sub for c in watched[: len(after.watch.classes & {CollectionClass.EMAIL})])
            assert command.collections == tuple((c.id, c.cls) for c in watched)
            assert 1 <= command.heartbeat <= 3540
            for collection in watched:
                assert collection.sync_key != NO_SYNC_KEY
                assert collection.drain is None
                assert collection.id not in after.watch.unsynced

    def _check_news(self, before: State | None, event: Event | None, actions: list[Action]) -> None:
        """Check that a change is recorded with its sync key before the next request."""
        if not (isinstance(before, Syncing) and isinstance(event, Answered) and isinstance(event.reply, SyncReply)):
            assert not any(progress.changes for progress in recorded(actions))
            return
        asked = tuple(c for c in before.watch.collections if c.id in before.asked)
        expected = digest(asked, event.reply, event.at, before.watch.announced_until)
        assert [change for progress in recorded(actions) for change in progress.changes] == list(expected.changes)
        if expected.changes:
            kept = {c.id: c for c in recorded(actions)[0].collections}
            keys = {c.id: c.sync_key for c in asked}
            moved = [c for c in expected.collections if c.sync_key != keys[c.id] and c.drain is None]
            assert {(change.cls, change.sub) for change in expected.changes} <= {(c.cls, c.sub) for c in kept.values()}
            assert all(kept[c.id] == c for c in moved)

    def _check_keys(self, after: State, actions: list[Action], command: object) -> None:
        """Check that a key is sent only after a store holds it, because the server may then forget older states.

        While a collection is drained nothing of it is kept: a crash repeats the drain.
        """
        for progress in recorded(actions):
            self._kept |= {c.id: c.sync_key for c in progress.collections}
            for dropped in progress.dropped:
                self._kept.pop(dropped, None)
        if isinstance(command, Sync):
            draining = {c.id for c in after.watch.collections if c.drain is not None}
            for asked in command.collections:
                assert asked.sync_key in {NO_SYNC_KEY, self._kept.get(asked.id)} or asked.id in draining

    def _check_pace(self, before: State | None, event: Event | None, actions: list[Action]) -> None:
        """Check that requests without a wait are bounded; a held Ping is a wait, even with a short heartbeat."""
        match before, event:
            case _, Woken():
                self._row = 0
            case Pinging(watch), Answered(PingReply(), _, held) if held >= min(HASTY, watch.heartbeat.interval / 4):
                self._row = 0
            case _:
                pass
        self._row += sum(isinstance(action, Send | NegotiatePolicy | AcknowledgeWipe) for action in actions)
        assert self._row <= BREATH + 1

    def _check_tries(self, before: State | None, event: Event | None, command: object) -> None:
        """Check that a key is sent at most three times in a row without a whole answer."""
        if isinstance(before, Syncing) and not (
            isinstance(event, Failed)
            and (
                isinstance(
                    event.error, ProtocolViolation | RequestRefused | HierarchyChanged | StateLost | ServerRenewed
                )
                or (isinstance(event.error, Unreachable | ServerBusy) and event.error.reached)
            )
        ):
            answers = (
                event.reply.collections if isinstance(event, Answered) and isinstance(event.reply, SyncReply) else ()
            )
            troubled = {answer.id for answer in answers if answer.status != 1}
            for id_, key in list(self._tries):
                if id_ in before.asked and id_ not in troubled:
                    if isinstance(event, Failed):
                        self._tries[id_, key] -= 1  # the server did not process the request
                    else:
                        del self._tries[id_, key]
        if isinstance(command, Sync):
            for asked in command.collections:
                if asked.sync_key != NO_SYNC_KEY:
                    self._tries[asked.id, asked.sync_key] += 1
                    assert self._tries[asked.id, asked.sync_key] <= KEY_TRIES


def run(memory: Memory, seed: int, steps: int) -> None:
    mood, watchdog = Mood(Random(seed)), Watchdog(memory)
    state, actions = begin(memory, Policy())
    watchdog.check(None, None, state, actions)
    for _ in range(steps):
        if isinstance(state, Ended):
            return
        event = mood.event(state)
        before, (state, actions) = state, step(state, event)
        watchdog.check(before, event, state, actions)


def pace(seed: int, *, news: bool) -> int:
    """Return the most requests within one minute when a server answers all but held Pings at once.

    Waits are as short as chance can make them.
    """
    mood = Mood(Random(seed), news=news)
    state, actions = begin(Memory(classes=CLASSES), Policy())
    now, most = 0.0, 0
    minute: deque[float] = deque()
    for _ in range(MANY_STEPS):
        for action in actions:
            if isinstance(action, Pause):
                now += action.seconds or backoff.least(action.failures)
            elif isinstance(action, Send | NegotiatePolicy | AcknowledgeWipe):
                minute.append(now)
        while minute and minute[0] <= now - 60.0:
            minute.popleft()
        most = max(most, len(minute))
        if isinstance(state, Ended):
            break
        event = mood.event(state)
        if isinstance(event, Answered):
            now += event.held
        state, actions = step(state, event)
    return most


@settings(max_examples=settings().max_examples // 4)
@given(st.integers(0, 2**32))
def test_requests_a_minute_are_bounded_whatever_the_server_answers(seed: int) -> None:
    assert pace(seed, news=True) <= (BREATH + 1) * (60.0 / backoff.least(1) + 1)


@settings(max_examples=settings().max_examples // 4)
@given(st.integers(0, 2**32))
def test_requests_a_minute_are_few_while_a_server_has_no_news(seed: int) -> None:
    # Each wait is twice as long as the one before: 3.5, 7, 14 and 28 s fit into a minute at best.
    assert pace(seed, news=False) <= (BREATH + 1) * 5


@settings(max_examples=settings().max_examples // 10)
@given(st.integers(0, 2**32))
def test_the_promises_hold_for_thousands_of_steps(seed: int) -> None:
    run(Memory(PARTNERSHIP, (INBOX, CALENDAR), CLASSES), seed, MANY_STEPS)


@given(st.integers(0, 2**32))
def test_a_new_mailbox_keeps_its_promises_whatever_the_server_answers(seed: int) -> None:
    run(Memory(classes=CLASSES), seed, STEPS)


@given(st.integers(0, 2**32))
def test_a_known_mailbox_keeps_its_promises_whatever_the_server_answers(seed: int) -> None:
    run(Memory(PARTNERSHIP, (INBOX, CALENDAR), CLASSES), seed, STEPS)


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 2**32))
def test_subfolders_keep_the_promises_whatever_the_server_answers(seed: int) -> None:
    run(Memory(PARTNERSHIP, (INBOX, CALENDAR), CLASSES, subfolders=CLASSES), seed, STEPS)
