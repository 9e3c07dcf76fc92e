"""What a process does: run a role, which `relay.compose` builds, or migrate the database, or explain a mailbox.

A role is imported when it is opened, so that a process loads only the libraries of the roles that it runs.
"""

import asyncio
import logging
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.peer_clocks import PeerClocks
from relay.admin.administration import Administration
from relay.admin.audit import Act, Stamp, Verdict, What
from relay.admin.keeping import open_keys, read_keys
from relay.admin.keys import ShownKey, survey
from relay.compose.ops import open_ops, status
from relay.compose.prepare import may_run, prepare
from relay.compose.reload import Load, Reloader, take_log
from relay.compose.running import Job, Running, Sockets, open_running
from relay.domain.errors import MigrationsPending, RelayBroke
from relay.domain.explanation import Findings
from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder
from relay.ops.status import DatabaseView
from relay.process import gc_tuning, trimming
from relay.process.clock import now
from relay.process.dead_man import give_signs_of_life
from relay.process.service_manager import ServiceManager
from relay.security.sealing import Foreign, derive_account, foreign
from relay.settings import Settings
from relay.settings.values import DatabaseSettings
from relay.store import acts, key_holders, restoring, seals, wipes
from relay.store.administration import SqlAdminStore
from relay.store.clock import DatabaseClock
from relay.store.engine import Database, connect_arguments, embedded_lock, open_database, refusals
from relay.store.explanation import EVENTS, SqlExplanationStore
from relay.store.migrate import pending, upgrade
from relay.store.ops import SqlOpsStore
from relay.store.privileges import grant
from relay.store.seals import seal_heads
from relay.store.sessions import check_sessions
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from relay.store.wipes import WipedAccount

log = logging.getLogger(__name__)

CLI: Final = "cli"
"""How acts of the command line are noted in the audit log."""


@asynccontextmanager
async def opened(settings: Settings, sockets: Sockets = MappingProxyType({})) -> AsyncIterator[Running]:
    """Build one role, and close it in reverse order; nothing runs in between but its listeners.

    Raises DatabaseInUse, DatabaseRefuses, KeyLost, MigrationsPending, StoreUnavailable or OSError.
    """
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(open_running(settings, sockets))
        role = settings.role
        stack.callback(log.info, "relay stopped", extra={"role": role.value})
        _raise_file_limit()
        with refusals():
            if role in {Role.ALL, Role.PUSH}:
                from relay.compose.push import open_push

                await open_push(running, stack)
            if role is not Role.PUSH:
                from relay.compose.sealing import open_sealing

                await open_sealing(running, stack)
            if role in {Role.ALL, Role.WATCH}:
                from relay.compose.watch import open_watch

                await open_watch(running, stack)
            if role in {Role.ALL, Role.API}:
                from relay.compose.api import open_api

                await open_api(running, stack)
            await open_ops(running, stack)
        yield running


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process that serves has around it."""

    manager: ServiceManager = field(default_factory=ServiceManager)
    sockets: Sockets = field(default_factory=dict)
    """Sockets that listen already, by their port."""
    path: Path | None = None
    """The relay.toml; None: the settings never change."""
    load: Load | None = None
    """Reads the settings again."""


async def serve(settings: Settings, around: Surroundings = Surroundings()) -> None:
    """Build one role and run it until cancelled.

    Raises as `opened` does if the role cannot start, and RelayBroke if one of its tasks fails, which is a fault of the
    relay.
    """
    gc_tuning.share_heaps()
    manager = around.manager
    async with opened(settings, around.sockets) as running:
        gc_tuning.freeze_heap()
        log.info("relay started", extra={"role": settings.role.value, "node": running.node})
        running.jobs += _jobs(running, around)
        try:
            async with asyncio.TaskGroup() as tasks:  # one failure stops all; the supervisor restarts us
                started = [tasks.create_task(job(), name=name) for name, job in running.jobs]
                manager.ready(status(running))
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    manager.stopping("hands over and ends")
                    if not any(task.done() for task in started):
                        await _drain(running)
                    raise
        except* Exception as broken:
            log.critical("relay broke", exc_info=broken)
            raise RelayBroke from broken


def _jobs(running: Running, around: Surroundings) -> list[Job]:
    """Return the jobs of a process that serves, besides those of its role."""
    manager = around.manager
    describe = partial(status, running)
    jobs: list[Job] = [
        ("free memory", trimming.give_back),
        ("signs of life", lambda: give_signs_of_life(manager, describe, lambda: running.database.longest)),
    ]
    if around.path is not None and around.load is not None:
        running.takers.insert(0, take_log)
        reloader = Reloader(
            running, around.path, around.load, begins=manager.reloading, ends=lambda: manager.ready(describe())
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.ask)
        jobs.append(("configuration", reloader.run))
    return jobs


async def _drain(running: Running) -> None:
    """Let other processes take over while the jobs still run, as far as that is quick."""
    log.info("relay stops", extra={"role": running.settings.role.value})
    for drain in running.drains:
        await drain()


def look_at_host(settings: Settings, *, serves: bool, ports: Collection[int] = ()) -> None:
    """Raise SettingsInvalid or PortTaken if the role could not serve on this host, whatever network and database say.

    Unless this process `serves`, the relay may run already and have the ports. Sockets on `ports` are open already.
    """
    prepare(settings, running=not serves and may_run(settings), ports=ports)


async def migrate(database: DatabaseSettings, *, grants: bool = False) -> None:
    """Migrate a database to the schema of this version; with `grants` also set the rights of each role's user.

    Raises DatabaseInUse, DatabaseRefuses, SessionsShared, NotificationsLost, StoreUnavailable.
    """
    async with AsyncExitStack() as stack:
        if database.file is not None:
            stack.enter_context(embedded_lock(database.file))
        else:
            await check_sessions(connect_arguments(database.dsn, database.ca_file))
        engine = await stack.enter_async_context(open_database(database.dsn, database.ca_file))
        await upgrade(engine)
        if grants:
            with refusals():
                await grant(engine)


async def sealed_for_others(database: DatabaseSettings, keys: Collection[bytes]) -> Foreign | None:
    """Return the credentials of a database if none opens with `keys`; None: it has no credentials, or no tables.

    Raises DatabaseRefuses, StoreUnavailable.
    """
    if database.file is not None and not database.file.exists():
        return None
    async with open_database(database.dsn, database.ca_file) as engine:
        with refusals():
            return foreign(await seal_heads(engine), keys)


async def sealing_keys(settings: Settings) -> tuple[tuple[ShownKey, ...], Sequence[KeyHolder]]:
    """Return all sealing keys, the present one first, and the processes that have some.

    What is sealed is not counted for the api role's database user, who may not look. Raises MigrationsPending,
    DatabaseRefuses, StoreUnavailable.
    """
    public = settings.sealing.public
    if public is None:
        raise AssertionError("the role has a sealing key")
    may_count = settings.role is not Role.API or settings.database.file is not None
    async with _migrated(settings) as database:
        moment = now()
        if settings.database.file is None:
            clock = DatabaseClock(database, PeerClocks(now))
            await clock.look()
            moment = clock.now()
        counts = await database.run(seals.count_seals) if may_count else None
        holders = await database.run(key_holders.holders, moment)
    return survey(settings.sealing.sources, public.name, counts, holders), holders


async def note_key(settings: Settings, who: str, what: What, key: str) -> None:
    """Add what is done with a sealing key to the audit log; raises as `administration` does."""
    stamp = _stamp(settings, who)
    async with _migrated(settings) as database:
        await seals.note_key(database, stamp, what, key)


async def forget_credentials(database: DatabaseSettings, audit_key_file: Path, who: str) -> int:
    """Destroy all credentials, whose key is lost; return how many there were.

    Raises DatabaseInUse, DatabaseRefuses, MigrationsPending, OSError, StoreUnavailable.
    """
    stamp = Stamp(who, CLI, now(), open_keys(audit_key_file))
    async with AsyncExitStack() as stack:
        if database.file is not None:
            stack.enter_context(embedded_lock(database.file))
        engine = await stack.enter_async_context(open_database(database.dsn, database.ca_file))
        if await pending(engine):
            raise MigrationsPending
        with refusals():
            return await seals.forget_credentials(engine, stamp.at, stamp)


async def distrust(settings: Settings, who: str) -> int:
    """Let no registration of a restored database ring before its app was seen; return how many there are.

    Raises DatabaseInUse, DatabaseRefuses, MigrationsPending, OSError, StoreUnavailable.
    """
    stamp = _stamp(settings, who)
    async with AsyncExitStack() as stack:
        if settings.database.file is not None:
            stack.enter_context(embedded_lock(settings.database.file))
        return await restoring.distrust(await stack.enter_async_context(_migrated(settings)), stamp)


async def wiped_accounts(settings: Settings) -> Sequence[WipedAccount]:
    """Return the accounts that nobody may register for, since an administrator wiped their device.

    Raises MigrationsPending, DatabaseRefuses, StoreUnavailable.
    """
    async with _migrated(settings) as database:
        return await wipes.wiped_accounts(database)


async def allow_wiped(settings: Settings, user: str, server: str | None, who: str) -> Sequence[WipedAccount]:
    """Allow a wiped account again, and return what was allowed; the relay may run or not.

    Raises MigrationsPending, DatabaseRefuses, OSError, StoreUnavailable.
    """
    stamp = _stamp(settings, who)
    async with _migrated(settings) as database:
        return await wipes.allow(database, user, server, stamp)


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[Administration]:
    """Open what administrators see and do from the command line; the relay may run or not.

    Raises MigrationsPending, DatabaseRefuses, OSError, StoreUnavailable.
    """
    keys = open_keys(settings.admin.audit_key_file)
    async with _migrated(settings) as database:
        store = SqlAdminStore(
            database, retention=settings.retention, account_of=_account_of(settings), limits=settings.limits
        )
        yield Administration(store, settings.server_names, keys, now, CLI)


async def finish_forgetting(settings: Settings, mailboxes: Iterable[MailboxId]) -> None:
    """Delete mailboxes that are to be forgotten from an embedded database that no relay uses.

    Where a relay runs, its watch role does that, as soon as it has stopped their watches. Raises DatabaseInUse.
    """
    async with AsyncExitStack() as stack:
        if settings.database.file is not None:
            stack.enter_context(embedded_lock(settings.database.file))
        store = SqlWatchStore(await stack.enter_async_context(_migrated(settings)), LocalWakeups(), settings.limits)
        for mailbox in mailboxes:
            await store.forget(mailbox)


async def acts_of(settings: Settings, user: str | None, limit: int) -> Sequence[Act]:
    """Return the last administrative acts, the newest first; with a user, those about the user.

    Raises OSError, MigrationsPending, StoreUnavailable.
    """
    stamp = _stamp(settings, "")
    async with _migrated(settings) as database:
        if user is None:
            return await acts.latest(database, limit)
        found = await database.run(acts.about, stamp.subjects(user))
        return list(reversed(found))[:limit]


async def verify_acts(settings: Settings) -> Verdict:
    """Check the whole audit log of administrative acts; raises OSError, MigrationsPending, StoreUnavailable."""
    keys = read_keys(settings.admin.audit_key_file) if settings.admin.audit_key_file.exists() else ()
    async with _migrated(settings) as database:
        return await acts.verify_all(database, {key.id: key for key in keys})


def _stamp(settings: Settings, who: str) -> Stamp:
    """Return the stamp of an act from the command line; raises OSError."""
    return Stamp(who, CLI, now(), open_keys(settings.admin.audit_key_file))


@asynccontextmanager
async def _migrated(settings: Settings) -> AsyncIterator[Database]:
    """Open a database that has the schema of this version."""
    async with open_database(settings.database.dsn, settings.database.ca_file) as database:
        if await pending(database):
            raise MigrationsPending
        with refusals():
            yield database


async def explain(settings: Settings, name: str, most: int = EVENTS, before: datetime | None = None) -> Findings:
    """Return what the database says about the mailboxes that `name` means; the relay may run or not.

    The last events come with them, `most` of each, and none that came after `before`. Raises MigrationsPending,
    DatabaseRefuses, StoreUnavailable.
    """
    async with _migrated(settings) as database:
        return await SqlExplanationStore(database, now).find(name, _account_of(settings), most, before)


def _account_of(settings: Settings) -> Callable[[str], str]:
    """Return what hashes a user as the timeline does; the role may have no key for that."""
    key = settings.sealing.public
    return (lambda _: "") if key is None else partial(derive_account, key)


@asynccontextmanager
async def database_view(settings: DatabaseSettings) -> AsyncIterator[Callable[[], Awaitable[DatabaseView]]]:
    """Yield what returns the database's view of the whole installation; both raise MigrationsPending and others."""
    async with open_database(settings.dsn, settings.ca_file, reads=True) as database:
        if await pending(database):
            raise MigrationsPending
        store, clock = SqlOpsStore(database), now
        if settings.file is None:
            watch = DatabaseClock(database, PeerClocks(now))
            await watch.look()
            clock = watch.now

        async def view() -> DatabaseView:
            with refusals():
                mailboxes: Counter[WatchState] = Counter()
                for (state, _), number in (await store.mailboxes_by_state()).items():
                    mailboxes[state] += number
                registrations, outbox = await store.registrations_by_state(), await store.outbox()
                return DatabaseView(mailboxes, registrations, outbox, await store.nodes(clock()), clock())

        yield view


async def unknown_registrations(settings: Settings, registrations: Collection[str]) -> set[str]:
    """Return which of some ids the database does not have; raises StoreUnavailable."""
    async with open_database(settings.database.dsn, settings.database.ca_file) as engine:
        return await SqlExplanationStore(engine, now).unknown(registrations)


def _raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each held Ping is one open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.info("open files allowed", extra={"files": hard})
