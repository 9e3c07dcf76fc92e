"""The composition of the watch role, which holds a Ping for every mailbox."""

import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from eas_watcher.runtime.context import WatchContext
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.tls import client_context
from relay.compose.running import Running, Take, required
from relay.compose.servers import MailServers
from relay.domain.canary import CanaryLog
from relay.domain.errors import KeyLost, SettingsInvalid
from relay.process.dead_man import DeadManTimer
from relay.security.sealing import foreign
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.store.canary import SqlCanaryStore
from relay.store.engine import open_database
from relay.store.idle_timeouts import SqlIdleTimeoutStore
from relay.store.seals import seal_heads
from relay.store.shards import SqlShardStore
from relay.store.watches import SqlWatchStore
from relay.watch.acceptances import AcceptanceReader
from relay.watch.accounts import Accounts
from relay.watch.canary import Canary, CanaryRules
from relay.watch.committer import GroupCommitter, StoreJournal
from relay.watch.idle_timeouts import IdleTimeoutKeeper, recall
from relay.watch.leases import Leases
from relay.watch.mailboxes import HeldMailboxes, Mailboxes
from relay.watch.oauth_grants import Grants
from relay.watch.submission import submit
from relay.watch.turnover import Turnover

SHORT_REQUESTS: Final = 64
"""Requests at once from one process to one mail server, held Pings left out, so that no start is a storm."""


async def open_watch(running: Running, stack: AsyncExitStack) -> None:
    """Open the mail servers, and add the jobs that watch mailboxes; raises KeyLost if no stored credential opens."""
    settings, random, now = running.settings, running.random, running.now
    key = required(settings.sealing.private)
    lost = foreign(await seal_heads(running.database), key.ids)
    if lost:
        raise KeyLost(lost.number, settings.sealing.private_key_file, lost.keys)
    paths = SqlIdleTimeoutStore(running.database, running.unreadable)
    lessons = await recall(paths, now)
    admissions = Admissions(SHORT_REQUESTS, random, now, lessons, running.clocks)
    servers = MailServers(client_context, admissions, running.connections)
    stack.push_async_callback(servers.close)
    servers.use(await servers.open(settings.servers, settings.autodiscover, ()))
    store = SqlWatchStore(
        running.database,
        running.wakeups,
        settings.limits,
        running.unreadable,
        handover=running.handovers,
        guards_wipes=settings.wiped_needs_administrator,
    )
    embedded = settings.database.file is not None
    grants = Grants(key, store, random)
    stack.push_async_callback(grants.stop)
    accounts = Accounts(key, servers.servers, grants)
    # On PostgreSQL connections of its own: a renewal never waits behind the commits of a storm.
    database = settings.database
    engine = (
        running.database if embedded else await stack.enter_async_context(open_database(database.dsn, database.ca_file))
    )
    shards = SqlShardStore(engine, version("push-relay"), now, running.unreadable)
    guard = None if embedded else DeadManTimer()
    leases = Leases(shards, running.wakeups, running.node, guard, take_over=embedded)
    held = HeldMailboxes(leases)
    committer = GroupCommitter(store, now, running.timeline, running.traces)
    journal = StoreJournal(committer, store, held.lease_of, now, random)
    context = WatchContext(journal, random, admissions, running.fleet, tries=journal)
    mailboxes = Mailboxes(store, running.wakeups, accounts, held, leases, context, running.timeline)
    grants.listen(mailboxes.resealed)
    _open_canary(running)
    turnover = Turnover(accounts, grants, store, mailboxes, required(running.keys), random)
    running.turnover = turnover
    running.looks += [store.look_again, paths.look_again]
    running.admissions = admissions
    running.mailboxes = mailboxes
    running.drains.append(mailboxes.drain)
    running.jobs += [
        ("commits", committer.run),
        ("moments of Pings", journal.run),
        ("acceptances", AcceptanceReader(store, admissions.items, now).run),
        ("paths", IdleTimeoutKeeper(paths, admissions.items, lessons, now).run),
        ("mailboxes", mailboxes.run),
        ("seals for former keys", turnover.run),
    ]

    running.takers.append(_Taker(store, servers, grants, mailboxes, turnover).prepare)


@dataclass(frozen=True, slots=True)
class _Taker:
    """What of the watch role takes other settings."""

    store: SqlWatchStore
    servers: MailServers
    grants: Grants
    mailboxes: Mailboxes
    turnover: Turnover

    async def prepare(self, found: Settings, changes: Changes) -> Take | None:
        if not changes.touch("servers", "autodiscover", "registrations", "sealing"):
            return None
        keys = required(found.sealing.private)
        try:
            opening = await self.servers.open(found.servers, found.autodiscover, changes.restarting)
        except (OSError, ValueError) as error:  # files that have changed once more since they were checked
            wrong = f"cannot be opened: {type(error).__name__}"
            raise SettingsInvalid([("servers", wrong, "Give the files that they name.")]) from error

        async def take() -> None:
            if changes.touch("sealing"):
                self.turnover.use(keys)
            self.store.limits, self.store.guards_wipes = found.limits, found.wiped_needs_administrator
            retire = self.servers.use(opening)

            async def done() -> None:
                await self.grants.settle()
                await retire()

            self.mailboxes.change_servers(changes.restarting, done)

        return take


def _open_canary(running: Running) -> None:
    """Add the job that sends the canary's mails, if there is a canary."""
    rules = _canary_rules(running.settings)
    if rules is None:
        return
    running.canary = CanaryLog()
    store = SqlCanaryStore(running.database)
    canary = Canary(store, submit, rules, running.now, running.node, secrets.token_urlsafe, running.canary)
    running.jobs.append(("canary", canary.run))

    async def prepare(found: Settings, changes: Changes) -> Take | None:
        taken = _canary_rules(found) if changes.touch("canary", "servers") else None
        if taken is None:
            return None

        async def take() -> None:
            canary.rules = taken

        return take

    running.takers.append(prepare)


def _canary_rules(settings: Settings) -> CanaryRules | None:
    own = settings.canary
    if own is None or own.submission is None:
        return None
    return CanaryRules(own.mailbox, own.goal, own.submission, own.submission_written_at)
