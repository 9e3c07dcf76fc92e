"""No new mail is lost, whatever happens to server, network and relay."""

from random import Random
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.machine.counters import UNLISTED
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
    Event,
    Granted,
    NegotiatePolicy,
    Pause,
    Pinging,
    Policy,
    Record,
    Send,
    State,
    Woken,
)
from eas_watcher.machine.step import begin, step
from eas_watcher.names import CollectionClass, PolicyKey
from tests.fakes.eas import MemoryJournal
from tests.unit.eas_watcher.unreliable import UnreliableServer
from tests.unit.eas_watcher.watching import EMAIL

MAIL: Final = CollectionClass.EMAIL
CALM: Final = 400  # steps within which a watch must be in step again once nothing fails any more


class Relay:
    """Runs a watch against a server without waiting; a test can crash it."""

    def __init__(self, server: UnreliableServer) -> None:
        self.journal = MemoryJournal()
        self._server = server
        self._state: State
        self._actions: list[Action]
        self.crash()

    def crash(self) -> None:
        """Start again from what was committed."""
        self._state, self._actions = begin(self.journal.memory(EMAIL), Policy())

    def step(self, crash_before: int | None = None) -> float:
        """Do the actions of the last step; return for how many seconds a Ping was held that expired."""
        event: Event | None = None
        for number, action in enumerate(self._actions):
            if number == crash_before:
                self.crash()
                return 0.0
            event = self._do(action)
        assert event is not None
        silent = isinstance(self._state, Pinging) and isinstance(event, Answered)
        self._state, self._actions = step(self._state, event)
        return event.held if silent and isinstance(event, Answered) else 0.0

    def _do(self, action: Action) -> Event | None:
        match action:
            case Record(progress):
                self.journal.keep(progress)
                return None
            case Pause(progress):
                self.journal.keep(progress)
                return Woken()
            case Send(command):
                return self._server.serve(command)
            case NegotiatePolicy():
                return Granted(PolicyKey("9"))
            case AcknowledgeWipe():
                raise AssertionError("no wipe was requested")

    def settle(self) -> None:
        """Go on until Pings have expired for longer than any server fails to report changes."""
        silent = 0.0
        for _ in range(CALM):
            silent += self.step()
            if silent > UNLISTED + 2 * 1680:
                return
        raise AssertionError("the watch does not come to rest")


def live(seed: int) -> None:
    random = Random(seed)
    server = UnreliableServer(random)
    for _ in range(random.randrange(8)):
        server.receive_mail()
    relay = Relay(server)
    relay.settle()
    assert relay.journal.announced[MAIL] == 0, "what was there before is not new"
    for _ in range(4):
        before = relay.journal.announced[MAIL]
        server.trouble = random.choice([0.0, 0.1, 0.3, 0.6])
        for moment in range(arrives := random.randrange(20), arrives + random.randrange(1, 30)):
            relay.step(random.randrange(3) if random.random() < server.trouble / 4 else None)
            if moment == arrives:
                server.receive_mail()
        server.trouble = 0.0
        relay.settle()
        assert relay.journal.announced[MAIL] > before, "a mail was lost"


@given(st.integers(0, 2**32))
def test_every_mail_is_announced_at_least_once(seed: int) -> None:
    live(seed)
