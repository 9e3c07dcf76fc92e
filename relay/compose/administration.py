"""Builds what administrators use of a process: the admin API and the console on the ops listener."""

from datetime import datetime
from functools import partial
from importlib.metadata import version

from relay.admin.administration import Administration
from relay.admin.audit import AuditKey
from relay.admin.keeping import open_keys
from relay.compose.running import Running, Take
from relay.console.app import Console
from relay.console.egress import EgressViewer
from relay.console.process import ProcessView
from relay.console.views import EgressPages, MailboxPages, ProcessPages
from relay.domain.errors import SettingsInvalid
from relay.domain.explanation import Findings
from relay.domain.model import Platform, Role
from relay.ops.admin_api import AdminApi
from relay.ops.counts import CountsCache
from relay.ops.health import Health
from relay.ops.metrics import Metrics
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.store.administration import SqlAdminStore
from relay.store.explanation import EVENTS, SqlExplanationStore


async def open_administration(
    running: Running, counts: CountsCache, health: Health, metrics: Metrics
) -> tuple[AdminApi | None, Console]:
    """Build the admin API, None for a role without it, and the console; both take the people of later configurations.

    Raises SettingsInvalid if somebody may act, and the keys of the audit log cannot be read or made.
    """
    settings, now = running.settings, running.now
    console = Console(_view(running, counts, health, metrics), now)
    acting: list[Administration] = []
    api = None

    def account_of(user: str) -> str:
        return running.timeline.account_of(user)  # with another key once the sealing key is replaced

    if settings.role in {Role.ALL, Role.API}:
        store = SqlAdminStore(
            running.database,
            running.wakeups,
            running.reads,
            settings.retention,
            account_of,
            settings.limits,
        )
        acting = [Administration(store, settings.server_names, (), now, via) for via in ("api", "console")]
        find = SqlExplanationStore(running.database, now).find

        async def explain(name: str, until: datetime | None) -> Findings:
            most = EVENTS if until is None else running.settings.retention.events_of_one
            return await find(name, account_of, most, until)

        api = AdminApi(acting[0], find, (), now)
        ProcessPages(console, acting[1])
        MailboxPages(console, acting[1], explain)
    else:
        ProcessPages(console, None)
    EgressPages(console, None if running.egress is None else partial(_viewer, running))

    async def prepare(found: Settings, _: Changes) -> Take:
        admin = found.admin
        keys = _keys(found) if acting and (admin.tokens or admin.proxy is not None) else ()

        async def take() -> None:
            for each in acting:
                each.keys, each.servers = keys, found.server_names
            if api is not None:
                api.take(admin.tokens)
            if admin.console:
                console.take(admin.tokens, admin.proxy)
            else:
                console.take((), None)

        return take

    await (await prepare(settings, Changes()))()
    running.takers.append(prepare)
    running.jobs.append(("history", console.process.history.run))
    return api, console


def _view(running: Running, counts: CountsCache, health: Health, metrics: Metrics) -> ProcessView:
    """Return what the console shows of this process; its history hears of each accepted push from now on."""
    view = ProcessView(
        role=running.settings.role,
        version=version("push-relay"),
        health=health,
        counts=counts,
        fleet=running.fleet,
        servers=lambda: {name: server.url for name, server in running.settings.servers.items()},
        admissions=lambda: [] if running.admissions is None else running.admissions.items(),
        connections=running.connections,
        pushes=running.pushes,
        accounts=lambda: () if running.apns_accounts is None else running.apns_accounts.states,
        services=lambda: running.push_services,
        projects=lambda: running.fcm_projects,
        clock=running.now,
    )

    def accepted(platform: Platform, seconds: float) -> None:
        metrics.on_accepted(platform, seconds)
        view.history.accepted(seconds)

    for stats in running.pushes.values():
        stats.on_accepted = accepted
    return view


def _viewer(running: Running) -> EgressViewer:
    logged = running.settings.egress
    return EgressViewer(logged.folder, running.settings.state_dir, logged.key_file)


def _keys(settings: Settings) -> tuple[AuditKey, ...]:
    """Return the keys of the audit log; raises SettingsInvalid."""
    try:
        return open_keys(settings.admin.audit_key_file)
    except OSError as error:
        wrong = f"cannot be read or made: {error.strerror or error}"
        remedy = "Name a file in a folder that only the relay may write."
        raise SettingsInvalid([("admin.audit_key_file", wrong, remedy)]) from error
