"""Own the proofs under way: one task per candidate, asked for once, and what its verdict changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

from eas_watcher import backoff
from eas_watcher.errors import AccessDenied, EasError, Unauthorized
from eas_watcher.machine.memory import Condition, WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.relocation import Seeker
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Candidate, RegistrationId, WatchRecord
from relay.domain.ports.watch import WatchStore
from relay.watch.accounts import Accounts, Connection, Door
from relay.watch.credential_check import CheckResult, Finding, check_credential

log = logging.getLogger(__name__)


class Verification:
    """Prove candidates until each has its verdict or its shard is lost."""

    def __init__(
        self,
        store: WatchStore,
        accounts: Accounts,
        watched: Callable[[MailboxId], bool],
        show: Callable[[MailboxId, Condition], Awaitable[None]],
        trouble: Callable[[str], str],
        clock: Clock,
        random: Random,
    ) -> None:
        """Take where verdicts go; `watched` tells whether a mailbox is still this process's, `show` records a wait.

        `trouble` says why the server at a URL should not be asked now; empty if it may be.
        """
        self._store = store
        self._accounts = accounts
        self._watched = watched
        self._show = show
        self._trouble = trouble
        self._clock = clock
        self._random = random
        self._running: dict[RegistrationId, tuple[bytes, asyncio.Task[None]]] = {}

    def start(self, candidate: Candidate, record: WatchRecord) -> None:
        """Prove a candidate, once; one that replaces another ends the proof of the other."""
        running = self._running.get(candidate.registration_id)
        if running is not None:
            if running[0] == candidate.sealed:
                return
            running[1].cancel()
        task = asyncio.get_running_loop().create_task(
            self._prove(candidate, record), name=f"proof {candidate.registration_id}"
        )
        self._running[candidate.registration_id] = (candidate.sealed, task)
        task.add_done_callback(lambda task: self._ended(candidate, task))

    def resealed(self, before: bytes, after: bytes) -> None:
        """Hear that a credential was sealed anew: the candidate is the same one all the same."""
        for registration, (sealed, task) in self._running.items():
            if sealed == before:
                self._running[registration] = (after, task)

    async def stop(self) -> None:
        """End all proofs; what has no verdict is proved by whoever watches the mailbox next."""
        tasks = {task for _, task in self._running.values()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, candidate: Candidate, task: asyncio.Task[None]) -> None:
        running = self._running.get(candidate.registration_id)
        if running is not None and running[1] is task:
            del self._running[candidate.registration_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("proof broke", extra={"mailbox": candidate.mailbox_id}, exc_info=error)

    async def _prove(self, candidate: Candidate, record: WatchRecord) -> None:
        opened = self._accounts.open(record.mailbox, candidate.sealed, self._clock())
        if isinstance(opened, Condition):
            await self._give_up(candidate, record, opened)
            return
        discovery = opened.server.discovery
        seeker = None if discovery is None else discovery.for_candidate()
        failures = 0
        finding = Finding(CheckResult.UNKNOWN)
        while self._watched(candidate.mailbox_id):
            try:
                # From the first time on: a record may have been read before an earlier proof of its candidate ended.
                fresh = await self._store.record(candidate.mailbox_id, self._clock())
                if fresh is None or self._present(candidate) not in fresh.candidates:
                    return  # settled after all, replaced or withdrawn: not to be tried any more
                record = fresh
                if finding.verdict is CheckResult.UNKNOWN:
                    finding = await self._ask(opened, candidate, record, seeker)
                if await self._settled(self._present(candidate), finding, opened, record):
                    return
                detail, reason = finding.detail, finding.reason or Reason.NOT_ASKED
            except StoreUnavailable:
                # A verdict is kept for as long: to ask again would try a wrong password again [promise 4].
                detail, reason = "the database is away", Reason.NOT_ASKED
            failures += 1
            seconds = backoff.delay(failures, self._random)
            if record.sealed_credential is None:
                condition = Condition(WatchState.VERIFYING, reason, retry_in=seconds, detail=detail)
                await self._show(candidate.mailbox_id, condition)
            await asyncio.sleep(seconds)

    async def _give_up(self, candidate: Candidate, record: WatchRecord, why: Condition) -> None:
        log.error("candidate cannot be proved", extra={"mailbox": record.mailbox.id, "reason": why.reason})
        if why.state is WatchState.CREDENTIAL_REFUSED:
            await self._store.refuse(candidate, self._clock())
        elif record.sealed_credential is None:
            await self._show(record.mailbox.id, why)

    def _present(self, candidate: Candidate) -> Candidate:
        """Return a candidate under proof with the seal that it has now."""
        return replace(candidate, sealed=self._running[candidate.registration_id][0])

    async def _ask(
        self, opened: Connection, candidate: Candidate, record: WatchRecord, seeker: Seeker | None
    ) -> Finding:
        server, account, door = opened.server, opened.account, opened.server.door
        url = record.memory.partnership.url
        if not server.allows(url):
            url = None
        elif self._in_good_use(candidate, record):
            return Finding(CheckResult.ACCEPTED)
        if url is None and server.discovery is not None:
            seeker = None  # it is looked for already
            try:
                url = await server.discovery.find(account)
            except Unauthorized:
                return Finding(CheckResult.REFUSED)
            except EasError as error:
                log.info("mailbox not discovered", extra={"mailbox": account.mailbox, "detail": str(error)})
                reason = error.reason if isinstance(error, AccessDenied) else None
                return Finding(CheckResult.UNKNOWN, str(error), reason)
        if url is not None:
            account, door = replace(account, url=url), Door()
        if trouble := self._trouble(account.url):
            return Finding(CheckResult.UNKNOWN, trouble)  # a right password might be refused, and a try be wasted
        hosts = server.policy.hosts
        return await check_credential(account, opened.transport, server.transport, door, self._clock(), hosts, seeker)

    async def _settled(self, candidate: Candidate, finding: Finding, opened: Connection, record: WatchRecord) -> bool:
        """Keep a verdict; return False when there is none so far.

        Where a mailbox was discovered is kept with it; the watch of another finds out by itself.
        """
        match finding.verdict:
            case CheckResult.ACCEPTED:
                candidate = await self._newest(candidate, record)
                url = None if opened.server.discovery is None else finding.url
                await self._store.accept(candidate, self._clock(), url)
            case CheckResult.REFUSED:
                await self._store.refuse(candidate, self._clock())
            case CheckResult.UNKNOWN:
                return False
        return True

    async def _newest(self, candidate: Candidate, record: WatchRecord) -> Candidate:
        """Give a candidate the newest seal of its grant: what the app sent is spent if the grant was rotated since."""
        newest = self._accounts.newest(candidate.mailbox_id, candidate.sealed, record.sealed_credential)
        if newest == candidate.sealed:
            return candidate
        await self._store.reseal(candidate.mailbox_id, candidate.sealed, newest)
        self.resealed(candidate.sealed, newest)
        return replace(candidate, sealed=newest)

    def _in_good_use(self, candidate: Candidate, record: WatchRecord) -> bool:
        """Tell whether a candidate is the very credential that the mailbox's watch already uses with success."""
        if record.mailbox.state.ended or record.memory.refusals:
            return False
        return self._accounts.alike(record.mailbox.id, record.sealed_credential, candidate.sealed)
