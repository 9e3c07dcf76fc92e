"""Own which mailboxes this process watches: leases, dirty mailboxes, candidates, and the watches that follow."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Final

from eas_watcher import backoff
from eas_watcher.auth.basic import BasicCredential
from eas_watcher.fleet import Fleet
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Fenced, Journal, Transport
from eas_watcher.progress import Condition, Progress, WatchState
from eas_watcher.states import Policy
from eas_watcher.wire import Account
from relay.errors import SealBroken, StoreUnavailable
from relay.model import Candidate, Mailbox, RegistrationId, WatchRecord
from relay.ports import Clock, Topic, Wakeups, WatchStore
from relay.sealing import SealingPrivateKey
from relay.watch.proof import Verdict, prove, same

log = logging.getLogger(__name__)

LEASE: Final = 30.0  # seconds a shard is ours without renewal
RENEW: Final = 10.0  # seconds between renewals
SLOW_POLL: Final = 15.0  # seconds; the safety net under lost wake-ups
NOT_STARTED: Final = frozenset({WatchState.CREDENTIAL_REFUSED, WatchState.WIPED})


@dataclass(frozen=True, slots=True)
class EasServer:
    """Join a configured server with the transport to it."""

    url: str
    transport: Transport
    policy: Policy


class Mailboxes:
    """Keep the fleet in step with the store."""

    def __init__(
        self,
        store: WatchStore,
        wakeups: Wakeups,
        key: SealingPrivateKey,
        servers: Mapping[str, EasServer],
        clock: Clock,
        random: Random,
        node: str,
        *,
        take_over: bool,
    ) -> None:
        """Take the store and what opens and reaches mailboxes; `take_over` as WatchStore.lease_shards says."""
        self._store = store
        self._key = key
        self._servers = servers
        self._clock = clock
        self._random = random
        self._node = node
        self._take_over = take_over
        self._dirty = wakeups.waiter(Topic.MAILBOXES)
        self._epochs: Mapping[int, int] = {}
        self._leased_until = 0.0
        self._shard_of: dict[MailboxId, int] = {}
        self._started_with: dict[MailboxId, tuple[bytes | None, frozenset[CollectionClass]]] = {}
        self._proofs: dict[RegistrationId, tuple[bytes, asyncio.Task[None]]] = {}
        self._broken: asyncio.Queue[MailboxId] = asyncio.Queue()
        self._fleet: Fleet
        self._journal: Journal

    def lease_of(self, mailbox: MailboxId) -> tuple[int, int] | None:
        """Tell shard and epoch under which a mailbox may be committed; None when the lease is not ours."""
        shard = self._shard_of.get(mailbox)
        epoch = None if shard is None else self._epochs.get(shard)
        return None if shard is None or epoch is None else (shard, epoch)

    def broken(self, mailbox: MailboxId) -> None:
        """Hear that a watch ended by a fault of ours; it is started again from the store after a while."""
        self._broken.put_nowait(mailbox)

    @property
    def leased(self) -> bool:
        """Tell whether this process may watch anything now."""
        return asyncio.get_running_loop().time() < self._leased_until

    @property
    def shards(self) -> int:
        """Count the shards whose mailboxes this process may watch now."""
        return len(self._epochs) if self.leased else 0

    async def run(self, fleet: Fleet, journal: Journal) -> None:
        """Watch until cancelled; every watch is stopped when this returns."""
        self._fleet, self._journal = fleet, journal
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_leases(), name="leases")
                tasks.create_task(self._follow_dirty(), name="dirty mailboxes")
                tasks.create_task(self._restart_broken(), name="broken watches")
        finally:
            for _, task in self._proofs.values():
                task.cancel()
            await fleet.stop_all()

    async def _keep_leases(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            asked_at = clock()
            now = self._clock()
            try:
                epochs = await self._store.lease_shards(
                    self._node, now + timedelta(seconds=LEASE), now, take_over=self._take_over
                )
                self._take_over = False
                self._leased_until = asked_at + LEASE
                await self._follow_leases(epochs)
            except StoreUnavailable:
                if clock() > self._leased_until and self._epochs:
                    log.warning("leases ran out while the database is away: all watches stop")
                    self._epochs = {}
                    await self._fleet.stop_all()
            await asyncio.sleep(RENEW)

    async def _follow_leases(self, epochs: Mapping[int, int]) -> None:
        """Stop the watches of lost shards, start those of new ones."""
        before, self._epochs = self._epochs, dict(epochs)
        lost = {shard for shard, epoch in before.items() if epochs.get(shard) != epoch}
        for mailbox in [mailbox for mailbox, shard in self._shard_of.items() if shard in lost]:
            await self._fleet.stop(mailbox)
            self._started_with.pop(mailbox, None)
            del self._shard_of[mailbox]
        gained = sorted(shard for shard, epoch in epochs.items() if before.get(shard) != epoch)
        if gained:
            records = await self._store.records(gained, self._clock())
            log.info("shards taken", extra={"shards": len(gained), "mailboxes": len(records)})
            await self._apply(records)

    async def _follow_dirty(self) -> None:
        while True:
            await self._dirty.wait(SLOW_POLL)
            if not self._epochs:
                continue
            try:
                await self._apply(await self._store.take_dirty(sorted(self._epochs), self._clock()))
            except StoreUnavailable:
                log.warning("dirty mailboxes not read: the database is away")

    async def _restart_broken(self) -> None:
        while True:
            mailbox = await self._broken.get()
            await asyncio.sleep(backoff.delay(4, self._random))
            self._started_with.pop(mailbox, None)
            try:
                record = await self._store.record(mailbox, self._clock())
                if record is not None and mailbox in self._shard_of:
                    await self._apply([record])
            except StoreUnavailable:
                self._broken.put_nowait(mailbox)

    async def _apply(self, records: Sequence[WatchRecord]) -> None:
        for record in records:
            self._shard_of[record.mailbox.id] = record.mailbox.shard
            if record.registrations == 0:
                await self._forget(record.mailbox.id)
                continue
            for candidate in record.candidates:
                self._start_proof(candidate, record)
            await self._follow(record)

    async def _forget(self, mailbox: MailboxId) -> None:
        await self._fleet.stop(mailbox)
        self._started_with.pop(mailbox, None)
        self._shard_of.pop(mailbox, None)
        if await self._store.forget(mailbox):
            log.info("mailbox forgotten: no registration names it", extra={"mailbox": mailbox})

    async def _follow(self, record: WatchRecord) -> None:
        """Start, replace or stop the watch of one mailbox; leave it alone when nothing that matters changed."""
        id_ = record.mailbox.id
        before = self._started_with.get(id_)
        wanted = (record.sealed_credential, record.memory.classes)
        if id_ in self._fleet:
            if before == wanted and record.mailbox.state not in NOT_STARTED:
                return
            await self._fleet.stop(id_)
            # What the old watch committed until its very end is where the new one starts.
            fresh = await self._store.record(id_, self._clock())
            if fresh is None:
                return
            record = fresh
        if before is not None and before[0] != record.sealed_credential:
            record = _with_fresh_credential(record)
        self._started_with[id_] = (record.sealed_credential, record.memory.classes)
        if record.sealed_credential is None or not record.memory.classes or record.mailbox.state in NOT_STARTED:
            return
        account = await self._account(record.mailbox, record.sealed_credential)
        if account is not None:
            server = self._servers[record.mailbox.server]
            self._fleet.start(account, server.transport, record.memory, server.policy)

    async def _account(self, mailbox: Mailbox, sealed: bytes) -> Account | None:
        """Open a credential; a mailbox that cannot be opened or reached is shown as blocked, with the remedy."""
        server = self._servers.get(mailbox.server)
        if server is None:
            detail = f"server {mailbox.server!r} is not configured any more: add [servers.{mailbox.server}] again"
            await self._block(mailbox.id, "server-unknown", detail)
            return None
        try:
            credential = self._key.open(mailbox.id, sealed)
        except SealBroken:
            detail = "the stored credential does not open with this sealing key: restore the key, or register again"
            await self._block(mailbox.id, "seal-broken", detail)
            return None
        return Account(mailbox.id, server.url, credential.user, mailbox.device_id, credential)

    async def _block(self, mailbox: MailboxId, reason: str, detail: str) -> None:
        log.error("mailbox cannot be watched", extra={"mailbox": mailbox, "reason": reason})
        await self._show(mailbox, Condition(WatchState.BLOCKED, reason, detail=detail))

    async def _show(self, mailbox: MailboxId, condition: Condition) -> None:
        try:
            await self._journal.commit(mailbox, Progress(condition=condition))
        except Fenced:
            log.info("mailbox belongs to another process now", extra={"mailbox": mailbox})

    def _start_proof(self, candidate: Candidate, record: WatchRecord) -> None:
        """Prove a candidate in a task of its own, once; a replaced candidate ends the proof of the one before."""
        running = self._proofs.get(candidate.registration_id)
        if running is not None:
            if running[0] == candidate.sealed:
                return
            running[1].cancel()
        task = asyncio.get_running_loop().create_task(
            self._prove(candidate, record), name=f"proof {candidate.registration_id}"
        )
        self._proofs[candidate.registration_id] = (candidate.sealed, task)
        task.add_done_callback(lambda task: self._proof_ended(candidate, task))

    def _proof_ended(self, candidate: Candidate, task: asyncio.Task[None]) -> None:
        running = self._proofs.get(candidate.registration_id)
        if running is not None and running[1] is task:
            del self._proofs[candidate.registration_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("proof broke", extra={"mailbox": candidate.mailbox_id}, exc_info=error)

    async def _prove(self, candidate: Candidate, record: WatchRecord) -> None:
        account = await self._account(record.mailbox, candidate.sealed)
        if account is None:
            return
        failures = 0
        while self.lease_of(candidate.mailbox_id) is not None:
            try:
                if self._in_good_use(account, record):
                    await self._store.accept(candidate, self._clock())
                    return
                finding = await prove(account, self._servers[record.mailbox.server].transport, self._clock())
                match finding.verdict:
                    case Verdict.ACCEPTED:
                        await self._store.accept(candidate, self._clock())
                        return
                    case Verdict.REFUSED:
                        await self._store.refuse(candidate, self._clock())
                        return
                    case Verdict.UNKNOWN:
                        detail = finding.detail
            except StoreUnavailable:
                detail = "the database is away"
            failures += 1
            seconds = backoff.delay(failures, self._random)
            if record.sealed_credential is None:
                condition = Condition(WatchState.VERIFYING, "not-asked", retry_in=seconds, detail=detail)
                await self._show(candidate.mailbox_id, condition)
            await asyncio.sleep(seconds)

    def _in_good_use(self, account: Account, record: WatchRecord) -> bool:
        """Tell whether a candidate is the very credential that the mailbox's watch already uses with success."""
        if record.sealed_credential is None or record.mailbox.state in NOT_STARTED or record.memory.refusals:
            return False
        try:
            known = self._key.open(record.mailbox.id, record.sealed_credential)
        except SealBroken:
            return False
        return isinstance(account.credential, BasicCredential) and same(known, account.credential)


def _with_fresh_credential(record: WatchRecord) -> WatchRecord:
    """Forget a refusal that the watch of the credential before may have committed after this one was accepted."""
    if record.mailbox.state is not WatchState.CREDENTIAL_REFUSED:
        return record
    mailbox = replace(record.mailbox, state=WatchState.STARTING)
    return replace(record, mailbox=mailbox, memory=replace(record.memory, refusals=0))
