"""Rehearsals: what a watch really does when its server gives one answer again and again.

The step function and the flows of the watch run here, against a server that answers everything but one command well;
nothing is sent and no time passes. The document of all statuses is written from them, so it says what the code does.
"""

from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

from eas_watcher.commands.flow import Flow, converse
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.http_status import raise_for_http
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.provision import acknowledge_wipe, negotiate
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.commands.sync import Sync
from eas_watcher.errors import EasError
from eas_watcher.machine.memory import Collection, Condition, Memory, Partnership, WatchState
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
    Ended,
    Event,
    Failed,
    Granted,
    NegotiatePolicy,
    Pause,
    Policy,
    Record,
    Send,
    State,
    WipeAcknowledged,
    Woken,
)
from eas_watcher.machine.step import begin, proceed, step
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, PolicyKey, ProtocolVersion, SyncKey
from eas_watcher.runtime.client import raise_for_cut
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, PROVISION, SETTINGS, Element
from eas_watcher.wbxml.encode import encode

NOW: Final = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ROUNDS: Final = 16  # times that the answer is given; backoffs have reached their ceiling by then
STEPS: Final = 400  # of the watch; a limit for a rehearsal that would not end
ELSEWHERE: Final = "https://mail2.example.com/Microsoft-Server-ActiveSync"

Answer: TypeAlias = HttpReply | EasError
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Case:
    """One answer, the command that gets it, and what it means if it becomes no error."""

    command: str
    """The command's name; empty for OPTIONS."""
    answer: Answer
    held: float = 0.0
    """Seconds until the answer came."""
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a watch did after an answer."""

    meaning: str
    """What the answer says: the text of the error that it became."""
    remedy: tuple[str, ...]
    """What it did until it sent the same command again, held another Ping, or ended."""
    waits: tuple[Pause, ...]
    """All waits, in order."""
    at_last: tuple[str, ...]
    """What it did after the last wait."""
    condition: Condition | None
    """What operators see during the last wait; None: the mailbox is always shown as watched."""
    ended: bool
    """True if the watch ended for good."""
    announced: int
    """How many new items were announced to the phones."""


@dataclass(slots=True)
class _Stage:
    """One watch against one bad answer."""

    case: Case
    given: int = 0
    error: str = ""
    announced: int = 0
    keys: int = 0
    done: list[str] = field(default_factory=list)
    """What the watch did since it got the answer first."""
    remedy: tuple[str, ...] | None = None
    waits: list[Pause] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)

    def perform(self, state: State, actions: list[Action]) -> Conduct:
        for _ in range(STEPS):
            event: Event | None = None
            for action in actions:
                event = self._do(state, action) or event
            if event is None or self.given >= ROUNDS or self._is_well(actions):
                break
            state, actions = step(state, event)
        remedy = self.remedy or tuple(self.done)
        shown = [condition for condition in self.conditions if condition.state is not WatchState.WATCHING]
        meaning = self.error or self.case.meaning or (shown[0].detail if shown else "")
        at_last: list[str] = []
        for done in self.done:
            at_last = [] if done in {describe(pause) for pause in self.waits} else [*at_last, done]
        condition = shown[-1] if shown else None
        ended = isinstance(state, Ended)
        return Conduct(meaning, remedy, tuple(self.waits), tuple(at_last), condition, ended, self.announced)

    def _is_well(self, actions: list[Action]) -> bool:
        """Return True if the watch holds a Ping and the bad answer is for another command."""
        return bool(self.given) and self.case.command != Ping.name and Ping.name in map(_command, actions)

    def _do(self, state: State, action: Action) -> Event | None:  # noqa: PLR0911 -- one answer for each action
        if self.given and not isinstance(action, Record):
            self.done.append(describe(action))
            if self.remedy is None and _command(action) == self.case.command:
                self.remedy = tuple(self.done)
        match action:
            case Record(progress):
                self.announced += sum(change.count for change in progress.changes)
                self._note(progress.condition)
                return None
            case Pause(progress):
                self._note(progress.condition)
                self.waits.append(action)
                return Woken()
            case Send(command):
                try:
                    return Answered(self._ask(command), NOW, self._held(command))
                except EasError as error:
                    return Failed(error, held=self._held(command))
            case NegotiatePolicy(acknowledgement, fallbacks):
                version = state.watch.partnership.version or ProtocolVersion.V14_1
                try:
                    grant = self._converse(negotiate(version, acknowledgement, fallbacks))
                except EasError as error:
                    self.error = self.error or str(error)
                    return Failed(error)
                return Granted(grant.policy_key, grant.acknowledged)
            case AcknowledgeWipe():  # pragma: no branch -- mypy proves that there is no other
                self._converse(acknowledge_wipe(action.account_only))
                return WipeAcknowledged()

    def _note(self, condition: Condition | None) -> None:
        if condition is not None and self.given:
            self.conditions.append(condition)

    def _converse(self, flow: Flow[R]) -> R:
        return run_at_once(converse(flow, self._ask_at_once))

    async def _ask_at_once(self, command: Command[Any]) -> Any:
        return self._ask(command)

    def _ask(self, command: Command[Any]) -> Any:
        """Read the bad answer if it is for this command, else a good one."""
        if command.name != self.case.command:
            return command.read(self._well(command))
        self.given += 1
        try:
            if isinstance(self.case.answer, EasError):
                raise self.case.answer
            if isinstance(command, Ping):
                raise_for_cut(self.case.answer, self.case.held)
            raise_for_http(self.case.answer, lambda: NOW)
            return command.read(self.case.answer)
        except EasError as error:
            self.error = self.error or str(error)
            raise

    def _held(self, command: Command[Any]) -> float:
        return self.case.held if command.name == self.case.command else 0.0

    def _well(self, command: Command[Any]) -> HttpReply:
        """Return the answer of a healthy server without new items."""
        self.keys += 1
        if isinstance(command, Sync):
            primes = [asked.id for asked in command.collections if asked.sync_key == NO_SYNC_KEY]
            return wbxml(AIRSYNC("Sync", AIRSYNC("Collections", *(first_key(id_, self.keys) for id_ in primes))))
        if isinstance(command, FolderSync):
            return wbxml(_hierarchy(self.keys))
        return WELL[command.name]


def run_at_once(conversation: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine that never waits."""
    try:
        conversation.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    raise AssertionError("a rehearsal waits for nothing")


def rehearse(case: Case) -> Conduct:
    """Give the answer of a case to a watch that worked until then, up to `ROUNDS` times."""
    partnership = Partnership(ProtocolVersion.V14_1, PolicyKey("1"), SyncKey("h"), informed=case.command != "Settings")
    if not case.command:
        partnership = replace(partnership, version=None)
    memory = Memory(partnership, (INBOX, CALENDAR), frozenset({INBOX.cls, CALENDAR.cls}))
    state, actions = begin(memory, Policy(hosts=frozenset({"mail2.example.com"})))
    if case.command == "FolderSync":
        state, actions = proceed(replace(state.watch, hierarchy_due=True))
    if case.command == "Provision":
        state, actions = proceed(replace(state.watch, provision_due=True))
    return _Stage(case).perform(state, actions)


def describe(action: Action) -> str:  # noqa: PLR0911 -- one text for each action
    """Return an action in a few words."""
    match action:
        case Send(FolderSync(key)) if key == NO_SYNC_KEY:
            return "FolderSync from key 0"
        case Send(Sync(collections)) if all(asked.sync_key == NO_SYNC_KEY for asked in collections):
            return "Sync from key 0"
        case Send(Sync(collections)) if len(collections) == 1:
            return "Sync of one folder"
        case Send(command):
            return command.name or "OPTIONS"
        case NegotiatePolicy():
            return "Provision"
        case AcknowledgeWipe():
            return "acknowledge the wipe"
        case Pause(seconds=None):
            return "back off"
        case Pause(seconds=float(seconds)):
            return f"wait {span(seconds)}"
        case _:
            return "record"


def span(seconds: float) -> str:
    """Return a duration in the largest unit that fits, e.g. "90 s", "15 min", "6 h"."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"


def wbxml(root: Element) -> HttpReply:
    """Return a 200 answer with a document."""
    return HttpReply(200, {"content-type": "application/vnd.ms-sync.wbxml"}, encode(root))


def first_key(collection: str, number: int) -> Element:
    """Return the answer of Sync for a collection that was primed."""
    parts = AIRSYNC("SyncKey", f"k{number}"), AIRSYNC("CollectionId", collection), AIRSYNC("Status", "1")
    return AIRSYNC("Collection", *parts)


def _hierarchy(number: int) -> Element:
    folders = (
        FOLDERHIERARCHY("Add", FOLDERHIERARCHY("ServerId", collection.id), FOLDERHIERARCHY("Type", type_))
        for collection, type_ in ((INBOX, "2"), (CALENDAR, "8"))
    )
    parts = FOLDERHIERARCHY("Status", "1"), FOLDERHIERARCHY("SyncKey", f"h{number}")
    return FOLDERHIERARCHY("FolderSync", *parts, FOLDERHIERARCHY("Changes", *folders))


def _command(action: Action) -> str | None:
    """Return the command that an action sends; None if it sends none."""
    match action:
        case Send(command):
            return command.name
        case NegotiatePolicy() | AcknowledgeWipe():
            return "Provision"
        case _:
            return None


INBOX: Final = Collection(CollectionId("5"), CollectionClass.EMAIL, SyncKey("k"), newest=NOW)
CALENDAR: Final = Collection(CollectionId("7"), CollectionClass.CALENDAR, SyncKey("c"), newest=NOW)
WELL: Final = {
    "": HttpReply(
        200, {"ms-asprotocolversions": "12.1,14.1", "ms-asprotocolcommands": "Sync,Ping,FolderSync,Provision"}, b""
    ),
    "Provision": wbxml(
        PROVISION(
            "Provision",
            PROVISION("Status", "1"),
            PROVISION("Policies", PROVISION("Policy", PROVISION("Status", "1"), PROVISION("PolicyKey", "2"))),
        )
    ),
    "Settings": wbxml(SETTINGS("Settings", SETTINGS("Status", "1"))),
    "Ping": wbxml(PING("Ping", PING("Status", "1"))),
}
"""Command -> the answer of a healthy server, whatever the request says."""
