"""Each candidate is checked once, whatever happens to the database or to its registration meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import EasError, Unauthorized, Unreachable
from eas_watcher.machine.memory import Condition, Memory, Partnership, WatchState
from eas_watcher.machine.state import RATE, Policy
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.mass_refusals import LEAST
from eas_watcher.transport.holding import HoldsInTask
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Candidate, RegistrationId, WatchRecord
from relay.domain.tries import Wait, Withdrawn
from relay.security.sealing import SealingPrivateKey, generate
from relay.watch.accounts import Accounts, EasServer
from relay.watch.verification import Verification
from tests.fakes import records
from tests.fakes.watches import NoWatches
from tests.unit.eas_watcher.running import Middle

pytestmark = pytest.mark.looptime

NOW = datetime.fromisoformat("2026-11-24T12:00:00+00:00")
ANN = MailboxId("ann")
URL = "https://mail.example.com/eas"
SHORT = 64
OFFER = {"ms-asprotocolversions": "14.1,16.1", "ms-asprotocolcommands": "FolderSync,Ping,Sync"}
MAILBOX = records.mailbox(id=ANN, state=WatchState.VERIFYING)


def time() -> datetime:
    return NOW + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Server(HoldsInTask):
    """Answer everybody with a credential with one status, and count them."""

    status: int
    takes: float = 0.0
    error: EasError | None = None
    headers: dict[str, str] = field(default_factory=dict)
    void: str = ""
    """A password that is refused."""
    urls: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def asked(self) -> int:
        return len(self.moments)

    async def send(self, request: HttpRequest) -> HttpReply:
        if "Authorization" not in request.headers:
            return HttpReply(401, {}, b"")
        self.moments.append(asyncio.get_running_loop().time())
        self.urls.append(request.url)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        if (
            self.void
            and request.headers["Authorization"] == BasicCredential("ann@example.com", self.void).authorization()
        ):
            return HttpReply(401, {}, b"")
        return HttpReply(self.status, OFFER if self.status == 200 else self.headers, b"")


class Results(NoWatches):
    """A store of results, unless it is away; a result takes its candidate out of the record."""

    def __init__(self, record: WatchRecord) -> None:
        self.present = record
        self.away = False
        self.url: str | None = None
        self.results: list[tuple[str, RegistrationId]] = []
        self.waits: list[Wait | None] = []
        """What the next tries must wait; None: nothing."""
        self.spent = 0
        self.successes = 0
        self.replaces = False

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        self._check()
        return self.present if mailbox_id == self.present.mailbox.id else None

    async def spend(
        self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None
    ) -> Wait | Withdrawn | None:
        self._check()
        if candidate is not None and candidate not in self.present.candidates:
            return Withdrawn.CANDIDATE
        if self.waits and (wait := self.waits.pop(0)) is not None:
            return wait
        self.spent += 1
        return None

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        self._check()
        self.successes += 1

    async def expire(self, candidate: Candidate) -> None:
        self._settle("expired", candidate)

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        self._settle("accepted", candidate)
        self.url, self.replaces = url, replaces
        if succeeded:
            await self.succeeded(candidate.mailbox_id)

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        self._settle("refused", candidate)

    def _settle(self, result: str, candidate: Candidate) -> None:
        self._check()
        self.results.append((result, candidate.registration_id))
        self.present = replace(self.present, candidates=tuple(c for c in self.present.candidates if c != candidate))

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class World:
    """One candidate, the store, and the mail server."""

    def __init__(self, folder: Path, status: int, rate: float) -> None:
        (folder / "key.pem").write_bytes(generate()[0])
        self.key = SealingPrivateKey.load(folder / "key.pem")
        self.candidate = Candidate(RegistrationId("first"), ANN, self.seal("secret"))
        self.store = Results(WatchRecord(MAILBOX, None, Memory(), (self.candidate,), 1))
        self.server = Server(status)
        self.watched = True
        self.shown: list[Condition] = []
        self.admissions = Admissions(SHORT, Middle(), time)
        self.rate = rate
        accounts = Accounts(self.key, {"main": EasServer(URL, self.server, Policy(return_rate=rate))})
        self.broken: list[MailboxId] = []
        self.verification = Verification(
            self.store, accounts, lambda _: self.watched, self.show, self.broken.append, self.admissions, Middle()
        )

    @property
    def admission(self) -> ServerAdmission:
        return self.admissions.admission(URL, self.rate)

    def seal(self, password: str) -> bytes:
        return self.key.public_key().seal(MAILBOX, BasicCredential("ann@example.com", password))

    def start(self) -> None:
        self.verification.start(self.candidate, self.store.present)

    def register(self, number: int) -> None:
        """Start so many candidates of the mailbox at once, as at the start of a process after a roll-out."""
        candidates = tuple(replace(self.candidate, registration_id=RegistrationId(f"r{n}")) for n in range(number))
        self.store.present = replace(self.store.present, candidates=candidates)
        for candidate in candidates:
            self.verification.start(candidate, self.store.present)

    async def show(self, _: MailboxId, condition: Condition) -> None:
        self.shown.append(condition)


@asynccontextmanager
async def world(folder: Path, status: int, rate: float = RATE) -> AsyncIterator[World]:
    here = World(folder, status, rate)
    yield here
    await here.verification.stop()


async def test_a_refused_password_is_not_tried_again_while_its_refusal_cannot_be_kept(tmp_path: Path) -> None:
    async with world(tmp_path, 401) as here:
        here.server.takes = 1.0
        here.start()
        await asyncio.sleep(0.5)
        here.store.away = True
        await asyncio.sleep(3600)
        assert here.server.asked == 1

        here.store.away = False
        await asyncio.sleep(3600)

        assert here.server.asked == 1
        assert here.store.results == [("refused", "first")]


async def test_a_refused_password_is_not_tried_again_for_a_record_read_before_it_was_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 401) as here:
        stale = here.store.present
        here.start()
        await asyncio.sleep(1)
        here.verification.start(here.candidate, stale)
        await asyncio.sleep(3600)

        assert here.server.asked == 1
        assert here.store.results == [("refused", "first")]


async def test_a_candidate_is_not_shown_to_a_host_that_the_settings_allow_no_more(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        gone = Partnership(url="https://gone.example.com/Microsoft-Server-ActiveSync")
        here.store.present = replace(here.store.present, memory=Memory(gone))
        here.start()
        await asyncio.sleep(3600)

        assert here.server.urls == ["https://mail.example.com/eas"]
        assert here.store.results == [("accepted", "first")]


async def test_a_result_stored_by_a_transaction_whose_answer_was_lost_ends_the_verification(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        here.server.takes = 1.0
        here.start()
        await asyncio.sleep(0.5)
        here.store.away = True
        await asyncio.sleep(60)
        here.store.present = replace(here.store.present, candidates=())
        here.store.away = False
        await asyncio.sleep(3600)

        assert (here.server.asked, here.store.results) == (1, [])


async def test_a_server_without_a_result_is_asked_until_the_candidate_is_withdrawn(tmp_path: Path) -> None:
    async with world(tmp_path, 503) as here:
        here.start()
        await asyncio.sleep(60)
        asked = here.server.asked
        assert asked > 1
        assert here.shown[-1].reason == "server-busy"

        here.store.present = replace(here.store.present, candidates=())
        await asyncio.sleep(7200)

        assert here.server.asked == asked


async def test_a_server_that_is_back_gives_the_result(tmp_path: Path) -> None:
    async with world(tmp_path, 503) as here:
        here.start()
        await asyncio.sleep(60)
        here.server.status = 200
        await asyncio.sleep(3600)

        assert here.store.results == [("accepted", "first")]


async def suspect(admission: ServerAdmission) -> None:
    """Let a server be one that refuses many credentials at once."""
    for number in range(LEAST):
        client = ClientAdmission(number, passed=0)
        await admission.enter(client)
        admission.failed(client, Unauthorized("the server refuses the credential (HTTP 401)"))
        admission.leave(client)


async def test_a_password_is_not_tried_while_the_server_refuses_many(tmp_path: Path) -> None:
    async with world(tmp_path, 401) as here:
        await suspect(here.admission)
        confirms = ClientAdmission(0, refusals=1, passed=0)
        here.start()
        await here.admission.enter(confirms)
        await asyncio.sleep(800)
        assert here.server.asked == 0
        assert [condition.detail for condition in here.shown] == ["the server refuses many credentials at once"]
        assert here.shown[0].reason == "http-401-many"

        here.admission.answered(confirms)
        here.admission.accepted(confirms)
        await asyncio.sleep(1)
        assert here.store.results == [("refused", "first")]


async def test_a_candidate_waits_with_the_watches_for_a_server_that_is_away(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        away, watch = Unreachable("no connection: refused", reached=False), ClientAdmission("watch", passed=0)
        here.admission.failed(watch, away)
        here.start()
        for _ in range(4):
            await here.admission.enter(watch)
            here.admission.failed(watch, away)
        assert here.server.asked == 0
        assert [(condition.detail, condition.retry_in) for condition in here.shown] == [
            ("the server is away: no connection: refused", 2.0)
        ]
        await here.admission.enter(watch)
        here.admission.answered(watch)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)

        assert here.store.results == [("accepted", "first")]
        assert here.server.moments == [began]


async def test_a_candidate_alone_probes_a_server_that_is_away_at_the_pace_of_a_watch(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        here.server.error = Unreachable("no connection: refused", reached=False)
        here.start()
        await asyncio.sleep(200)
        assert here.server.moments == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0, 122.0, 182.0]
        assert {condition.detail for condition in here.shown} == {"no connection: refused"}

        here.server.error = None
        await asyncio.sleep(60)
        assert here.store.results == [("accepted", "first")]


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_a_candidate_that_is_withdrawn_or_lost_while_it_waits_is_not_tried(
    tmp_path: Path, *, withdrawn: bool
) -> None:
    async with world(tmp_path, 200) as here:
        here.admission.failed(ClientAdmission("watch", passed=0), Unreachable("refused", reached=False))
        here.start()
        await asyncio.sleep(1)
        assert here.admission.waiting == 1
        if withdrawn:
            here.store.present = replace(here.store.present, candidates=())
        else:
            here.watched = False
        await asyncio.sleep(60)

        assert (here.server.asked, here.store.results, here.admission.waiting) == (0, [], 0)


async def test_a_candidate_that_is_replaced_while_it_waits_leaves_the_queue(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        here.admission.failed(ClientAdmission("watch", passed=0), Unreachable("refused", reached=False))
        here.start()
        await asyncio.sleep(1)
        here.candidate = replace(here.candidate, sealed=here.seal("another"))
        here.store.present = replace(here.store.present, candidates=(here.candidate,))
        here.start()
        await asyncio.sleep(0.5)
        assert here.admission.waiting == 1
        await asyncio.sleep(60)

        assert (here.server.asked, here.store.results) == (1, [("accepted", "first")])


async def test_a_time_that_the_server_names_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path, 503) as here:
        here.server.headers = {"retry-after": "600"}
        here.start()
        await asyncio.sleep(2000)

        assert here.server.moments == [0.0, 630.0, 1260.0, 1890.0]
        assert {condition.retry_in for condition in here.shown} == {630.0}


@pytest.mark.parametrize(("takes", "most_at_once"), [(0.1, 6), (2.0, SHORT)])
async def test_a_thousand_candidates_pass_at_the_rate_and_few_at_once(
    tmp_path: Path, takes: float, most_at_once: int
) -> None:
    async with world(tmp_path, 200, rate=50.0) as here:
        here.server.takes = takes
        here.register(1000)
        await asyncio.sleep(60)

        assert len(here.store.results) == 1000
        assert here.server.asked == 1000
        assert here.server.most_at_once <= most_at_once
        assert max(Counter(int(moment) for moment in here.server.moments).values()) <= 51


async def test_a_candidate_is_not_shown_until_its_account_has_a_try(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        here.store.waits = [Wait(1800.0)]
        here.start()
        await asyncio.sleep(1700)
        assert here.server.asked == 0

        await asyncio.sleep(300)

        assert (here.server.asked, here.store.spent, here.store.successes) == (1, 1, 1)
        assert here.store.results == [("accepted", "first")]
        assert [(shown.reason, shown.state) for shown in here.shown] == [(Reason.NOT_ASKED, WatchState.VERIFYING)]


async def test_a_used_up_budget_is_logged_once_per_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path, 200) as here:
        here.store.waits = [Wait(1800.0, of_server=True)] * 5
        here.register(5)
        await asyncio.sleep(60)

    warnings = [record for record in caplog.records if record.message.startswith("too many credentials")]
    assert [vars(record)["server"] for record in warnings] == ["main"]


async def test_a_try_is_not_spent_twice_on_a_server_that_cannot_serve_and_is_on_one_whose_answer_was_lost(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 500) as here:
        here.start()
        await asyncio.sleep(3600)
        assert here.server.asked > 5
        assert here.store.spent == 1
    (tmp_path / "lost").mkdir()
    async with world(tmp_path / "lost", 200) as here:
        here.server.error = Unreachable("cut after the request")
        here.start()
        await asyncio.sleep(60)
        assert here.server.asked == here.store.spent > 1


@pytest.mark.parametrize("away", [True, False])
async def test_a_candidate_that_is_a_window_old_is_dropped_wherever_it_waits(tmp_path: Path, away: bool) -> None:
    async with world(tmp_path, 500) as here, asyncio.TaskGroup() as tasks:
        here.candidate = replace(here.candidate, created_at=NOW)
        here.store.present = replace(here.store.present, candidates=(here.candidate,))
        watch = ClientAdmission("watch", passed=0)

        async def probe() -> None:
            while True:
                here.admission.failed(watch, Unreachable("no connection: refused", reached=False))
                await here.admission.enter(watch)

        probing = tasks.create_task(probe() if away else asyncio.sleep(0))
        await asyncio.sleep(0)
        here.start()
        await asyncio.sleep(1790)
        assert here.store.results == []

        await asyncio.sleep(11)

        assert here.store.results == [("expired", "first")]
        assert (here.server.asked == 0) is away
        probing.cancel()


@pytest.mark.parametrize(
    ("present", "before", "shown", "replaces"),
    [
        ({}, None, 1, False),
        ({}, "secret", 1, False),  # the same one: nobody may have noticed yet that it is void
        ({"refusals": 1}, "secret", 1, False),  # the same one, refused before
        ({}, "valid", 2, False),  # the server takes both
        ({}, "void", 2, True),  # nobody has noticed yet that it is void
        ({"refusals": 2}, "void", 1, True),
        ({"state": WatchState.CREDENTIAL_REFUSED}, "valid", 1, True),
    ],
)
async def test_others_must_show_a_new_credential_when_the_one_before_is_void(
    tmp_path: Path, present: dict[str, object], before: str | None, shown: int, replaces: bool
) -> None:
    async with world(tmp_path, 200) as here:
        here.server.void = "void"
        mailbox = records.mailbox(id=ANN, state=present.get("state", WatchState.WATCHING))
        memory = Memory(refusals=present.get("refusals", 0))  # type: ignore[arg-type]
        sealed = None if before is None else here.seal(before)
        here.store.present = WatchRecord(mailbox, sealed, memory, (here.candidate,), 2)

        here.start()
        await asyncio.sleep(60)

        assert here.store.results == [("accepted", "first")]
        assert (here.server.asked, here.store.replaces) == (shown, replaces)
        assert here.store.spent == shown


async def test_in_doubt_whether_the_credential_before_is_void_others_must_show_the_new_one(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        mailbox = records.mailbox(id=ANN, state=WatchState.WATCHING)
        here.store.present = WatchRecord(mailbox, here.seal("valid"), Memory(), (here.candidate,), 2)
        here.store.waits = [None, Wait(60.0)]

        here.start()
        await asyncio.sleep(60)

        assert (here.server.asked, here.store.replaces) == (1, True)
