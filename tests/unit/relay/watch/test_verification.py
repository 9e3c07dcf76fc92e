"""Test that each candidate is asked for once, whatever happens to the database or to its registration meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Condition, Memory, Partnership, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Candidate, RegistrationId, WatchRecord
from relay.security.sealing import SealingPrivateKey, generate
from relay.watch.accounts import Accounts, EasServer
from relay.watch.verification import Verification
from tests.fakes import records
from tests.fakes.watches import NoWatches

pytestmark = pytest.mark.looptime

NOW = datetime.fromisoformat("2026-11-24T12:00:00+00:00")
ANN = MailboxId("ann")
OFFER = {"ms-asprotocolversions": "14.1,16.1", "ms-asprotocolcommands": "FolderSync,Ping,Sync"}
MAILBOX = records.mailbox(id=ANN, state=WatchState.VERIFYING)


@dataclass
class Server:
    """Answer everybody with a credential with one status, and count them."""

    status: int
    asked: int = 0
    takes: float = 0.0
    urls: list[str] = field(default_factory=list)

    async def send(self, request: HttpRequest) -> HttpReply:
        if "Authorization" not in request.headers:
            return HttpReply(401, {}, b"")
        self.asked += 1
        self.urls.append(request.url)
        await asyncio.sleep(self.takes)
        return HttpReply(self.status, OFFER if self.status == 200 else {}, b"")


class Verdicts(NoWatches):
    """Keep verdicts, unless it is away; a verdict takes its candidate out of the record."""

    def __init__(self, record: WatchRecord) -> None:
        self.present = record
        self.away = False
        self.url: str | None = None
        self.verdicts: list[tuple[str, RegistrationId]] = []

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        self._check()
        return self.present if mailbox_id == self.present.mailbox.id else None

    async def accept(self, candidate: Candidate, now: datetime, url: str | None = None) -> None:
        self._settle("accepted", candidate)
        self.url = url

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        self._settle("refused", candidate)

    def _settle(self, verdict: str, candidate: Candidate) -> None:
        self._check()
        self.verdicts.append((verdict, candidate.registration_id))
        self.present = replace(self.present, candidates=())

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


@dataclass
class Trouble:
    """What the watches have found out about the server."""

    text: str = ""


@dataclass
class World:
    server: Server
    store: Verdicts
    proofs: Verification
    candidate: Candidate
    trouble: Trouble
    shown: list[Condition] = field(default_factory=list)

    def start(self) -> None:
        self.proofs.start(self.candidate, self.store.present)


@asynccontextmanager
async def world(folder: Path, status: int) -> AsyncIterator[World]:
    (folder / "key.pem").write_bytes(generate()[0])
    key = SealingPrivateKey.load(folder / "key.pem")
    sealed = key.public_key().seal(ANN, BasicCredential("ann@example.com", "secret"))
    candidate = Candidate(RegistrationId("first"), ANN, sealed)
    store = Verdicts(WatchRecord(MAILBOX, None, Memory(), (candidate,), 1))
    server = Server(status)
    accounts = Accounts(key, {"main": EasServer("https://mail.example.com/eas", server, Policy())})
    shown: list[Condition] = []

    async def show(_: MailboxId, condition: Condition) -> None:
        shown.append(condition)

    trouble = Trouble()
    proofs = Verification(store, accounts, lambda _: True, show, lambda _: trouble.text, lambda: NOW, Random(1))
    yield World(server, store, proofs, candidate, trouble, shown)
    await proofs.stop()


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
        assert here.store.verdicts == [("refused", "first")]


async def test_a_refused_password_is_not_tried_again_for_a_record_read_before_it_was_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 401) as here:
        stale = here.store.present
        here.start()
        await asyncio.sleep(1)
        here.proofs.start(here.candidate, stale)
        await asyncio.sleep(3600)

        assert here.server.asked == 1
        assert here.store.verdicts == [("refused", "first")]


async def test_a_candidate_is_not_shown_to_a_host_that_the_settings_allow_no_more(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        gone = Partnership(url="https://gone.example.com/Microsoft-Server-ActiveSync")
        here.store.present = replace(here.store.present, memory=Memory(gone))
        here.start()
        await asyncio.sleep(3600)

        assert here.server.urls == ["https://mail.example.com/eas"]
        assert here.store.verdicts == [("accepted", "first")]


async def test_a_verdict_kept_by_a_transaction_whose_answer_was_lost_ends_the_proof(tmp_path: Path) -> None:
    async with world(tmp_path, 200) as here:
        here.server.takes = 1.0
        here.start()
        await asyncio.sleep(0.5)
        here.store.away = True
        await asyncio.sleep(60)
        here.store.present = replace(here.store.present, candidates=())
        here.store.away = False
        await asyncio.sleep(3600)

        assert (here.server.asked, here.store.verdicts) == (1, [])


async def test_a_server_that_does_not_judge_is_asked_until_the_candidate_is_withdrawn(tmp_path: Path) -> None:
    async with world(tmp_path, 503) as here:
        here.start()
        await asyncio.sleep(60)
        asked = here.server.asked
        assert asked > 1
        assert here.shown[-1].reason == "not-asked"

        here.store.present = replace(here.store.present, candidates=())
        await asyncio.sleep(7200)

        assert here.server.asked == asked


async def test_a_server_that_is_back_gives_the_verdict(tmp_path: Path) -> None:
    async with world(tmp_path, 503) as here:
        here.start()
        await asyncio.sleep(60)
        here.server.status = 200
        await asyncio.sleep(3600)

        assert here.store.verdicts == [("accepted", "first")]


async def test_a_password_is_not_tried_while_the_server_is_known_to_be_in_trouble(tmp_path: Path) -> None:
    async with world(tmp_path, 401) as here:
        here.trouble.text = "the server refuses many credentials at once"
        here.start()
        await asyncio.sleep(3600)
        assert here.server.asked == 0
        assert here.shown[-1].detail == here.trouble.text

        here.trouble.text = ""
        await asyncio.sleep(3600)
        assert here.store.verdicts == [("refused", "first")]
