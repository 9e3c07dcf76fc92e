"""The parts that all roles of a process share: its database, its wake-ups, and the list of what runs in it."""

import asyncio
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from random import Random, SystemRandom
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.runtime.context import FleetStats
from eas_watcher.server.admissions import Admissions
from relay.domain.canary import CanaryLog
from relay.domain.clock import Clock
from relay.domain.errors import MigrationsPending
from relay.domain.model import Platform, Role
from relay.domain.ports.wakeups import Wakeups
from relay.domain.shadow import Shadow
from relay.domain.timeline import Timeline
from relay.domain.traces import Traces
from relay.domain.unreadable import UnreadableRows
from relay.http.admission import Admission
from relay.ops.checks import CLOSE
from relay.ops.configuration import Configuration
from relay.ops.health import Health
from relay.ops.mail_server import Used
from relay.ops.unreadable import Look
from relay.process.clock import now
from relay.push.dispatch import Handovers
from relay.push.egress.log import EgressLog
from relay.push.fcm.projects import Projects
from relay.push.key_files import KeyFile
from relay.push.stats import Accounts, PushStats
from relay.push.webpush.services import Services
from relay.registration.receipts import ReceiptStats
from relay.security.key_presence import KeyPresence
from relay.security.sealing import derive_account
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.store.clock import DatabaseClock
from relay.store.engine import Database, connect_arguments, embedded_lock, open_database
from relay.store.migrate import pending, upgrade
from relay.store.privileges import excess
from relay.store.sessions import check_sessions
from relay.store.timeline import TimelineWriter
from relay.store.wakeups import LocalWakeups, PostgresWakeups
from relay.watch.mailboxes import Mailboxes
from relay.watch.turnover import Turnover

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = tuple[str, Callable[[], Coroutine[Any, Any, None]]]
Take: TypeAlias = Callable[[], Awaitable[None]]
"""Puts in use what a taker has prepared; it does not fail."""
Taker: TypeAlias = Callable[[Settings, Changes], Awaitable[Take | None]]
"""Prepares one part of the process for other settings; None: it has nothing to change. Raises SettingsInvalid."""
Sockets: TypeAlias = Mapping[int, Sequence[socket.socket]]
"""Sockets that listen already when the process starts, by their port."""


@dataclass(slots=True)
class Running:
    """What runs in this process; health and metrics read it. Parts of other roles stay empty."""

    settings: Settings
    """Those in use now."""
    database: Database
    reads: Database
    """The same database over connections that only read, for the questions of phones and of operations."""
    wakeups: Wakeups
    node: str
    random: Random
    fleet: FleetStats = field(default_factory=FleetStats)
    admissions: Admissions | None = None
    connections: dict[str, Used] = field(default_factory=dict)
    """URL of a mail server -> what returns the connections to it."""
    mailboxes: Mailboxes | None = None
    pushes: dict[Platform, PushStats] = field(default_factory=dict)
    keys: KeyPresence | None = None
    """The sealing keys, for roles that have some."""
    turnover: Turnover | None = None
    """Seals what is stored for another key, where mailboxes are watched."""
    handovers: Handovers = field(default_factory=Handovers)
    """What the dispatchers of this process take over from transactions that set marks."""
    key_files: list[KeyFile[Any]] = field(default_factory=list)
    """The key files that the relay watches for changes."""
    apns_accounts: Accounts | None = None
    """The accounts at Apple."""
    push_services: Services | None = None
    """The push services of WebPush."""
    fcm_projects: Projects | None = None
    """The Firebase projects of FCM."""
    clocks: PeerClocks = field(default_factory=partial(PeerClocks, now))
    """The clocks of mail servers, providers and the database, compared with this host's."""
    now: Clock = now
    """The time: that of the database's clock, which all processes share."""
    drains: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    """What to do before the jobs are ended by a signal; each takes a bounded time."""
    excess: list[str] = field(default_factory=list)
    """What this process may do that its role does not need."""
    unreadable: UnreadableRows = field(default_factory=UnreadableRows)
    looks: list[Look] = field(default_factory=list)
    """How the stores look again at the rows that they have set aside."""
    listeners: dict[str, Admission] = field(default_factory=dict)
    """The connections of the listeners, "api" and "ops"."""
    refused_requests: Counter[str] = field(default_factory=Counter)
    """Requests to the API that were refused because too many came, by the code of the problem."""
    receipts: ReceiptStats = field(default_factory=ReceiptStats)
    """What apps have shown."""
    canary: CanaryLog | None = None
    """What became of the canary's mails; None: this process sends none."""
    egress: EgressLog | None = None
    shadow: Shadow | None = None
    """Which pushes leave."""
    timeline: Timeline = field(default_factory=Timeline.off)
    """The last events of mailboxes and registrations."""
    traces: Traces | None = None
    """What makes spans of commits and pushes; None: nothing does."""
    health: Health | None = None
    jobs: list[Job] = field(default_factory=list)
    takers: list[Taker] = field(default_factory=list)
    """The parts of the process that take other settings while it runs, in the order in which they take them."""
    configuration: Configuration = field(default_factory=lambda: Configuration(now()))
    sockets: Sockets = field(default_factory=dict)
    """Sockets that the service manager opened for this process."""


def _account_of(settings: Settings) -> Callable[[str], str]:
    """Return what hashes a user for the timeline; the role may have no key for that."""
    key = settings.sealing.public
    return (lambda _: "") if key is None else partial(derive_account, key)


@asynccontextmanager
async def open_running(settings: Settings, sockets: Sockets = MappingProxyType({})) -> AsyncIterator[Running]:
    """Open the database and the wake-ups between roles; an embedded database is migrated first.

    Raises MigrationsPending for PostgreSQL with an older schema, SessionsShared or NotificationsLost for a pooler that
    cannot be used, DatabaseInUse, StoreUnavailable.
    """
    random = SystemRandom()
    database = settings.database
    node = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        wakeups: LocalWakeups | PostgresWakeups
        jobs: list[Job] = []
        if database.file is not None:
            stack.enter_context(embedded_lock(database.file))
        engine = await stack.enter_async_context(open_database(database.dsn, database.ca_file))
        reads = await stack.enter_async_context(open_database(database.dsn, database.ca_file, reads=True))
        if database.file is not None:
            await upgrade(engine)
            wakeups = LocalWakeups()
        else:
            await check_sessions(connect_arguments(database.dsn, database.ca_file))
            if await pending(engine):
                raise MigrationsPending
            wakeups = PostgresWakeups(database.dsn, random, database.ca_file)
            jobs.append(("wake-ups", wakeups.run))
        excess = await _excess(settings, engine)
        running = Running(settings, engine, reads, wakeups, node, random, jobs=jobs, excess=excess, sockets=sockets)
        if database.file is None:
            clock = DatabaseClock(engine, running.clocks)
            await clock.look()
            running.now = clock.now
            jobs.append(("database clock", clock.run))
        running.timeline = Timeline(running.now, on=bool(settings.retention.events), account_of=_account_of(settings))
        writer = TimelineWriter(engine, running.timeline)
        stack.push_async_callback(writer.close)
        jobs.append(("timeline", writer.run))

        async def take_timeline(found: Settings, changes: Changes) -> Take | None:
            async def take() -> None:
                running.timeline.on = bool(found.retention.events)
                running.timeline.account_of = _account_of(found)

            return take if changes.touch("timeline", "sealing") else None

        running.takers.append(take_timeline)
        running.traces = _traces(running, stack)
        yield running


def _traces(running: Running, stack: AsyncExitStack) -> Traces | None:
    """Open the way to the collector of traces; its library is loaded only if there is one."""
    tracing = running.settings.tracing
    if tracing is None:
        return None
    from relay.network.collector import Collector  # noqa: PLC0415 -- the library of an extra

    collector = Collector(tracing, running.settings.role.value, version("push-relay"), running.node)
    stack.push_async_callback(asyncio.to_thread, collector.close)
    return Traces(collector.emit, tracing.ratio, running.now, running.random)


async def _excess(settings: Settings, engine: Database) -> list[str]:
    """Return and log what this process may do that its role does not need."""
    found = [f"its database user {phrase}" for phrase in await excess(engine, settings.role)]
    key = settings.sealing.private_key_file
    if settings.role in {Role.API, Role.PUSH} and os.access(key, os.R_OK):
        found.append(f"it can read the private sealing key {key}")
    for phrase in found:
        log.warning("this process may do more than its role needs", extra={"reason": phrase, "remedy": CLOSE})
    return found


def required(value: T | None) -> T:
    """Return a value that the role needs; None would mean that the settings were loaded for another role."""
    if value is None:
        raise AssertionError("settings were loaded for another role")
    return value
