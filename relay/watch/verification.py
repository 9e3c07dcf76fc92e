"""The verification of candidates: one task per candidate, which checks it once and stores the result."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random

from eas_watcher import backoff
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.credential import Credential
from eas_watcher.errors import CredentialVoid, EasError, ServerBusy, Unauthorized, in_doubt
from eas_watcher.machine.memory import Condition, WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.client import Admitted, EasClient
from eas_watcher.server.admissions import Admissions
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Candidate, RegistrationId, WatchRecord
from relay.domain.ports.watch import WatchStore
from relay.domain.timeline import EventKind, Timeline
from relay.domain.tries import TryLimits, Wait, Withdrawn
from relay.watch.accounts import Accounts, Connection
from relay.watch.credential_check import CheckResult, Finding, OptionsGuards, check_credential, reason_of
from relay.watch.discovery import Searches

log = logging.getLogger(__name__)


class Verification:
    """Checks candidates until each has its result or its shard is lost.

    A candidate waits for the admission of its server like a watch: while the server is away, it queues with the others.
    """

    def __init__(
        self,
        store: WatchStore,
        accounts: Accounts,
        watched: Callable[[MailboxId], bool],
        show: Callable[[MailboxId, Condition], Awaitable[None]],
        broken: Callable[[MailboxId], None],
        admissions: Admissions,
        random: Random,
        timeline: Timeline | None = None,
    ) -> None:
        """Take where results are stored; `watched` says whether this process still has a mailbox's shard.

        `show` records why a mailbox waits; `broken` has its candidates started again after a fault of ours.
        """
        self._timeline = timeline or Timeline.off()
        self._broken = broken
        self._store = store
        self._accounts = accounts
        self._watched = watched
        self._show = show
        self._admissions = admissions
        self._clock = admissions.now
        self._random = random
        self._guards = OptionsGuards()
        self._warned: dict[str, float] = {}
        """Server -> when its used-up budget may be logged again, by the loop's clock."""
        self._running: dict[RegistrationId, tuple[bytes, asyncio.Task[None]]] = {}
        self._mailboxes: dict[RegistrationId, MailboxId] = {}
        """The mailbox of each candidate whose check runs."""

    def start(self, candidate: Candidate, record: WatchRecord) -> None:
        """Check a candidate, once; one that replaces another ends the check of the other."""
        running = self._running.get(candidate.registration_id)
        if running is not None:
            if running[0] == candidate.sealed:
                return
            running[1].cancel()
        task = asyncio.get_running_loop().create_task(
            self._verify(candidate, record), name=f"verification {candidate.registration_id}"
        )
        self._running[candidate.registration_id] = (candidate.sealed, task)
        self._mailboxes[candidate.registration_id] = candidate.mailbox_id
        task.add_done_callback(lambda task: self._ended(candidate, task))

    def resealed(self, before: bytes, after: bytes) -> None:
        """Note that a credential was sealed again: it is the same candidate."""
        for registration, (sealed, task) in self._running.items():
            if sealed == before:
                self._running[registration] = (after, task)

    def seals(self) -> frozenset[bytes]:
        """Return the seals of the candidates that are checked now."""
        return frozenset(sealed for sealed, _ in self._running.values())

    async def stop(self) -> None:
        """End all checks; the process that has the mailbox next checks the candidates without a result."""
        await self.stop_of(self._mailboxes.values())

    async def stop_of(self, mailboxes: Iterable[MailboxId]) -> None:
        """End the checks of some mailboxes, as `stop` does."""
        ended = frozenset(mailboxes)
        tasks = {task for id_, (_, task) in self._running.items() if self._mailboxes[id_] in ended}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, candidate: Candidate, task: asyncio.Task[None]) -> None:
        running = self._running.get(candidate.registration_id)
        if running is not None and running[1] is task:
            del self._running[candidate.registration_id]
            del self._mailboxes[candidate.registration_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("proof broke", extra={"mailbox": candidate.mailbox_id}, exc_info=error)
            self._broken(candidate.mailbox_id)

    async def _verify(self, candidate: Candidate, record: WatchRecord) -> None:
        opened = self._accounts.open(record.mailbox, candidate.sealed, self._clock())
        if isinstance(opened, Condition):
            await self._give_up(candidate, record, opened)
            return
        with suppress(_Withdrawn):
            await self._check_until_known(candidate, record, opened)

    async def _check_until_known(self, candidate: Candidate, record: WatchRecord, opened: Connection) -> None:
        """Check a candidate until its result is stored; raises _Withdrawn."""
        still_wanted = partial(self._still_wanted, candidate, opened.server.tries)
        turn = _Turn(still_wanted, partial(self._spend, candidate, opened.server.tries))
        discovery = opened.server.discovery
        searches = None if discovery is None else discovery.for_candidate(turn)
        finding = Finding(CheckResult.UNKNOWN)
        failures, compared, first = 0, False, True
        while True:
            try:
                if not first:
                    record = await still_wanted()
                first = False  # the turn looks whether the first one is still wanted: `record` was read just now
                if finding.result is CheckResult.UNKNOWN:
                    async with turn.until(self._seconds_left(candidate, opened.server.tries)):
                        finding = await self._check(candidate, record, opened, searches, turn, finding)
                    turn.ended(finding)
                if finding.url is not None and finding.result is CheckResult.ACCEPTED and not compared:
                    finding, compared = await self._compared(candidate, record, finding, finding.url), True
                if await self._settled(self._present(candidate), finding, opened, record):
                    return
                waits = finding
            except NoTryLeft as no_try:
                self._warn(record.mailbox.server, no_try.wait)
                waits = Finding(CheckResult.UNKNOWN, no_try.detail, retry_in=no_try.wait.seconds)
            except TimeoutError:
                continue  # too old: dropped by the next look at it
            except StoreUnavailable:
                # The result is kept meanwhile: another check would try a wrong password again [promise 4].
                waits = Finding(CheckResult.UNKNOWN, "the database is away")
            failures += 1
            seconds = self._wait_of(waits, failures)
            await self._show_waiting(record, waits.reason or Reason.NOT_ASKED, waits.detail, seconds)
            if not waits.queues:
                left = self._seconds_left(candidate, opened.server.tries)
                await asyncio.sleep(seconds if left is None else min(seconds, left))

    async def _still_wanted(self, candidate: Candidate, limits: TryLimits) -> WatchRecord:
        """Return the present record of a candidate's mailbox; raises _Withdrawn if the candidate is not to be checked.

        It may have its result already, or be replaced or withdrawn, or its mailbox may be another process's. One that
        is a window old is dropped: its user may have noticed by now that it was wrong, or changed it.
        """
        if not self._watched(candidate.mailbox_id):
            raise _Withdrawn
        record = await self._store.record(candidate.mailbox_id, self._clock())
        if record is None or self._present(candidate) not in record.candidates:
            raise _Withdrawn
        left = self._seconds_left(candidate, limits)
        if left is not None and left <= 0:
            log.info("candidate not checked in time", extra={"mailbox": candidate.mailbox_id})
            await self._store.expire(self._present(candidate))
            self._note(EventKind.UNCHECKED, candidate)
            raise _Withdrawn
        return record

    def _seconds_left(self, candidate: Candidate, limits: TryLimits) -> float | None:
        """Return for how many seconds a candidate may still be checked; None: an older version stored it."""
        if candidate.created_at is None:
            return None
        return max(0.0, (candidate.created_at + limits.window - self._clock()).total_seconds())

    async def _spend(self, candidate: Candidate, limits: TryLimits) -> Wait | None:
        """Count a try, and return None, or how long the candidate must wait for one; raises _Withdrawn."""
        left = self._seconds_left(candidate, limits)
        if not self._watched(candidate.mailbox_id) or (left is not None and left <= 0):
            await self._still_wanted(candidate, limits)
        spent = await self._store.spend(candidate.mailbox_id, self._clock(), self._present(candidate))
        if spent is Withdrawn.CANDIDATE:
            raise _Withdrawn
        return spent

    def _warn(self, server: str, wait: Wait) -> None:
        """Log once per window that a server's budget of refused candidates is used up."""
        now = asyncio.get_running_loop().time()
        if wait.of_server and self._warned.get(server, now) <= now:
            self._warned[server] = now + wait.seconds
            log.warning("too many credentials were refused: others wait", extra={"server": server})

    def _wait_of(self, waits: Finding, failures: int) -> float:
        """Return how many seconds a candidate without a result waits."""
        if waits.queues:
            return waits.retry_in or 0.0
        if waits.retry_in is not None:
            return backoff.at_least(waits.retry_in, self._random)
        return backoff.delay(failures, self._random)

    async def _show_waiting(self, record: WatchRecord, reason: Reason, detail: str, seconds: float | None) -> None:
        """Show why a mailbox that has no accepted credential yet waits."""
        if record.sealed_credential is None:
            condition = Condition(WatchState.VERIFYING, reason, retry_in=seconds, detail=detail)
            await self._show(record.mailbox.id, condition)

    async def _give_up(self, candidate: Candidate, record: WatchRecord, why: Condition) -> None:
        log.error("candidate cannot be proved", extra={"mailbox": record.mailbox.id, "reason": why.reason})
        if why.state is WatchState.CREDENTIAL_REFUSED:
            await self._store.refuse(candidate, self._clock())
            self._note(EventKind.REFUSED, candidate)
        elif record.sealed_credential is None:
            await self._show(record.mailbox.id, why)

    def _present(self, candidate: Candidate) -> Candidate:
        """Return a candidate under verification with the seal that it has now."""
        return replace(candidate, sealed=self._running[candidate.registration_id][0])

    async def _check(
        self,
        candidate: Candidate,
        record: WatchRecord,
        opened: Connection,
        searches: Searches | None,
        admitted: Admitted,
        before: Finding,
    ) -> Finding:
        """Check a candidate where its mailbox is; a grant that the relay uses with success is accepted unasked.

        `before` is the finding of the check before this one.
        """
        server, account, seeker = opened.server, opened.account, searches
        url = record.memory.partnership.url
        if not server.allows(url):
            url = None
        elif self._is_grant_in_use(candidate, record):
            return Finding(CheckResult.ACCEPTED)
        if (void := await self._redeem(candidate, record, opened)) is not None:
            return void
        if url is None and searches is not None:
            seeker = None  # this search is the one that it would make
            try:
                url = await searches.find(account)
            except Unauthorized:
                return Finding(CheckResult.REFUSED)
            except EasError as error:
                log.info("mailbox not discovered", extra={"mailbox": account.mailbox, "detail": str(error)})
                return Finding(CheckResult.UNKNOWN, str(error), reason_of(error), in_doubt=in_doubt(error))
        client = EasClient(
            account,
            opened.transport,
            self._admissions,
            server.policy.return_rate,
            url=url,
            candidate=True,
            admitted=admitted,
        )
        if not before.queues and (obstacle := client.admission.obstacle):
            # `record` may be from before an earlier check of the candidate ended.
            record = await self._still_wanted(candidate, server.tries)
            why = client.admission.reason if client.admission.state == "away" else Reason.HTTP_401_MANY
            await self._show_waiting(record, why, obstacle, client.admission.expected_wait())
        return await check_credential(opened, client, self._guards, seeker)

    async def _redeem(self, candidate: Candidate, record: WatchRecord, opened: Connection) -> Finding | None:
        """Get the first token of a candidate that is a grant; return a finding if there is none for its user.

        It is done before the candidate waits for its mail server, for a code is good for minutes. It takes no try of
        the account: the directory counts passwords, and anyone who has a grant has signed in already.
        """
        mailbox = candidate.mailbox_id
        try:
            is_own = await self._accounts.redeem(record.mailbox, self._present(candidate).sealed, opened)
        except CredentialVoid as error:
            log.info("grant refused", extra={"mailbox": mailbox, "reason": error.reason})
            return Finding(CheckResult.REFUSED)
        except EasError as error:
            log.info("grant without a token", extra={"mailbox": mailbox, "detail": str(error)})
            retry_in = error.retry_after if isinstance(error, ServerBusy) else None
            return Finding(CheckResult.UNKNOWN, str(error), reason_of(error), retry_in=retry_in)
        if is_own:
            return None
        # A mail server may open the mailbox of the token's user whatever name the relay asks for, and then another
        # person's phone would hear of this mailbox, which all its registrations share.
        log.warning("grant of another user refused", extra={"mailbox": mailbox})
        return Finding(CheckResult.REFUSED)

    def _may_replace(self, accepted: Candidate, record: WatchRecord) -> bool:
        """Return True if an accepted candidate takes the place of another credential, which others may have shown."""
        before = record.sealed_credential
        if record.registrations == 1 or before is None:
            return False
        return not self._accounts.alike(record.mailbox, before, self._present(accepted).sealed)

    async def _compared(self, accepted: Candidate, record: WatchRecord, finding: Finding, url: str) -> Finding:
        """Return the finding of an accepted candidate with what it means for the credential before it and the tries."""
        if not self._may_replace(accepted, record):
            return replace(finding, succeeded=True)
        await self._store.succeeded(accepted.mailbox_id)
        return replace(finding, replaces=await self._replaces(record, url))

    async def _replaces(self, record: WatchRecord, url: str) -> bool:
        """Return True if the credential that the mailbox had is void now; in doubt it is.

        The user who has just sent a new one may have changed the password, while the Ping that is held shows nothing
        of it; or the server takes several, as with passwords for single apps. So the server that took the new one is
        asked about the old one, once.
        """
        mailbox, before = record.mailbox, record.sealed_credential
        if before is None or mailbox.state is WatchState.CREDENTIAL_REFUSED or record.memory.refusals:
            return True
        opened = self._accounts.open(mailbox, before)
        if isinstance(opened, Condition) or await self._store.spend(mailbox.id, self._clock()) is not None:
            return True
        self._accounts.renew(mailbox, before)
        rate = opened.server.policy.return_rate
        client = EasClient(opened.account, opened.transport, self._admissions, rate, url=url, candidate=True)
        found = await check_credential(opened, client, self._guards)
        log.info("new credential", extra={"mailbox": mailbox.id, "before": found.result.name})
        return found.result is not CheckResult.ACCEPTED

    async def _settled(self, candidate: Candidate, finding: Finding, opened: Connection, record: WatchRecord) -> bool:
        """Store a result; return False when there is none yet.

        The URL where a mailbox was discovered is stored with it; the watch of another one learns its URL itself.
        """
        match finding.result:
            case CheckResult.ACCEPTED:
                candidate = await self._newest(candidate, opened.account.credential, record)
                url = None if opened.server.discovery is None else finding.url
                await self._store.accept(
                    candidate, self._clock(), url, replaces=finding.replaces, succeeded=finding.succeeded
                )
                self._note(EventKind.ACCEPTED, candidate)
            case CheckResult.REFUSED:
                await self._store.refuse(candidate, self._clock())
                self._note(EventKind.REFUSED, candidate)
            case CheckResult.UNKNOWN:
                return False
        return True

    def _note(self, kind: EventKind, candidate: Candidate) -> None:
        """Note what became of a candidate."""
        self._timeline.of_registration(kind, candidate.mailbox_id, candidate.registration_id)

    async def _newest(self, candidate: Candidate, shown: Credential, record: WatchRecord) -> Candidate:
        """Return a candidate, which is a credential that was shown, with the newest seal if that is a grant.

        The app's seal is spent once the grant was rotated.
        """
        if not isinstance(shown, OAuthCredential):
            return candidate
        newest = self._accounts.newest(record.mailbox, candidate.sealed, record.sealed_credential)
        if newest == candidate.sealed:
            return candidate
        await self._store.reseal(candidate.mailbox_id, candidate.sealed, newest)
        self.resealed(candidate.sealed, newest)
        return replace(candidate, sealed=newest)

    def _is_grant_in_use(self, candidate: Candidate, record: WatchRecord) -> bool:
        """Return True if a candidate is the very OAuth grant that the mailbox's watch already uses with success.

        The app's refresh token may be spent by now, and to show it again could withdraw the grant. Any other credential
        is shown to the server: its password may have changed while a Ping is held that began with the old one.
        """
        if record.mailbox.state.ended or record.memory.refusals:
            return False
        return self._accounts.is_same_grant(record.mailbox, record.sealed_credential, candidate.sealed)


class _Turn:
    """The right to show one candidate: it is still wanted, and a try of its account was spent on it.

    A try is used up by a refusal, and by a request whose answer was lost; any other answer leaves it to the next one.
    """

    def __init__(self, wanted: Admitted, spend: Callable[[], Awaitable[Wait | None]]) -> None:
        """Take what raises _Withdrawn for a candidate that is not to be shown, and what does so and spends a try."""
        self._wanted = wanted
        self._spend = spend
        self._spent = False
        self._limit: asyncio.Timeout | None = None

    def until(self, seconds: float | None) -> asyncio.Timeout:
        """Return the time limit of a check: it ends when the candidate may be shown; None: there is none."""
        self._limit = asyncio.timeout(seconds)
        return self._limit

    async def __call__(self) -> None:
        """Return when the candidate may be shown; raises _Withdrawn, NoTryLeft, StoreUnavailable."""
        if self._spent:
            await self._wanted()
        else:
            wait = await self._spend()
            if wait is not None:
                raise NoTryLeft(wait)
            self._spent = True
        if self._limit is not None:
            self._limit.reschedule(None)

    def ended(self, finding: Finding) -> None:
        """Note how a check ended."""
        if finding.in_doubt:
            self._spent = False


class NoTryLeft(Exception):
    """The account of a candidate, or its server, has no try left."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait)
        self.wait = wait

    @property
    def detail(self) -> str:
        """Why, for the operator."""
        if self.wait.of_server:
            return "so many credentials were refused at this server that others wait"
        return "so many credentials of this account were refused that one more could lock it"


class _Withdrawn(Exception):
    """A candidate is not to be checked any more."""
