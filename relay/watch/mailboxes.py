"""Own which mailboxes this process watches: leases, dirty mailboxes, candidates, and the watches that follow."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Final

from eas_watcher import backoff
from eas_watcher.machine.memory import WIPES, Condition, Progress, WatchState
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Fenced, Journal
from eas_watcher.reasons import Reason
from eas_watcher.runtime.fleet import Fleet
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import WatchRecord
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.ports.watch import WatchStore
from relay.watch.accounts import Accounts, Connection
from relay.watch.verification import Verification


@dataclass(frozen=True, slots=True)
class WatchInputs:
    """Hold what a watch was started with."""

    sealed: bytes | None = field(repr=False)
    classes: frozenset[CollectionClass]
    subfolders: frozenset[CollectionClass]

    @classmethod
    def of(cls, record: WatchRecord) -> "WatchInputs":
        """Take it from a record."""
        return cls(record.sealed_credential, record.memory.classes, record.memory.subfolders)


log = logging.getLogger(__name__)

LEASE: Final = 30.0  # seconds a shard is ours without renewal
RENEW: Final = 10.0  # seconds between renewals
GOODBYE: Final = 5.0  # seconds that a stopping relay waits for its last word in the database
SLOW_POLL: Final = 15.0  # seconds; the safety net under lost wake-ups
BROKEN: Final = 4  # as many failures in a row stands a watch for that broke by a fault of ours: about 40 s
NOT_STARTED: Final = frozenset({WatchState.CREDENTIAL_REFUSED, WatchState.WIPED})


class Mailboxes:
    """Keep the fleet in step with the store."""

    def __init__(
        self,
        store: WatchStore,
        wakeups: Wakeups,
        accounts: Accounts,
        clock: Clock,
        random: Random,
        node: str,
        *,
        take_over: bool,
    ) -> None:
        """Take the store and what opens mailboxes; `take_over` as WatchStore.lease_shards says."""
        self._store = store
        self._dirty = wakeups.waiter(Topic.MAILBOXES)
        self._accounts = accounts
        self._clock = clock
        self._random = random
        self._node = node
        self._take_over = take_over
        self._proofs = Verification(
            store,
            accounts,
            lambda id_: self.lease_of(id_) is not None,
            self._show,
            self._trouble,
            clock,
            random,
        )
        self._leases: dict[int, int] = {}
        """Shard -> epoch of all that is ours, as the store said last."""
        self._gained = asyncio.Event()
        self._epochs: dict[int, int] = {}
        """Those of them whose mailboxes were read: what this process watches."""
        self._leased_until = float("-inf")
        self._shard_of: dict[MailboxId, int] = {}
        self._started_with: dict[MailboxId, WatchInputs] = {}
        self._broken: asyncio.Queue[MailboxId] = asyncio.Queue()
        self._turn = asyncio.Lock()
        """Whoever changes the fleet has it: leases, dirty mailboxes and broken watches come in any order."""
        self._fleet: Fleet
        self._journal: Journal

    def lease_of(self, mailbox: MailboxId) -> tuple[int, int] | None:
        """Tell shard and epoch under which a mailbox may be committed; None when the lease is not ours."""
        shard = self._shard_of.get(mailbox)
        epoch = None if shard is None else self._epochs.get(shard)
        return None if shard is None or epoch is None else (shard, epoch)

    def broken(self, mailbox: MailboxId) -> None:
        """Hear that a watch ended by a fault of ours; it is started again from the store after a while."""
        seconds = backoff.delay(BROKEN, self._random)
        asyncio.get_running_loop().call_later(seconds, self._broken.put_nowait, mailbox)

    def resealed(self, mailbox: MailboxId, before: bytes, after: bytes) -> None:
        """Hear that a credential was sealed anew; its watch and its proof go on with it."""
        started = self._started_with.get(mailbox)
        if started is not None and started.sealed == before:
            self._started_with[mailbox] = replace(started, sealed=after)
        self._proofs.resealed(before, after)

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
                tasks.create_task(self._take_up(), name="shards gained")
                tasks.create_task(self._follow_dirty(), name="dirty mailboxes")
                tasks.create_task(self._restart_broken(), name="broken watches")
        finally:
            await self._proofs.stop()
            await fleet.stop_all()
            await self._release_leases()

    async def _release_leases(self) -> None:
        """Give the leases to whoever wants them, now that no Ping is held under them."""
        try:
            async with asyncio.timeout(GOODBYE):
                await self._store.release_shards(self._node)
        except (StoreUnavailable, TimeoutError):
            log.warning("leases left to run out: the database is away")

    async def _keep_leases(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            if not self.leased:
                await self._give_up_leases()
            asked_at, now = clock(), self._clock()
            # An answer after the lease's end is as good as none: somebody else may hold the Pings by then.
            patience = self._leased_until if self.leased else asked_at + RENEW
            try:
                async with asyncio.timeout_at(patience):
                    epochs = await self._store.lease_shards(
                        self._node, now + timedelta(seconds=LEASE), now, take_over=self._take_over
                    )
                self._take_over = False
                self._leased_until = asked_at + LEASE
                await self._follow_leases(epochs)
            except (StoreUnavailable, TimeoutError) as error:
                detail = str(error) or "no answer in time"
                log.warning("leases not renewed: the database is away", extra={"detail": detail})
            await asyncio.sleep(min(RENEW, self._leased_until - clock()) if self.leased else RENEW)

    async def _give_up_leases(self) -> None:
        self._leases = {}
        if self._epochs:
            log.warning("leases ran out: all watches stop")
            self._epochs = {}
            await self._fleet.stop_all()

    async def _follow_leases(self, epochs: Mapping[int, int]) -> None:
        """Stop the watches of lost shards; have those of new ones started."""
        self._leases = dict(epochs)
        held = {shard: epoch for shard, epoch in self._epochs.items() if epochs.get(shard) == epoch}
        lost = self._epochs.keys() - held.keys()
        self._epochs = held
        for mailbox in [mailbox for mailbox, shard in self._shard_of.items() if shard in lost]:
            await self._fleet.stop(mailbox)
            self._started_with.pop(mailbox, None)
            self._shard_of.pop(mailbox, None)
        self._gained.set()

    async def _take_up(self) -> None:
        """Start the watches of shards gained; however long that takes, leases are renewed and given up in time."""
        while True:
            await self._gained.wait()
            self._gained.clear()
            gained = {shard: epoch for shard, epoch in self._leases.items() if self._epochs.get(shard) != epoch}
            if not gained:
                continue
            try:
                records = await self._store.records(sorted(gained), self._clock())
            except StoreUnavailable:
                log.warning("mailboxes of shards gained not read: the database is away")
                continue  # the next renewal tries again
            # What was lost while they were read may have moved on elsewhere.
            self._epochs |= {shard: epoch for shard, epoch in gained.items() if self._leases.get(shard) == epoch}
            log.info("shards taken", extra={"shards": len(gained), "mailboxes": len(records)})
            await self._apply(records)

    async def _follow_dirty(self) -> None:
        while True:
            await self._dirty.wait(SLOW_POLL)
            if not self._epochs:
                continue
            try:
                records = await self._store.take_dirty(sorted(self._epochs), self._clock())
            except StoreUnavailable:
                log.warning("dirty mailboxes not read: the database is away")
            else:
                await self._apply(records)

    async def _restart_broken(self) -> None:
        while True:
            mailbox = await self._broken.get()
            try:
                record = await self._store.record(mailbox, self._clock())
            except StoreUnavailable:
                self.broken(mailbox)
            else:
                await self._apply([] if record is None else [record])

    async def _apply(self, records: Sequence[WatchRecord]) -> None:
        """Bring watches and proofs in step with records, one mailbox at a time."""
        for record in records:
            await asyncio.sleep(0)  # a large fleet must not keep the loop from renewing the leases
            async with self._turn:
                if record.mailbox.shard not in self._epochs:
                    continue
                self._shard_of[record.mailbox.id] = record.mailbox.shard
                try:
                    await self._apply_one(record)
                except StoreUnavailable:
                    self.broken(record.mailbox.id)

    async def _apply_one(self, record: WatchRecord) -> None:
        if record.registrations == 0:
            await self._forget(record.mailbox.id)
            return
        for candidate in record.candidates:
            self._proofs.start(candidate, record)
        await self._follow(record)

    async def _forget(self, mailbox: MailboxId) -> None:
        await self._fleet.stop(mailbox)
        self._started_with.pop(mailbox, None)
        self._shard_of.pop(mailbox, None)
        if await self._store.forget(mailbox):
            log.info("mailbox forgotten: no registration names it", extra={"mailbox": mailbox})
        else:
            self._broken.put_nowait(mailbox)  # somebody registered meanwhile: look again

    async def _follow(self, record: WatchRecord) -> None:
        """Start, replace or stop the watch of one mailbox; leave it alone when nothing that matters changed."""
        id_ = record.mailbox.id
        before = self._started_with.get(id_)
        if id_ in self._fleet and before is not None and self._unchanged(before, record):
            self._started_with[id_] = WatchInputs.of(record)
            return
        if id_ in self._fleet or (before is not None and before.sealed is not None):
            lease = self.lease_of(id_)
            await self._fleet.stop(id_)
            # What the old watch committed until its end, which may have come by itself, is where the new one starts.
            fresh = await self._store.record(id_, self._clock())
            if fresh is None or lease is None or self.lease_of(id_) != lease:
                return  # forgotten or lost meanwhile: a watch without its lease would be a second one
            record = fresh
        if before is not None and before.sealed != record.sealed_credential:
            record = _with_fresh_credential(record)
        self._started_with[id_] = WatchInputs.of(record)
        if record.sealed_credential is None or not record.memory.classes or record.mailbox.state in NOT_STARTED:
            return
        opened = self._accounts.open(record.mailbox, record.sealed_credential)
        opened, memory = opened.place(record.memory) if isinstance(opened, Connection) else (opened, record.memory)
        if isinstance(opened, Condition):
            log.error("mailbox cannot be watched", extra={"mailbox": id_, "reason": opened.reason})
            await self._show(id_, opened, wipe=memory.wipe)
            return
        server = opened.server
        seeker = None if server.discovery is None else server.discovery.watches
        self._fleet.start(opened.account, opened.transport, memory, server.policy, seeker)

    def _unchanged(self, before: WatchInputs, record: WatchRecord) -> bool:
        """Tell whether a watch may go on as it was started; a credential sealed again is the same credential."""
        now = WatchInputs.of(record)
        if record.mailbox.state in NOT_STARTED or replace(before, sealed=now.sealed) != now:
            return False
        return before.sealed == now.sealed or self._accounts.alike(record.mailbox.id, before.sealed, now.sealed)

    def _trouble(self, url: str) -> str:
        return self._fleet.trouble(url)

    async def _show(self, mailbox: MailboxId, condition: Condition, wipe: bool | None = None) -> None:
        """Show why a mailbox is not watched; one whose `wipe` was begun is wiped, as after a failed acknowledgement."""
        progress = Progress(condition=condition)
        if wipe is not None:
            progress = Progress(condition=Condition(WatchState.WIPED, WIPES[wipe]), attention=True)
        try:
            await self._journal.commit(mailbox, progress)
        except Fenced:
            log.info("mailbox belongs to another process now", extra={"mailbox": mailbox})


def _with_fresh_credential(record: WatchRecord) -> WatchRecord:
    """Forget the refusals that the watch of the credential before may have committed after this one was accepted."""
    state, memory = record.mailbox.state, record.memory
    if not memory.refusals:
        return record
    state = WatchState.STARTING if state is WatchState.CREDENTIAL_REFUSED else state
    retry_in = 0.0 if record.mailbox.reason is Reason.HTTP_401 else memory.retry_in  # what a server asked for is kept
    memory = replace(memory, refusals=0, retry_in=retry_in)
    return replace(record, mailbox=replace(record.mailbox, state=state), memory=memory)
