"""A thousand candidates that wait while the watch role starts, over real sockets: the mail server sees no storm."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.machine.memory import Condition, Memory, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.http import open_transport
from relay.domain.model import Candidate, RegistrationId, WatchRecord
from relay.domain.tries import Wait
from relay.process.clock import now
from relay.sandbox.eas.failures import Delay, FailurePlan
from relay.sandbox.eas.server import open_eas_simulator
from relay.security.sealing import SealingPrivateKey, generate
from relay.watch.accounts import Accounts, EasServer
from relay.watch.verification import Verification
from tests.fakes import records
from tests.fakes.watches import NoWatches
from tests.integration.eas_world import PASSWORD, HurriedLoop, hurried, hurry

MANY: Final = 1000
RATE: Final = 50.0  # per second, the default of return_rate
SHORT: Final = 64


STEP: Final = 0.005  # seconds by which the clock is put forward
TURNS: Final = 8  # of the loop after each step, in which a request reaches the server


class StandingLoop(HurriedLoop):
    """An event loop whose time only the test puts forward: it is the same however busy the machine is."""

    def time(self) -> float:
        return self.ahead


class Results(NoWatches):
    """A store of mailboxes with one candidate each, which counts the accepted ones."""

    def __init__(self) -> None:
        self.kept: dict[MailboxId, WatchRecord] = {}
        self.accepted = 0

    def add(self, number: int, key: SealingPrivateKey) -> tuple[Candidate, WatchRecord]:
        id_, user = MailboxId(f"m{number}"), f"m{number}@example.com"
        mailbox = records.mailbox(id=id_, user=user, state=WatchState.VERIFYING)
        sealed = key.public_key().seal(mailbox, BasicCredential(user, PASSWORD))
        candidate = Candidate(RegistrationId(f"r{number}"), id_, sealed)
        self.kept[id_] = WatchRecord(mailbox, None, Memory(), (candidate,), 1)
        return candidate, self.kept[id_]

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        return self.kept[mailbox_id]

    async def spend(self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None) -> Wait | None:
        return None

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        pass

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        self.accepted += 1
        self.kept[candidate.mailbox_id] = replace(self.kept[candidate.mailbox_id], candidates=())


async def show(_: MailboxId, condition: Condition) -> None:
    raise AssertionError(f"no candidate has to wait for more than its turn: {condition}")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.5, 2.0])  # seconds for an answer: 25 and 100 requests at once at the rate
def test_a_thousand_candidates_meet_their_server_at_the_rate_and_few_at_once(tmp_path: Path, delay: float) -> None:
    (tmp_path / "key.pem").write_bytes(generate()[0])
    key = SealingPrivateKey.load(tmp_path / "key.pem")

    @partial(hurried, loop=StandingLoop)
    async def scenario() -> None:
        store, random = Results(), Random(1)
        async with open_eas_simulator(tls=None) as eas, open_transport() as transport:
            eas.fail(None, FailurePlan(Delay(delay), None, 2 * MANY))
            server = EasServer(eas.url, transport, Policy(return_rate=RATE))
            accounts = Accounts(key, {"main": server})
            admissions, broken = Admissions(SHORT, random, now), list[MailboxId]()
            verification = Verification(store, accounts, lambda _: True, show, broken.append, admissions, random)
            for number in range(MANY):
                eas.add_mailbox(f"m{number}@example.com", PASSWORD)
                verification.start(*store.add(number, key))
            while store.accepted < MANY:
                hurry(STEP)
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            await verification.stop()

            moments = sorted(entry.moment for user in (*eas.users, "") for entry in eas.log(user))
            # One request asks without a credential whether the server answers OPTIONS to every client.
            assert eas.records.requests == {"OPTIONS": MANY + 1}
            assert eas.records.max_at_once <= SHORT
            assert max(Counter(int(moment - moments[0]) for moment in moments).values()) <= RATE * 1.2

    scenario()
