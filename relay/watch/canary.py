"""Sends the canary's mails, one in each interval, and follows each until it is shown or lost.

One process of all that watch does so: the database says whose turn it is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from relay.domain.canary import (
    NOT_REGISTERED,
    CanaryLog,
    CanaryMailbox,
    Goal,
    Judgement,
    Reading,
    Result,
    Submission,
    Turn,
    judge,
    may_show,
)
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.ports.canary import CanaryMails
from relay.watch.submission import NotTaken

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between two looks at how far a mail has come."""
IDLE: Final = 5.0
"""Seconds between two looks whether a mail may be sent."""
SLOW: Final = 5.0
"""Seconds between two looks at a mail that has missed its goal."""

REFUSED: Final = "login-refused"
"""Why no mail is sent until the password for it is written again."""

STARTING: Final = frozenset({NOT_REGISTERED, WatchState.VERIFYING.value, WatchState.STARTING.value})
"""Why the mailbox is not watched while all processes start."""

Submit = Callable[[Submission, str, datetime], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CanaryRules:
    """What the settings say about the canary's mails."""

    mailbox: CanaryMailbox
    goal: Goal
    submission: Submission = field(repr=False)
    written_at: datetime
    """When the password for sending was written."""


class Canary:
    """The canary of a watch process."""

    def __init__(
        self,
        store: CanaryMails,
        submit: Submit,
        rules: CanaryRules,
        clock: Clock,
        node: str,
        identities: Callable[[int], str],
        sent: CanaryLog,
    ) -> None:
        """Send with `submit`; `identities` returns text of so many random bytes. `sent` gets what becomes of mails."""
        self.rules = rules
        """What holds from the next mail on."""
        self._store = store
        self._submit = submit
        self._clock = clock
        self._node = node
        self._identities = identities
        self._log = sent
        self._began_at: datetime | None = None

    async def run(self) -> None:
        """Send and follow mails until cancelled."""
        while True:
            try:
                await self._turn()
            except StoreUnavailable:
                log.debug("canary waits: the database is away")
            await asyncio.sleep(IDLE)

    async def _turn(self) -> None:
        """Send a mail if it is this process's turn, and follow it to its end."""
        rules, now = self.rules, self._clock()
        refused_at = await self._store.mail_refused_at()
        if rules.submission.user and not may_show(rules.written_at, refused_at, now):
            self._log.hold(Result.NOT_SENT, REFUSED)
            return
        reading = await self._read(now)
        if self._began_at is None:
            self._began_at = now
        beginning = now < self._began_at + timedelta(seconds=rules.goal.interval)
        if beginning and not reading.watched:
            if reading.why not in STARTING:
                self._log.hold(Result.NOT_WATCHED, reading.why)
            return
        turn = await self._store.claim(self._node, now, timedelta(seconds=rules.goal.interval))
        if turn is Turn.ANOTHERS:
            self._log.pass_on()
        if turn is not Turn.NOW:
            return
        if not reading.watched:
            self._note(Judgement(Result.NOT_WATCHED, {}), reading.why)
        elif await self._send(rules.submission, now):
            if refused_at is not None:
                await self._store.mail_refused(None)
            await self._follow(now, rules.goal)

    async def _send(self, submission: Submission, now: datetime) -> bool:
        """Hand over a mail; return whether the mail server took it."""
        try:
            await self._submit(submission, self._identities(12), now)
        except NotTaken as error:
            if error.credential:
                await self._store.mail_refused(now)
            self._note(Judgement(Result.NOT_SENT, {}), str(error))
            return False
        return True

    async def _follow(self, sent_at: datetime, goal: Goal) -> None:
        while True:
            now = self._clock()
            judgement = judge(sent_at, await self._read(sent_at), now, goal)
            if judgement is not None:
                self._note(judgement)
                return
            late = (now - sent_at).total_seconds() > goal.seconds
            await asyncio.sleep(SLOW if late else LOOK)

    async def _read(self, since: datetime) -> Reading:
        own = self.rules.mailbox
        return await self._store.reading(own.server, own.user, own.accounts.keys(own.user), since)

    def _note(self, judgement: Judgement, why: str = "") -> None:
        self._log.note(judgement, self._clock(), why)
        fields: dict[str, object] = {"result": judgement.result.value, "reason": why}
        fields |= {stage.value: round(seconds, 3) for (stage, _), seconds in judgement.stages.items()}
        if judgement.result is Result.SHOWN:
            log.debug("canary mail shown", extra=fields)
        else:
            log.warning("canary mail not shown in time", extra=fields)
