"""Builds the ops listener: health checks and metrics of what runs in this process."""

from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from relay.compose.running import Running, required
from relay.domain.model import Role
from relay.http.admission import Admission, Pace
from relay.http.listeners import open_listener
from relay.ops import checks, push_checks
from relay.ops.app import create_ops_app
from relay.ops.counts import CountsCache
from relay.ops.health import Health
from relay.ops.lag import LoopLag
from relay.ops.mail_server import mail_server
from relay.ops.metrics import Metrics
from relay.ops.unreadable import look_again, unreadable_rows
from relay.push.apns.config import ApnsCertificate
from relay.settings import Settings
from relay.store.ops import SqlOpsStore

CONNECTIONS: Final = 64  # connections at once; monitoring needs a handful
CONNECTIONS_PER_SECOND: Final = 20.0  # of those with TLS; without it four times as many
LARGEST: Final = 16_384  # bytes of a request
SPARE: Final = 8
"""Files that only this listener uses: health and metrics answer even when the process has no other file left."""


async def open_ops(running: Running, stack: AsyncExitStack) -> None:
    """Open the listener of health and metrics; call it last, because it shows what `running` holds by then."""
    settings, mailboxes, now = running.settings, running.mailboxes, running.now
    limits = {} if mailboxes is None else settings.limits
    counts, lag = CountsCache(SqlOpsStore(running.reads, running.unreadable, limits), now), LoopLag()
    await counts.refresh()
    parts = [
        checks.database(counts, now),
        checks.loop(lag),
        checks.clock(running.clocks),
        unreadable_rows(running.unreadable),
    ]
    if running.settings.role is not Role.ALL:
        parts.append(checks.own_rights(running.excess))
    if mailboxes is not None:
        parts += [
            checks.leases(lambda: mailboxes.leased),
            checks.shards(lambda: mailboxes.unfair),
            checks.mailboxes(lambda: None if counts.newest is None else counts.newest.mailboxes),
            checks.credential_checks(lambda: None if counts.newest is None else counts.newest.mailboxes),
        ]
        parts += [
            mail_server(
                name, partial(required(running.admissions).known, server.url), now, running.connections[server.url]
            )
            for name, server in settings.servers.items()
        ]
        parts += [checks.refused_logins(name, counts) for name in settings.limits]
    for platform, stats in running.pushes.items():
        parts += [push_checks.provider(platform, stats, counts, now), push_checks.tokens(platform, counts)]
    if running.pushes:
        # With role all, the process still registers phones and watches mailboxes while pushes do not leave.
        essential = settings.role is Role.PUSH
        parts.append(push_checks.channels(running.pushes.values(), essential=essential))
    parts += [checks.key_file(file) for file in running.key_files]
    if running.egress is not None:
        alone = settings.role is Role.PUSH
        parts.append(push_checks.egress_log(running.egress, settings.egress.low, now, essential=alone))
    if running.push_services is not None:
        parts.append(push_checks.push_services(running.push_services))
    certificates = _certificates(settings)
    parts += [checks.certificate(name, file, now) for name, file in certificates.items()]
    health = Health(parts, now)
    door = running.listeners["ops"] = Admission(CONNECTIONS, CONNECTIONS // 2)
    metrics = Metrics(
        version=version("push-relay"),
        role=settings.role.value,
        counts=counts,
        health=health,
        lag=lag,
        clocks=running.clocks,
        fleet=running.fleet,
        requests=lambda: {} if running.admissions is None else running.admissions.requests,
        connections=running.connections,
        servers=lambda: [] if running.admissions is None else running.admissions.items(),
        push=running.pushes,
        egress=running.egress,
        certificates=certificates,
        shards=lambda: 0 if mailboxes is None else mailboxes.shards,
        nodes=lambda: 0 if mailboxes is None else mailboxes.nodes,
        clock=now,
        unreadable=running.unreadable,
        listeners=running.listeners,
        refused=running.refused_requests,
    )
    await stack.enter_async_context(
        open_listener(
            create_ops_app(health, metrics, {*settings.ops.hosts, *settings.ops.names}),
            settings.ops.hosts,
            settings.ops.port,
            admission=door,
            pace=Pace(CONNECTIONS_PER_SECOND, CONNECTIONS_PER_SECOND),
            spare=SPARE,
            largest=LARGEST,
        )
    )
    running.jobs += [("counts", counts.run), ("health", health.run), ("loop lag", lag.run)]
    running.jobs.append(("rows set aside", partial(look_again, running.looks, now)))


def _certificates(settings: Settings) -> dict[str, Path]:
    """Return the certificates that the relay presents to phones and to Apple, by their keys in relay.toml."""
    shown = {}
    if settings.api is not None and settings.api.certificate_file is not None:
        shown["api.certificate_file"] = settings.api.certificate_file
    for account in () if settings.apns is None else settings.apns.accounts:
        if isinstance(account.authentication, ApnsCertificate):
            shown[account.file_setting] = account.authentication.file
    return shown
