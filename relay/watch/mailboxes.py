"""The mailboxes that this process watches: started, restarted and stopped as the database says."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from eas_watcher import backoff
from eas_watcher.machine.memory import WIPES, Condition, Progress, WatchState
from eas_watcher.machine.sharing import Sharing
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Fenced
from eas_watcher.reasons import Reason
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from relay.domain.errors import StoreUnavailable
from relay.domain.model import WatchRecord
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.ports.watch import WatchStore
from relay.domain.timeline import Timeline
from relay.security.sealing import is_old
from relay.watch.accounts import Accounts, Connection, Terms
from relay.watch.leases import Lease, Leases
from relay.watch.shares import Unfair
from relay.watch.verification import Verification

log = logging.getLogger(__name__)

SLOW_POLL: Final = 15.0  # seconds between looks for dirty mailboxes, in case a wake-up was lost
_REFUSALS: Final = frozenset({Reason.HTTP_401, Reason.HTTP_401_MANY, Reason.HTTP_401_DOUBTFUL})
PART: Final = 32  # shards whose mailboxes are read at once: leases are renewed, and progress committed, in between
BUSY: Final = 100  # mailboxes that wait for their turn to start; more shards would only wait, too
LOOK: Final = 0.1  # seconds between two looks whether fewer wait for their start
AGAIN: Final = 1.0  # seconds until mailboxes of changed servers are restarted that could not be read
MANY: Final = 500  # watches that take another policy before the loop does other things
Changed: TypeAlias = Callable[[], Awaitable[None]]
BROKEN: Final = 4  # a watch that broke by a fault of ours waits as after this many failures in a row: about 40 s


@dataclass(frozen=True, slots=True)
class WatchInputs:
    """The inputs whose change restarts a watch."""

    seal: bytes | None
    """The digest of the sealed credential, which is many times as long; None: the mailbox has none."""
    classes: frozenset[CollectionClass]
    subfolders: frozenset[CollectionClass]
    terms: Terms

    @classmethod
    def of(cls, record: WatchRecord, sharing: Sharing, terms: Terms) -> "WatchInputs":
        """Return the inputs that a record holds, under the terms of its server."""
        sealed, memory = record.sealed_credential, record.memory
        seal = None if sealed is None else digest(sealed)
        return cls(seal, sharing.classes(memory.classes), sharing.classes(memory.subfolders), terms)


def digest(sealed: bytes) -> bytes:
    """Return what tells a sealed credential from all others, in 16 bytes."""
    return blake2b(sealed, digest_size=16).digest()


@dataclass(slots=True)
class Held:
    """A mailbox of one of our shards."""

    shard: int
    inputs: WatchInputs | None = None
    """What its watch was started with, or would have been if the mailbox had a usable credential; None: not yet."""


class HeldMailboxes:
    """All mailboxes that this process has read under its leases."""

    def __init__(self, leases: Leases) -> None:
        """Start without mailboxes."""
        self._leases = leases
        self._held: dict[MailboxId, Held] = {}

    def lease_of(self, mailbox: MailboxId) -> Lease | None:
        """Return the lease under which a mailbox may be committed; None: this process has lost it."""
        held = self._held.get(mailbox)
        return None if held is None else self._leases.of_shard(held.shard)

    def hold(self, mailbox: MailboxId, shard: int) -> None:
        """Add a mailbox, or leave it as it is."""
        self._held.setdefault(mailbox, Held(shard)).shard = shard

    def drop(self, mailbox: MailboxId) -> None:
        """Remove a mailbox."""
        self._held.pop(mailbox, None)

    def inputs_of(self, mailbox: MailboxId) -> WatchInputs | None:
        """Return what a mailbox's watch was started with; None: it was never started."""
        held = self._held.get(mailbox)
        return None if held is None else held.inputs

    def started(self, mailbox: MailboxId, inputs: WatchInputs) -> None:
        """Note what a held mailbox's watch is started with."""
        self._held[mailbox].inputs = inputs

    def terms(self) -> list[tuple[MailboxId, Terms]]:
        """Return the mailboxes that were started, or would have been, with the terms of their servers."""
        return [(mailbox, held.inputs.terms) for mailbox, held in self._held.items() if held.inputs is not None]

    def halted(self, mailbox: MailboxId) -> None:
        """Note that a held mailbox is as if it had never been started."""
        if (held := self._held.get(mailbox)) is not None:
            held.inputs = None

    def of_shards(self, shards: Collection[int]) -> list[MailboxId]:
        """Return the mailboxes of some shards."""
        return [mailbox for mailbox, held in self._held.items() if held.shard in shards]


class Mailboxes:
    """Keeps the watches and verifications of this process in step with the database."""

    def __init__(
        self,
        store: WatchStore,
        wakeups: Wakeups,
        accounts: Accounts,
        held: HeldMailboxes,
        leases: Leases,
        context: WatchContext,
        timeline: Timeline | None = None,
    ) -> None:
        """Watch nothing yet; `context` is what the watches share, its journal commits under the leases of `held`."""
        self._store = store
        self._dirty = wakeups.waiter(Topic.MAILBOXES)
        self._accounts = accounts
        self._held = held
        self._leases = leases
        self._context = context
        self._timeline = timeline or Timeline.off()
        self._fleet = Fleet(context, self.broken)
        self._verification = Verification(
            store,
            accounts,
            lambda id_: held.lease_of(id_) is not None,
            self._show,
            self.broken,
            context.admissions,
            context.random,
            self._timeline,
        )
        self._broken: asyncio.Queue[MailboxId] = asyncio.Queue()
        self._returning: set[MailboxId] = set()
        """Mailboxes that wait to be started again: in an outage of the database each is asked for many times."""
        self._changed: asyncio.Queue[Changed] = asyncio.Queue()
        self._turn = asyncio.Lock()
        """Held while a mailbox is brought in step: shards, dirty mailboxes and broken watches come in any order."""
        self._reads: set[asyncio.Future[None]] = set()
        """The reads of mailboxes that are under way; each ends its future."""
        self._taking_up = False
        """True while the mailboxes of gained shards are read and started."""
        self._opened_old = False
        """True once a seal of the old form opened: this process has the key that they were sealed for."""
        self._undecided: frozenset[int] = frozenset()
        """Shards with seals of the old form of which none opened, read before any opened."""

    @property
    def leased(self) -> bool:
        """True while this process may watch mailboxes."""
        return self._leases.current

    @property
    def shards(self) -> int:
        """The number of shards whose mailboxes this process may watch now."""
        return len(self.watched_shards)

    async def run(self) -> None:
        """Watch until cancelled; every watch is stopped when this returns."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leases.keep(self), name="leases")
                tasks.create_task(self._take_up(), name="shards gained")
                tasks.create_task(self._follow_dirty(), name="dirty mailboxes")
                tasks.create_task(self._restart_broken(), name="broken watches")
                tasks.create_task(self._follow_servers(), name="changed servers")
        finally:
            await self._verification.stop()
            await self._fleet.stop_all()
            await self._leases.release()

    def broken(self, mailbox: MailboxId) -> None:
        """Start a mailbox from the database again after a while: its watch ended by a fault of ours.

        However often this is asked for meanwhile, it is read once.
        """
        if mailbox in self._returning:
            return
        self._returning.add(mailbox)
        seconds = backoff.delay(BROKEN, self._context.random)
        asyncio.get_running_loop().call_later(seconds, self._broken.put_nowait, mailbox)

    def change_servers(self, restarting: Collection[str], done: Changed) -> None:
        """Follow the servers of `Accounts`, which have changed: those of `restarting` get new watches, one by one.

        `done` is called when no watch uses what the servers were before.
        """
        self._accounts.renew_terms(restarting)
        self._changed.put_nowait(done)

    def resealed(self, mailbox: MailboxId, before: bytes, after: bytes) -> None:
        """Keep a mailbox's watch and verification running: its credential was sealed again, but is the same one."""
        inputs = self._held.inputs_of(mailbox)
        if inputs is not None and inputs.seal == digest(before):
            self._held.started(mailbox, replace(inputs, seal=digest(after)))
        self._verification.resealed(before, after)

    async def turn_over(
        self, seals: Mapping[MailboxId, Mapping[bytes, bytes]]
    ) -> Mapping[MailboxId, Mapping[bytes, bytes]]:
        """Replace seals by such for another key, before -> after; return those that were still there. No Ping ends.

        Candidates that are checked now keep their seals: the store knows by the seal which candidate was accepted.
        """
        async with self._turn:  # no check begins meanwhile
            checked = self._verification.seals()
            wanted = {
                id_: {before: after for before, after in pairs.items() if before not in checked}
                for id_, pairs in seals.items()
            }
            written = await self._store.turn_over(wanted)
            for id_, pairs in written.items():
                for before, after in pairs.items():
                    self.resealed(id_, before, after)
        return written

    @property
    def watched_shards(self) -> Collection[int]:
        """The shards whose mailboxes this process may watch now."""
        return self._leases.watched if self._leases.current else ()

    async def lost(self, shards: Collection[int]) -> None:
        """Stop the watches of shards that another process owns now."""
        mailboxes = self._held.of_shards(shards)
        await asyncio.gather(*map(self._fleet.stop, mailboxes))
        for mailbox in mailboxes:
            self._held.drop(mailbox)
            self._timeline.left(mailbox)

    async def ran_out(self) -> None:
        """Stop all watches: the leases ran out."""
        await self._fleet.stop_all()

    async def give(self, shard: int) -> None:
        """Stop the watches and verifications of a shard that another process is to have."""
        async with self._turn:  # nothing of the shard starts meanwhile
            mailboxes = self._held.of_shards({shard})
            await asyncio.gather(*map(self._fleet.stop, mailboxes))
            await self._verification.stop_of(mailboxes)
            self._leases.gave(shard)
            for mailbox in mailboxes:
                self._held.drop(mailbox)
                self._timeline.left(mailbox)
        if self._reads:
            await asyncio.wait(set(self._reads))

    @property
    def busy(self) -> bool:
        """True while mailboxes of gained shards are started, or many wait for their turn at a server that serves."""
        servers = self._context.admissions.items()
        return self._taking_up or any(each.waiting > BUSY and each.state != "away" for _, each in servers)

    async def drain(self) -> None:
        """Hand over all mailboxes to other processes, as far as there are any; `run` goes on meanwhile."""
        await self._leases.drain()

    @property
    def unfair(self) -> Unfair | None:
        """What has been wrong with the division of the shards for a while; None: nothing."""
        return self._leases.unfair

    @property
    def nodes(self) -> int:
        """The number of watch processes that are alive, this one included."""
        division = self._leases.division
        return 0 if division is None else sum(seat.left > 0 for seat in division.seats)

    async def _take_up(self) -> None:
        """Start the watches of gained shards; leases are renewed and given up in time however long that takes."""
        while True:
            gained = await self._leases.gained()
            self._taking_up = True
            try:
                for start in range(0, len(gained), PART):
                    some = sorted(gained)[start : start + PART]
                    await self._take(self._leases.still({shard: gained[shard] for shard in some}))
            except StoreUnavailable:
                # The next renewal reports the shards again.
                log.warning("mailboxes of shards gained not read: the database is away")
            self._taking_up = False
            self._leases.started()

    async def _take(self, gained: Mapping[int, int]) -> None:
        if not gained:
            return
        records = await self._read(self._store.records(gained, self._context.now()))
        records = await self._sealed_anew(records, gained)
        self._leases.watch(gained)
        log.info("shards taken", extra={"shards": len(gained), "mailboxes": len(records)})
        waiting = deque(records)
        records.clear()  # a record that was applied is kept no longer
        await self._apply(waiting)
        # What became dirty after the read woke a look that left these shards out.
        if still := self._leases.still(gained):
            await self._take_dirty(still)

    async def _sealed_anew(self, records: Sequence[WatchRecord], gained: Collection[int]) -> list[WatchRecord]:
        """Seal the credentials of gained shards again where their seals are of the old form, which is taken once.

        A shard is noted as done if it is read without such seals, and as soon as one opens in any shard: if none does,
        this process has another key than the one that they were sealed for.
        """
        open_shards = frozenset(gained) - await self._store.sealed_anew(gained)
        renewals: dict[MailboxId, dict[bytes, bytes]] = {}
        undecided = set(self._undecided)
        old = old_renewed = 0
        for record in records:
            await asyncio.sleep(0)  # each renewal takes a fraction of a millisecond: leases are renewed meanwhile
            take_old = record.mailbox.shard in open_shards
            mine = self._accounts.upgrades(record) if take_old else {}
            if mine:
                renewals[record.mailbox.id] = mine
            if take_old:
                if found := sum(is_old(sealed) for sealed in record.seals):
                    old += found
                    undecided.add(record.mailbox.shard)
                old_renewed += sum(is_old(sealed) for sealed in mine)
        self._opened_old = self._opened_old or old_renewed > 0
        done = open_shards.union(undecided) if self._opened_old else open_shards - undecided
        self._undecided = frozenset(undecided - done)
        if renewals or done:
            await self._store.seal_anew(renewals, done)
        if renewals:
            log.info("credentials sealed again", extra={"mailboxes": len(renewals)})
        if old > old_renewed:
            log.error("credentials of an older version do not open", extra={"credentials": old - old_renewed})
        return [
            record.resealed(renewals[record.mailbox.id]) if record.mailbox.id in renewals else record
            for record in records
        ]

    async def _follow_dirty(self) -> None:
        while True:
            await self._dirty.wait(SLOW_POLL)
            if watched := self._leases.watched:
                await self._take_dirty(watched)

    async def _take_dirty(self, leases: Mapping[int, int]) -> None:
        try:
            records = await self._read(self._store.take_dirty(leases, self._context.now()))
        except StoreUnavailable:
            log.warning("dirty mailboxes not read: the database is away")
        else:
            await self._apply(deque(records))

    async def _read(self, reading: Coroutine[Any, Any, list[WatchRecord]]) -> list[WatchRecord]:
        """Read mailboxes and clear their dirty flags: until that is done, none of their shards is given away.

        Else the flag of a change that came after the next owner had read a mailbox could be cleared here, unseen.
        """
        done = asyncio.get_running_loop().create_future()
        self._reads.add(done)
        try:
            return await reading
        finally:
            self._reads.discard(done)
            done.set_result(None)

    async def _restart_broken(self) -> None:
        while True:
            mailbox = await self._broken.get()
            self._returning.discard(mailbox)
            await self._restart(mailbox)

    async def _follow_servers(self) -> None:
        while True:
            done = await self._changed.get()
            await self._follow_policies()
            noted = 0
            while stale := [pair for pair in self._held.terms() if pair[1] != self._accounts.terms(pair[1].server)]:
                if len(stale) != noted:  # it stays the same while the database is away
                    log.info("mailboxes of changed servers restart", extra={"mailboxes": len(stale)})
                    noted = len(stale)
                for mailbox, terms in stale:
                    await self._room(terms.server)
                    await self._verification.stop_of([mailbox])
                    await self._renew(mailbox)
                await asyncio.sleep(AGAIN)  # those that could not be read are read again
            await done()

    async def _renew(self, mailbox: MailboxId) -> None:
        """Give a mailbox of a changed server a new watch, unless the database is away.

        One whose row cannot be read gets none before it is mended: it must not go on with what the server was before.
        """
        try:
            record = await self._store.record(mailbox, self._context.now())
        except StoreUnavailable:
            return
        if record is not None:
            await self._apply(deque([record]))
            return
        async with self._turn:
            await self._fleet.stop(mailbox)
            self._held.halted(mailbox)

    async def _follow_policies(self) -> None:
        """Give running watches the present policies; watches at a host that is no longer allowed start again."""
        for number, (mailbox, terms) in enumerate(self._held.terms()):
            if number % MANY == 0:
                await asyncio.sleep(0)
            server, url = self._accounts.server(terms.server), self._fleet.url(mailbox)
            if server is None or url is None or terms != self._accounts.terms(terms.server):
                continue
            self._fleet.follow(mailbox, server.policy)
            if not server.allows(None if url == server.url else url):
                await self._fleet.stop(mailbox)
                await self._restart(mailbox)

    async def _room(self, name: str) -> None:
        """Wait while many mailboxes of a server queue for their start: what is stopped now would only wait with them.

        A server that is away is not waited for: no Ping is held there.
        """
        server = self._accounts.server(name)
        admission = None if server is None else self._context.admissions.known(server.url)
        while admission is not None and admission.waiting > BUSY and admission.state != "away":  # noqa: ASYNC110 -- a queue reports nothing
            await asyncio.sleep(LOOK)

    async def _restart(self, mailbox: MailboxId) -> None:
        try:
            record = await self._store.record(mailbox, self._context.now())
        except StoreUnavailable:
            self.broken(mailbox)
        else:
            await self._apply(deque() if record is None else deque([record]))

    async def _apply(self, records: deque[WatchRecord]) -> None:
        """Bring watches and verifications in step with records, one mailbox at a time; takes each from the queue."""
        while records:
            record = records.popleft()
            await asyncio.sleep(0)  # a large fleet must not keep the loop from renewing the leases
            async with self._turn:
                if self._leases.of_shard(record.mailbox.shard) is None:
                    continue
                self._held.hold(record.mailbox.id, record.mailbox.shard)
                try:
                    await self._apply_one(record)
                except StoreUnavailable:
                    self.broken(record.mailbox.id)

    async def _apply_one(self, record: WatchRecord) -> None:
        if record.registrations == 0 or record.forgotten:
            await self._forget(record)
            return
        if record.halted is not None:
            await self._halt(record.mailbox.id, record.halted)
            return
        for candidate in record.candidates:
            self._verification.start(candidate, record)
        await self._follow(record)

    async def _halt(self, mailbox: MailboxId, why: Condition) -> None:
        """Ask the mail server nothing more about a mailbox; when it goes on, it starts as after a restart."""
        await self._verification.stop_of([mailbox])
        if mailbox in self._fleet:
            log.info("watch halted: an administrator asks for it", extra={"mailbox": mailbox})
        await self._fleet.stop(mailbox)
        self._held.halted(mailbox)
        self._timeline.progressed(mailbox, Progress(condition=why))

    async def _forget(self, record: WatchRecord) -> None:
        mailbox = record.mailbox.id
        await self._verification.stop_of([mailbox])
        await self._fleet.stop(mailbox)
        self._held.drop(mailbox)
        self._timeline.left(mailbox)
        if await self._store.forget(mailbox):
            log.info("mailbox forgotten", extra={"mailbox": mailbox})
            if not record.forgotten:  # an administrator leaves no trace of the user
                self._timeline.forgotten(mailbox, record.mailbox.user)
        else:
            self._broken.put_nowait(mailbox)  # an app registered it meanwhile: read it again

    async def _follow(self, record: WatchRecord) -> None:
        """Start, replace or stop the watch of one mailbox; leave it alone when none of its inputs changed."""
        id_ = record.mailbox.id
        before = self._held.inputs_of(id_)
        # While a refused credential is confirmed, its tries stay spaced, no matter who asks for more [promise 4].
        retry = record.retry and not record.memory.refusals
        if id_ in self._fleet and before is not None and self._unchanged(before, record) and not retry:
            self._held.started(id_, self._inputs_of(record))
            return
        if id_ in self._fleet or (before is not None and before.seal is not None):
            lease = self._held.lease_of(id_)
            await self._fleet.stop(id_)
            # The new watch starts from what the old one committed until its end, which may have come by itself.
            fresh = await self._store.record(id_, self._context.now())
            if fresh is None or lease is None or self._held.lease_of(id_) != lease:
                return  # forgotten or lost meanwhile: a watch without its lease would be a second one
            record = fresh
            if record.halted is not None or record.forgotten:
                return  # its dirty flag is set: the next look halts or forgets it
        if retry and not record.memory.refusals:
            record = replace(record, memory=replace(record.memory, retry_in=0.0))
        now = self._inputs_of(record)
        if before is not None and before.seal != now.seal:
            record = _with_fresh_credential(record)
        self._held.started(id_, now)
        if record.sealed_credential is None or not record.memory.classes or record.mailbox.state.ended:
            return
        opened = self._accounts.open(record.mailbox, record.sealed_credential)
        opened, memory = opened.place(record.memory) if isinstance(opened, Connection) else (opened, record.memory)
        if isinstance(opened, Condition):
            log.error("mailbox cannot be watched", extra={"mailbox": id_, "reason": opened.reason})
            await self._show(id_, opened, wipe=memory.wipe)
            return
        server = opened.server
        seeker = None if server.discovery is None else server.discovery.watches
        self._fleet.start(opened.account, opened.transport, memory, server.policy, seeker, server.transport)

    def _inputs_of(self, record: WatchRecord) -> WatchInputs:
        return WatchInputs.of(record, self._context.sharing, self._accounts.terms(record.mailbox.server))

    def _unchanged(self, before: WatchInputs, record: WatchRecord) -> bool:
        """Return True if a watch may go on as it was started; a credential that was sealed again is the same one."""
        now = self._inputs_of(record)
        if record.mailbox.state.ended or replace(before, seal=now.seal) != now:
            return False
        shown = self._fleet.credential(record.mailbox.id)
        return before.seal == now.seal or self._accounts.is_sealed(record.mailbox, shown, record.sealed_credential)

    async def _show(self, mailbox: MailboxId, condition: Condition, wipe: bool | None = None) -> None:
        """Record why a mailbox is not watched.

        A mailbox whose `wipe` was begun counts as wiped: its acknowledgement cannot be sent any more.
        """
        progress = Progress(condition=condition)
        if wipe is not None:
            progress = Progress(condition=Condition(WatchState.WIPED, WIPES[wipe]), attention=True)
        try:
            await self._context.journal.commit(mailbox, progress)
        except Fenced:
            log.info("mailbox belongs to another process now", extra={"mailbox": mailbox})


def _with_fresh_credential(record: WatchRecord) -> WatchRecord:
    """Clear the refusals that the watch of the old credential may have committed after the new one was accepted."""
    state, memory = record.mailbox.state, record.memory
    if not memory.refusals:
        return record
    state = WatchState.STARTING if state is WatchState.CREDENTIAL_REFUSED else state
    retry_in = 0.0 if record.mailbox.reason in _REFUSALS else memory.retry_in  # a wait that a server asked for stays
    memory = replace(memory, refusals=0, retry_in=retry_in)
    return replace(record, mailbox=replace(record.mailbox, state=state), memory=memory)
