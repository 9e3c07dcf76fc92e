"""Own the composition root: everything is built here, run until cancelled, and closed in reverse order."""

import asyncio
import logging
import os
import resource
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.fleet import Fleet
from eas_watcher.surroundings import FleetStats, Surroundings
from relay import memory
from relay.api.app import Limits, create_app
from relay.errors import MigrationsPending, RelayBroke
from relay.listeners import open_listener, server_tls
from relay.model import Platform
from relay.ops import checks, push_checks
from relay.ops.app import create_ops_app
from relay.ops.cases import Case
from relay.ops.counts import CountsCache
from relay.ops.health import Health
from relay.ops.lag import LoopLag
from relay.ops.mail_server import mail_server
from relay.ops.metrics import Metrics
from relay.ports import PushSender, Wakeups
from relay.push import key_files
from relay.push.apns.config import ApnsCertificate
from relay.push.apns.sender import ApnsSender
from relay.push.dispatch import Dispatcher
from relay.push.egress_log import open_egress_log
from relay.push.fcm.sender import FcmSender
from relay.push.key_files import KeyFile
from relay.push.pacing import Pacing
from relay.push.stats import PushStats
from relay.push.webpush.sender import WebPushSender
from relay.push.webpush.services import Services
from relay.registration.certificate_process import CertificateProcess
from relay.registration.identity import ServerDirectory
from relay.registration.lockout import Lockout
from relay.registration.logins import Logins
from relay.registration.registrations import Registrations
from relay.registration.verdicts import Verdicts
from relay.settings import Role, Settings
from relay.store.cases import SqlCaseStore
from relay.store.engine import embedded_lock, open_engine
from relay.store.group_commit import GroupCommitter
from relay.store.migrate import pending, upgrade
from relay.store.ops import SqlOpsStore
from relay.store.outbox import SqlOutboxStore
from relay.store.paths import SqlPathStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups, PostgresWakeups
from relay.store.watches import SqlWatchStore
from relay.watch.accounts import Accounts
from relay.watch.grants import Grants
from relay.watch.journal import StoreJournal
from relay.watch.mailboxes import Mailboxes
from relay.watch.paths import Paths, recall
from relay.watch.servers import open_servers

log = logging.getLogger(__name__)

SHORT_REQUESTS: Final = 64
"""Requests other than held Pings under way at once from one process to one server, so that no start is a storm."""

Job = tuple[str, Callable[[], Coroutine[Any, Any, None]]]


@dataclass(slots=True)
class Running:
    """Hold what runs in this process, for those who watch it; what is not this role's stays empty."""

    settings: Settings
    engine: AsyncEngine
    wakeups: Wakeups
    node: str
    random: Random
    fleet: FleetStats = field(default_factory=FleetStats)
    mailboxes: Mailboxes | None = None
    pushes: dict[Platform, PushStats] = field(default_factory=dict)
    key_files: list[KeyFile[Any]] = field(default_factory=list)
    """Those that are watched for changes."""
    push_services: Services | None = None
    """Of WebPush."""
    jobs: list[Job] = field(default_factory=list)


async def serve(settings: Settings) -> None:
    """Run one role until cancelled.

    Raises DatabaseInUse, MigrationsPending, StoreUnavailable, OSError for what keeps it from starting, and RelayBroke
    for a fault of ours.
    """
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(open_running(settings))
        role = settings.role
        stack.callback(log.info, "relay stopped", extra={"role": role.value})
        _raise_file_limit()
        if role in {Role.ALL, Role.PUSH}:
            await _open_push(running, stack)
        if role in {Role.ALL, Role.WATCH}:
            await _open_watch(running, stack)
        if role in {Role.ALL, Role.API}:
            await _open_api(running, stack)
        await _open_ops(running, stack)
        memory.settle()
        log.info("relay started", extra={"role": role.value, "node": running.node})
        try:
            async with asyncio.TaskGroup() as tasks:  # one failure stops all; the supervisor restarts us
                for name, job in running.jobs:
                    tasks.create_task(job(), name=name)
        except* Exception as broken:
            log.critical("relay broke", exc_info=broken)
            raise RelayBroke from broken


async def migrate(settings: Settings) -> None:
    """Bring the database to the schema of this version; raises DatabaseInUse, StoreUnavailable."""
    async with AsyncExitStack() as stack:
        if settings.database.file is not None:
            stack.enter_context(embedded_lock(settings.database.file))
        await upgrade(await stack.enter_async_context(open_engine(settings.database.dsn, settings.database.ca_file)))


async def explain(settings: Settings, name: str) -> list[Case]:
    """Find what is known of a mailbox, while the relay runs or not; raises MigrationsPending, StoreUnavailable."""
    async with open_engine(settings.database.dsn, settings.database.ca_file) as engine:
        if await pending(engine):
            raise MigrationsPending
        return await SqlCaseStore(engine, now).find(name)


def now() -> datetime:
    """Return now as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251 -- the one clock of the process; everything else is given it


@asynccontextmanager
async def open_running(settings: Settings) -> AsyncIterator[Running]:
    """Open the database, brought to its newest schema if it is embedded, and the wake-ups between roles."""
    random = SystemRandom()
    database = settings.database
    node = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        wakeups: LocalWakeups | PostgresWakeups
        jobs: list[Job] = []
        if database.file is not None:
            stack.enter_context(embedded_lock(database.file))
        engine = await stack.enter_async_context(open_engine(database.dsn, database.ca_file))
        if database.file is not None:
            await upgrade(engine)
            wakeups = LocalWakeups()
        else:
            if await pending(engine):
                raise MigrationsPending
            wakeups = PostgresWakeups(database.dsn, random, database.ca_file)
            jobs.append(("wake-ups", wakeups.run))
        yield Running(settings, engine, wakeups, node, random, jobs=jobs)


async def _open_watch(running: Running, stack: AsyncExitStack) -> None:
    settings, random = running.settings, running.random
    key = _required(settings.sealing.private)
    servers = await open_servers(settings.servers, settings.autodiscover, _trust, now, stack)
    store = SqlWatchStore(running.engine, running.wakeups)
    embedded = settings.database.file is not None
    grants = Grants(key, store, random)
    stack.push_async_callback(grants.stop)
    accounts = Accounts(key, servers, grants)
    mailboxes = Mailboxes(store, running.wakeups, accounts, now, random, running.node, take_over=embedded)
    grants.listen(mailboxes.resealed)
    committer = GroupCommitter(store, now)
    journal = StoreJournal(committer, store, mailboxes.lease_of, now, random)
    paths = SqlPathStore(running.engine)
    lessons = await recall(paths, now)
    around = Surroundings(journal, random, now, SHORT_REQUESTS, running.fleet, lessons=lessons)
    running.mailboxes = mailboxes
    running.jobs += [
        ("commits", committer.run),
        ("moments of Pings", journal.run),
        ("paths", Paths(paths, running.fleet.doors, lessons, now).run),
        ("mailboxes", partial(mailboxes.run, Fleet(around, mailboxes.broken), journal)),
    ]


async def _open_push(running: Running, stack: AsyncExitStack) -> None:
    settings = running.settings
    push = settings.push
    pacing = Pacing(push.coalesce, push.jitter, timedelta(seconds=push.expire), running.random)
    store = SqlOutboxStore(running.engine, running.wakeups, pacing)
    if settings.database.file is not None:
        # The lock on the database says that whoever claimed these is dead.
        await store.release(None)
    egress = stack.enter_context(open_egress_log(settings.egress.folder, now, largest=settings.egress.largest))
    running.jobs.append(("egress log", egress.run))
    senders: dict[Platform, PushSender] = {}
    if settings.apns is not None:
        apns = await stack.enter_async_context(ApnsSender(settings.apns, egress, now, running.random))
        running.key_files += apns.key_files
        senders[Platform.APNS] = apns
    if settings.fcm is not None:
        fcm = await stack.enter_async_context(FcmSender(settings.fcm, now, running.random, egress))
        running.key_files.append(fcm.key_file)
        senders[Platform.FCM] = fcm
    if settings.webpush.sender is not None:
        webpush = await stack.enter_async_context(WebPushSender(settings.webpush.sender, now, egress))
        running.key_files.append(webpush.key_file)
        running.push_services = webpush.services
        senders[Platform.WEBPUSH] = webpush
    running.jobs.append(("key files", partial(key_files.watch, running.key_files)))
    for platform, sender in senders.items():
        dispatcher = Dispatcher(store, platform, sender, running.wakeups, now, running.random, running.node)
        running.pushes[platform] = dispatcher.stats
        for file in running.key_files:
            if file.setting.startswith(f"{platform.value}."):
                file.listen(partial(_hurry, dispatcher))
        running.jobs.append((f"pushes through {platform.value}", dispatcher.run))


def _hurry(dispatcher: Dispatcher, _: object) -> None:
    """Try again at once what rests for want of the right key."""
    dispatcher.hurry()


async def _open_api(running: Running, stack: AsyncExitStack) -> None:
    settings = running.settings
    api = _required(settings.api)
    store, lockout = SqlRegistrationStore(running.engine, running.wakeups), Lockout()
    service = Registrations(
        store,
        Verdicts(store, running.wakeups, now, lockout, seconds=api.verdict_wait),
        _required(settings.sealing.public),
        ServerDirectory(
            {name: tuple(server.domains) for name, server in settings.servers.items()}, settings.autodiscover.hosts
        ),
        settings.apps,
        now,
        secrets.token_urlsafe,
        lockout,
        Logins(
            {name: server.credentials for name, server in settings.servers.items()},
            CertificateProcess(),
            now,
            {name: server.kerberos.guests for name, server in settings.servers.items() if server.kerberos is not None},
        ),
        settings.webpush.services,
    )
    limits = Limits(registrations_per_minute=api.registrations_per_minute, behind_proxy=api.behind_proxy)
    tls = None
    if api.certificate_file is not None and api.key_file is not None:
        tls = server_tls(api.certificate_file, api.key_file)
    app = create_app(service, limits, secrets.token_urlsafe, settings.webpush.public_key)
    port = await stack.enter_async_context(open_listener(app, api.host, api.port, tls))
    log.info("registration API listens", extra={"host": api.host, "port": port, "tls": tls is not None})


async def _open_ops(running: Running, stack: AsyncExitStack) -> None:
    settings, mailboxes = running.settings, running.mailboxes
    counts, lag = CountsCache(SqlOpsStore(running.engine), now), LoopLag()
    await counts.refresh()
    parts = [checks.database(counts, now), checks.loop(lag)]
    if mailboxes is not None:
        parts += [
            checks.leases(lambda: mailboxes.leased),
            checks.mailboxes(lambda: None if counts.newest is None else counts.newest.mailboxes),
        ]
        parts += [
            mail_server(name, partial(running.fleet.doors.get, server.url), now)
            for name, server in settings.servers.items()
        ]
    for platform, stats in running.pushes.items():
        parts += [push_checks.provider(platform, stats, counts, now), push_checks.tokens(platform, counts)]
    if running.pushes:
        # With other roles beside it, the process still does their work: phones register, mailboxes are watched.
        essential = settings.role is Role.PUSH
        parts.append(push_checks.channels(running.pushes.values(), essential=essential))
    parts += [checks.key_file(file) for file in running.key_files]
    if running.push_services is not None:
        parts.append(push_checks.push_services(running.push_services))
    certificates = _certificates(settings)
    parts += [checks.certificate(name, file, now) for name, file in certificates.items()]
    health = Health(parts, now)
    metrics = Metrics(
        version=version("push-relay"),
        role=settings.role.value,
        counts=counts,
        health=health,
        lag=lag,
        fleet=running.fleet,
        push=running.pushes,
        certificates=certificates,
        shards=lambda: 0 if mailboxes is None else mailboxes.shards,
        clock=now,
    )
    await stack.enter_async_context(
        open_listener(create_ops_app(health, metrics), settings.ops.host, settings.ops.port)
    )
    running.jobs += [("counts", counts.run), ("health", health.run), ("loop lag", lag.run)]


def _certificates(settings: Settings) -> dict[str, Path]:
    """Name the certificates that we show to others, by their keys in relay.toml."""
    shown = {}
    if settings.api is not None and settings.api.certificate_file is not None:
        shown["api.certificate_file"] = settings.api.certificate_file
    for account in () if settings.apns is None else settings.apns.accounts:
        if isinstance(account.authentication, ApnsCertificate):
            shown[account.file_setting] = account.authentication.file
    return shown


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each held Ping is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.info("open files allowed", extra={"files": hard})


def _trust(ca_file: Any) -> ssl.SSLContext:
    """Trust the CAs of a file, or those of the system when there is none."""
    return ssl.create_default_context(cafile=ca_file)


def _required(value: Any) -> Any:
    """Return what the settings hold for this role; they were checked for it."""
    if value is None:
        raise AssertionError("settings were loaded for another role")
    return value
