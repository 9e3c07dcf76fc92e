"""Builds the ops listener: health checks and metrics of what runs in this process."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from relay.compose.administration import open_administration
from relay.compose.running import Running, Take, required
from relay.domain.model import Role
from relay.domain.tries import TryLimits
from relay.http.admission import Admission, Pace
from relay.http.listeners import open_listener
from relay.ops import checks, push_checks
from relay.ops.app import create_ops_app
from relay.ops.canary import canary
from relay.ops.configuration import configuration
from relay.ops.counts import CountsCache
from relay.ops.health import Health, Part, PartState, worst
from relay.ops.lag import LoopLag
from relay.ops.mail_server import mail_server
from relay.ops.metrics import Metrics
from relay.ops.sealing_keys import sealing_keys
from relay.ops.unreadable import look_again, unreadable_rows
from relay.push.apns.config import ApnsCertificate
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.store.ops import SqlOpsStore

CONNECTIONS: Final = 64  # connections at once; monitoring needs a handful
CONNECTIONS_PER_SECOND: Final = 20.0  # of those with TLS; without it four times as many
LARGEST: Final = 16_384  # bytes of a request
SPARE: Final = 8
"""Files that only this listener uses: health and metrics answer even when the process has no other file left."""


async def open_ops(running: Running, stack: AsyncExitStack) -> None:
    """Open the listener of health and metrics; call it last, because it shows what `running` holds by then."""
    settings, mailboxes, now = running.settings, running.mailboxes, running.now
    store = SqlOpsStore(running.reads, running.unreadable, _limits(running, settings))
    counts, lag = CountsCache(store, now), LoopLag()
    await counts.refresh()
    health = Health(_parts(running, settings, counts, lag), now)
    certificates = _certificates(settings)
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
        canary=running.canary,
        goal=lambda: None if running.settings.canary is None else running.settings.canary.goal,
        receipts=None if settings.api is None else running.receipts,
        fcm_projects=lambda: running.fcm_projects,
        egress=running.egress,
        certificates=certificates,
        shards=lambda: 0 if mailboxes is None else mailboxes.shards,
        nodes=lambda: 0 if mailboxes is None else mailboxes.nodes,
        clock=now,
        unreadable=running.unreadable,
        listeners=running.listeners,
        refused=running.refused_requests,
        configuration=running.configuration,
        turnover=None if running.turnover is None else running.turnover.progress,
    )
    admin, console = await open_administration(running, counts, health, metrics)
    await stack.enter_async_context(
        open_listener(
            create_ops_app(health, metrics, {*settings.ops.hosts, *settings.ops.names}, admin, console),
            settings.ops.hosts,
            settings.ops.port,
            sockets=running.sockets.get(settings.ops.port, ()),
            admission=door,
            pace=Pace(CONNECTIONS_PER_SECOND, CONNECTIONS_PER_SECOND),
            spare=SPARE,
            largest=LARGEST,
        )
    )
    running.health = health
    running.jobs += [("counts", counts.run), ("health", health.run), ("loop lag", lag.run)]
    running.jobs.append(("rows set aside", partial(look_again, running.looks, now)))

    async def prepare(found: Settings, _: Changes) -> Take:
        async def take() -> None:
            store.limits = _limits(running, found)
            health.parts = tuple(_parts(running, found, counts, lag))
            certificates.clear()
            certificates.update(_certificates(found))

        return take

    running.takers.append(prepare)


def status(running: Running) -> str:
    """Return in plain words how a process is, for the service manager."""
    reports = [] if running.health is None else running.health.latest
    state = worst(reports)
    ill = [f"{each.part} {each.finding.reason}" for each in reports if each.finding.state is not PartState.OK]
    held = f", {len(running.fleet.held)} Pings held" if running.mailboxes is not None else ""
    wrong = "" if state is PartState.OK else f", {state.value}: {'; '.join(ill)}"
    return f"role {running.settings.role.value}{held}{wrong}"


def _limits(running: Running, settings: Settings) -> Mapping[str, TryLimits]:
    """Return the limits of refused logins that this process counts: where it watches."""
    return {} if running.mailboxes is None else settings.limits


def _parts(running: Running, settings: Settings, counts: CountsCache, lag: LoopLag) -> list[Part]:
    """Return the parts that health checks."""
    mailboxes, now = running.mailboxes, running.now
    parts = [
        checks.database(counts, now),
        checks.loop(lag),
        checks.clock(running.clocks),
        configuration(running.configuration),
        unreadable_rows(running.unreadable),
        *_sealing(running),
    ]
    if settings.role is not Role.ALL:
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
                name,
                partial(required(running.admissions).known, server.url),
                now,
                running.connections[server.url],
                counts.maintained,
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
    if running.shadow is not None:
        parts.append(push_checks.push_mode(running.shadow))
    parts += [checks.key_file(file) for file in running.key_files]
    if running.egress is not None:
        alone = settings.role is Role.PUSH
        parts.append(push_checks.egress_log(running.egress, settings.egress.low, now, essential=alone))
    if running.push_services is not None:
        parts.append(push_checks.push_services(running.push_services))
    if running.canary is not None and settings.canary is not None:
        parts.append(canary(running.canary, settings.canary.goal, now))
    if running.fcm_projects is not None and running.fcm_projects.several:
        parts.append(push_checks.fcm_projects(running.fcm_projects))
    return parts + [checks.certificate(name, file, now) for name, file in _certificates(settings).items()]


def _sealing(running: Running) -> list[Part]:
    """Return the part of the sealing keys, for a process that has some."""
    if running.keys is None:
        return []
    return [sealing_keys(running.keys, None if running.turnover is None else running.turnover.progress)]


def _certificates(settings: Settings) -> dict[str, Path]:
    """Return the certificates that the relay presents to phones and to Apple, by their keys in relay.toml."""
    shown = {}
    if settings.api is not None and settings.api.certificate_file is not None:
        shown["api.certificate_file"] = settings.api.certificate_file
    for account in () if settings.apns is None else settings.apns.accounts:
        if isinstance(account.authentication, ApnsCertificate):
            shown[account.file_setting] = account.authentication.file
    return shown
