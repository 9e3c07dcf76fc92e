"""The parts of a whole watch: a simulated server over TLS, a fleet, a journal in memory, time that a test moves."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from random import Random
from typing import Final, ParamSpec

import trustme

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Change
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.http import HttpTransport, open_transport
from relay.process.clock import now
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import ALPN, open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.fakes.eas import MemoryJournal, MemoryJournals
from tests.waiting import until

P = ParamSpec("P")
ANN = "ann@example.com"
PASSWORD = "secret"
OVER_HTTP_2: Final = ContextVar("OVER_HTTP_2", default=False)
"""Whether worlds speak HTTP/2."""
ONE_MAIL = [Change(CollectionClass.EMAIL, 1)]


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time a test can put forward, so that a wait of minutes ends at once over real sockets."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def hurried(test: Callable[P, Coroutine[None, None, None]], loop: type[HurriedLoop] = HurriedLoop) -> Callable[P, None]:
    """Run a test on a loop whose time can be put forward."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def hurry(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HurriedLoop)
    loop.ahead += seconds


class CountingTransport(HoldsInTask):
    """A transport that counts the requests in flight, so that no test puts the time forward over an answer."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport
        self.busy = 0

    async def send(self, request: HttpRequest) -> HttpReply:
        self.busy += 1
        try:
            return await self._transport.send(request)
        finally:
            self.busy -= 1


@dataclass
class WatchWorld:
    """A server, a fleet, and a journal with its commits."""

    simulator: EasSimulator
    journal: MemoryJournals
    fleet: Fleet
    transport: CountingTransport
    trusting: ssl.SSLContext
    """The context of the server's clients."""
    policy: Policy
    classes: frozenset[CollectionClass]
    admissions: Admissions
    subfolders: frozenset[CollectionClass] = frozenset()

    def start(self, user: str = ANN, password: str = PASSWORD) -> None:
        name = user.partition("@")[0]
        mailbox = MailboxId(name)
        account = Account(mailbox, self.simulator.url, user, DeviceId(f"D{name}"), BasicCredential(user, password))
        kept = self.journal.kept[mailbox]
        kept.subfolders = self.subfolders
        memory = kept.memory(self.classes)
        self.fleet.start(account, self.transport, memory, self.policy)

    async def stop(self) -> None:
        await self.fleet.stop(MailboxId("ann"))

    @property
    def ann(self) -> MemoryJournal:
        return self.journal.kept[MailboxId("ann")]

    def sent(self, command: str) -> int:
        return self.simulator.records.requests[command]

    async def until_idle(self) -> None:
        """Wait until no request was in flight for a while, on a busy machine too."""
        quiet = 0
        while quiet < 10:
            await asyncio.sleep(0.01)
            quiet = 0 if self.transport.busy else quiet + 1

    async def until_held(self, pings: int = 1) -> None:
        """Wait until a Ping is held, and at least so many Pings were sent."""
        await until(lambda: self.simulator.held == 1 and self.sent("Ping") >= pings)

    async def until_changed(self) -> None:
        """Put the time forward over every wait until a change is committed and the next Ping held."""

        def changed() -> bool:
            return bool(self.ann.changes) and self.simulator.held == 1

        for _ in range(400):
            if changed():
                return
            await asyncio.sleep(0.01)
            if self.simulator.held == 0:
                hurry(1.0)
        raise AssertionError("no change was committed")


@asynccontextmanager
async def world(
    policy: Policy | None = None,
    rules: EasRules | None = None,
    classes: frozenset[CollectionClass] = frozenset({CollectionClass.EMAIL}),
    *,
    subfolders: frozenset[CollectionClass] = frozenset(),
    faults: bool = False,
    proxy: Proxy | None = None,
) -> AsyncIterator[WatchWorld]:
    """Open a world; unless `faults` are part of the test, the server must have no complaints about the watcher.

    The watcher reaches the server through `proxy` if there is one.

    Both sides speak HTTP/2 where OVER_HTTP_2 says so.
    """
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting, multiplexing = ssl.create_default_context(), None
    authority.configure_trust(trusting)
    if OVER_HTTP_2.get():
        served.set_alpn_protocols(ALPN)
        multiplexing = ssl.create_default_context()
        authority.configure_trust(multiplexing)
    broken: list[MailboxId] = []
    async with (
        open_eas_simulator(tls=served, rules=rules) as simulator,
        open_transport(trusting, http2=multiplexing, proxy=proxy) as transport,
    ):
        simulator.add_mailbox(ANN, PASSWORD)
        journal = MemoryJournals()
        admissions = Admissions(4, Random(1), now)
        fleet = Fleet(WatchContext(journal, Random(1), admissions), broken.append)
        try:
            yield WatchWorld(
                simulator,
                journal,
                fleet,
                CountingTransport(transport),
                trusting,
                policy or Policy(),
                classes,
                admissions,
                subfolders,
            )
        finally:
            await fleet.stop_all()
        assert not broken
        assert OVER_HTTP_2.get() == bool(simulator.connections.http2.accepted)
        assert not simulator.connections.http2.violations
        assert not simulator.records.overlaps
        assert faults or not simulator.complaints
