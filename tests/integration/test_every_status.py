"""Every answer of docs/eas-statuses.md, over HTTP with TLS: the watch shows the states that the document names.

The document is written from rehearsals without a network; here each answer comes from the simulated server, to a
mailbox of its own, again and again. Then the server recovers, and the mail that came meanwhile must be announced.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

import pytest
import trustme

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import EasError
from eas_watcher.machine.memory import Change, WatchState
from eas_watcher.machine.ping import HASTY
from eas_watcher.machine.state import Policy
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, DeviceId, MailboxId, ProtocolVersion
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admissions import Admissions
from eas_watcher.tools.statuses.document import TABLES
from eas_watcher.tools.statuses.rehearsal import CALENDAR, Case, rehearse
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.http import HttpTransport, open_transport
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerHttp, Cut, FailurePlan
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.fakes.eas import MemoryJournal, MemoryJournals
from tests.integration.eas_world import ANN, ONE_MAIL, PASSWORD, hurried, hurry, world

ALWAYS: Final = 10**9
STEP: Final = 5.0  # seconds that the time is put forward at once
STEPS: Final = 2000
CALM: Final = 3  # looks in a row without a request under way
PATIENCE: Final = 10_000  # looks at requests under way, a millisecond or more apart
HOUR: Final = 3600.0
MOST: Final = 40  # requests that any answer drives a watch to within an hour, its start among them
OFTEN: Final = "Ping: 2"  # every 20 s, as while a user reads elsewhere: a Ping and a Sync each time
WELL: Final[tuple[WatchState, Reason | None]] = (WatchState.WATCHING, None)
LOST: Final = (WatchState.WAITING, Reason.UNREACHABLE)
"""Moving the time forward may end a kept connection just as the next request is sent on it."""
MAIL: Final = Change(CollectionClass.EMAIL, 1)
ENDS: Final = {WatchState.CREDENTIAL_REFUSED, WatchState.WIPED}
CLASSES: Final = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})
ELSEWHERE: Final = {
    "HTTP: 401 while another mailbox is accepted": "it takes two mailboxes: test_server_outage.py",
    "HTTP: any with X-MS-RP": "said once for each value: below",
    "Network: refused": "no server is there to play it: test_server_outage.py",
    "Provision, of the policy: 2": "a server without policies is another one: test_eas_watch.py",
}
CUTS: Final = {
    "Network: reset, or no answer in time": Cut(),
    "Network: Ping cut within 30 s": Cut(),
    "Network: Ping cut after 300 s": Cut(seconds=300.0),
}
NAMES: Final = ("R\x03", "J\x03")  # the bytes before the id of a collection: CollectionId in a Sync, Folder in a Ping


class Wire(HoldsInTask):
    """The transport of one mailbox, which counts the requests over whose answers the time must not be moved."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport
        self.holds = True
        """Whether the server holds Pings, as servers do, instead of answering at once."""
        self.short = 0

    async def send(self, request: HttpRequest) -> HttpReply:
        if self.holds and "Cmd=Ping" in request.url:
            return await self._transport.send(request)
        self.short += 1
        try:
            return await self._transport.send(request)
        finally:
            self.short -= 1


@dataclass
class Row:
    """One answer, and the mailbox that gets it."""

    name: str
    case: Case
    fleet: Fleet
    kept: MemoryJournal
    expected: tuple[WatchState, Reason | None]
    account: Account
    policy: Policy
    wire: Wire

    @property
    def shown(self) -> set[tuple[WatchState, Reason | None]]:
        """The states and reasons that operators saw, in order."""
        return {(condition.state, condition.reason) for condition in self.kept.conditions}

    @property
    def begins_known(self) -> bool:
        """True if the watch has all its keys when the bad answer comes."""
        return self.case.command in {"FolderSync", "Sync", Ping.name}


@dataclass
class Stage:
    """All rows at one server."""

    simulator: EasSimulator
    transport: HttpTransport
    journal: MemoryJournals = field(default_factory=MemoryJournals)
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, case: Case) -> None:
        """Add a row with a mailbox and an admission of its own: no mailbox learns from another here."""
        conduct = rehearse(case)
        condition = conduct.condition
        expected = WELL if condition is None else (condition.state, condition.reason)
        user = f"row{len(self.rows)}@example.com"
        id_ = MailboxId(user)
        self.simulator.add_mailbox(user, PASSWORD)
        self.simulator.deliver(user, subject="Old")
        fleet = Fleet(WatchContext(self.journal, Random(1), Admissions(4, Random(1), now)), lambda _: None)
        device = DeviceId(f"D{len(self.rows)}")
        account = Account(id_, self.simulator.url, user, device, BasicCredential(user, PASSWORD))
        # From version 14.1 on the watcher sends no Settings command.
        policy = Policy(versions=(ProtocolVersion.V14_0,)) if case.command == "Settings" else Policy()
        wire = Wire(self.transport)
        self.rows.append(Row(name, case, fleet, self.journal.kept[id_], expected, account, policy, wire))

    def start(self, rows: list[Row]) -> None:
        for row in rows:
            row.kept.conditions.clear()
            row.fleet.start(row.account, row.wire, row.kept.memory(CLASSES), row.policy)

    async def stop(self) -> None:
        for row in self.rows:
            await row.fleet.stop_all()

    async def hurry(self, seconds: float) -> None:
        """Move the time forward while no short request is in flight, because its answer would be late.

        An answer that has just come is read a few turns of the loop later.
        """
        calm = 0
        for _ in range(PATIENCE):
            await asyncio.sleep(0.001)
            calm = 0 if any(row.wire.short for row in self.rows) else calm + 1
            if calm == CALM:
                hurry(seconds)
                return
        raise AssertionError(f"no answer: {[row.name for row in self.rows if row.wire.short]}")

    async def hurry_until(self, fact: Callable[[], bool]) -> None:
        for _ in range(STEPS):
            if fact():
                return
            await self.hurry(0.1)
        raise AssertionError("nothing happened in time")

    def sent(self, row: Row, since: float) -> int:
        """Return the number of requests that reached the server since a moment."""
        return sum(entry.moment >= since for entry in self.simulator.log(row.account.user))

    def fail(self, row: Row) -> None:
        failure = self._failure(row)
        row.wire.holds = row.case.command != Ping.name or failure.seconds >= HASTY
        self.simulator.fail(row.account.user, FailurePlan(failure, row.case.command, ALWAYS))
        if row.case.command == "FolderSync":  # which begins a start without the key of the hierarchy
            row.kept.partnership = replace(row.kept.partnership, hierarchy_key=NO_SYNC_KEY)

    def _failure(self, row: Row) -> AnswerHttp | Cut:
        answer = row.case.answer
        if isinstance(answer, EasError):
            return CUTS[row.name]
        body = answer.body.decode("ascii")  # WBXML of tags and statuses has no other bytes
        calendar = self.simulator.mailbox(row.account.user).default_folder(CALENDAR.cls)
        for name in NAMES:
            body = body.replace(f"{name}{CALENDAR.id}\0", f"{name}{calendar}\0")
        return AnswerHttp(answer.status, answer.headers, body, 0.0 if row.case.held < HASTY else row.case.held)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    authority = trustme.CA()
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusting)
    async with open_eas_simulator(tls=served) as simulator, open_transport(trusting) as transport:
        opened = Stage(simulator, transport)
        try:
            yield opened
        finally:
            await opened.stop()
        assert not simulator.records.overlaps


def every_case() -> list[tuple[str, Case]]:
    every = [(f"{title}: {name}", case) for title, _, table in TABLES for name, case in table().items()]
    assert {name for name, _ in every} >= ELSEWHERE.keys()
    return [(name, case) for name, case in every if name not in ELSEWHERE]


@pytest.mark.slow
@hurried
async def test_every_answer_is_answered_as_the_document_says_and_costs_no_mail() -> None:
    async with stage() as played:
        for name, case in every_case():
            played.add(name, case)
        rows = played.rows
        known = [row for row in rows if row.begins_known]
        played.start(known)
        await played.hurry_until(lambda: played.simulator.held == len(known))
        await played.stop()

        began = asyncio.get_running_loop().time()
        for row in rows:
            played.fail(row)
        played.start(rows)
        while asyncio.get_running_loop().time() < began + HOUR:
            await played.hurry(STEP)
        assert {row.name: row.shown for row in rows if row.expected not in row.shown} == {}
        well = [row for row in rows if row.expected == WELL]
        assert len(well) > 5
        assert {row.name: row.shown for row in well if row.shown - {WELL, LOST}} == {}
        sent = {row.name: played.sent(row, began) for row in rows}
        assert sent.pop(OFTEN) <= 2 * HOUR / 20
        assert {name: requests for name, requests in sent.items() if requests > MOST} == {}
        assert all(change.count == 1 for row in rows for change in row.kept.changes)

        await played.stop()
        played.simulator.failures.clear()
        living = [row for row in known if row.expected[0] not in ENDS]
        for row in living:
            row.wire.holds = True
            row.kept.changes.clear()
            played.simulator.deliver(row.account.user)
        played.start(living)
        await played.hurry_until(lambda: all(MAIL in row.kept.changes for row in living))
        await played.hurry_until(lambda: played.simulator.held == len(living))
        for row in living:
            assert [change for change in row.kept.changes if change.cls is MAIL.cls] == [MAIL], row.name
            assert all(change == MAIL or not change.certain for change in row.kept.changes), row.name


@hurried
async def test_a_server_that_was_changed_is_asked_what_it_offers_and_no_mail_is_lost() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        before = len(watched.simulator.log(ANN))
        watched.simulator.fail(ANN, FailurePlan(AnswerHttp(200, {"X-MS-RP": "2.5,12.1,14.1"}), "Sync"))
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        commands = [entry.command for entry in watched.simulator.log(ANN)][before:]
        assert commands[:4] == ["Sync", "OPTIONS", "FolderSync", "Sync"]
