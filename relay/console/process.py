"""What the console shows of the process that serves it: health, numbers, mail servers and providers."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.runtime.context import FleetStats
from eas_watcher.server.admission import ServerAdmission
from relay.console import words
from relay.console.history import RECENT, History, Point, Totals, per_minute, quantile
from relay.console.plots import Plot, Value, plot
from relay.domain.clock import Clock
from relay.domain.model import Environment, Platform, RegistrationState, Role
from relay.domain.outcome import OutcomeKind
from relay.domain.reasons import row_of, write_reason
from relay.ops.counts import Counts, CountsCache
from relay.ops.health import Health, PartState, Report, worst
from relay.ops.mail_server import PROTOCOLS, Used
from relay.push.fcm.projects import Projects
from relay.push.stats import AccountState, ChannelFault, Outage, PushStats
from relay.push.webpush.services import KnownService, Services

WATCHES: Final = frozenset({Role.ALL, Role.WATCH})
PUSHES: Final = frozenset({Role.ALL, Role.PUSH})
STATES: Final = {
    "serving": (PartState.OK, "serves"),
    "starting": (PartState.OK, "its mailboxes start"),
    "returning": (PartState.DEGRADED, "is back, its mailboxes return"),
    "away": (PartState.FAILED, "away"),
}
"""The states of an admission, how bad each is, and its words."""
TITLES: Final = {Platform.APNS: "APNs", Platform.FCM: "FCM", Platform.WEBPUSH: "WebPush"}
FAILED: Final = (OutcomeKind.REFUSED, OutcomeKind.RETRY_LATER, OutcomeKind.TOKEN_GONE, OutcomeKind.EXPIRED)
PERCENT: Final = 100
EVERYWHERE: Final = tuple(Environment)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its name."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The first page."""

    state: PartState
    reports: tuple[Report, ...]
    """All parts, the worst first."""
    figures: tuple[Figure, ...]
    plots: tuple[Plot, ...]
    mailboxes: tuple[tuple[str, str, int, str], ...]
    """State, reason, number and what to do, the most frequent first."""
    counted_at: datetime | None


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One mail server."""

    name: str
    """Its name in relay.toml; empty: Autodiscover found it."""
    url: str
    """Empty: relay.toml does not name it any more."""
    state: PartState
    words: str
    """How it is; empty: no request has gone there."""
    since: datetime | None
    maintained: datetime | None
    """Since when it is in maintenance; None: it is not."""
    facts: tuple[Figure, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account at Apple, or one Firebase project."""

    table: str
    apps: tuple[str, ...]
    """An app of one environment only has that in brackets."""
    trouble: str
    """Why it takes no push now; empty: it does."""
    remedy: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider."""

    name: str
    title: str
    state: PartState
    facts: tuple[Figure, ...]
    outcomes: tuple[Figure, ...]
    """Pushes since the start, by how they ended."""
    outages: tuple[Outage, ...]
    doubts: tuple[Outage, ...]
    """Of environments that are not away."""
    faults: tuple[ChannelFault, ...]
    refused: tuple[tuple[str, str, int, str, str], ...]
    """App, environment, registrations, reason and remedy of device tokens that it refuses."""
    accounts: tuple[AccountRow, ...]
    services: tuple[KnownService, ...]


class ProcessView:
    """Reads the parts of a process; it keeps nothing but the history."""

    def __init__(
        self,
        *,
        role: Role,
        version: str,
        health: Health,
        counts: CountsCache,
        fleet: FleetStats,
        servers: Callable[[], Mapping[str, str]],
        admissions: Callable[[], Iterable[tuple[str, ServerAdmission]]],
        connections: Mapping[str, Used],
        pushes: Mapping[Platform, PushStats],
        accounts: Callable[[], Sequence[AccountState]],
        services: Callable[[], Services | None],
        projects: Callable[[], Projects | None],
        clock: Clock,
    ) -> None:
        """Take the parts; those of other roles are empty.

        `servers` returns the URLs of relay.toml's by their names, `accounts` the accounts at Apple.
        """
        self.role = role
        self.version = version
        self._health = health
        self._counts = counts
        self._fleet = fleet
        self._servers = servers
        self._admissions = admissions
        self._connections = connections
        self._pushes = pushes
        self._accounts = accounts
        self._services = services
        self._projects = projects
        self._clock = clock
        self.history = History(self._totals, clock)

    @property
    def watches(self) -> bool:
        """True if this process watches mailboxes."""
        return self.role in WATCHES

    @property
    def pushes(self) -> bool:
        """True if this process sends pushes."""
        return self.role in PUSHES

    @property
    def state(self) -> PartState:
        """How the process is."""
        return worst(self._health.review())

    def _totals(self) -> Totals:
        pushes = {
            (platform.value, kind): count
            for platform, stats in self._pushes.items()
            for kind, count in stats.outcomes.items()
        }
        return Totals(len(self._fleet.held), sum(self._fleet.changes.values()), pushes)

    # --- the first page

    def overview(self, *, day: bool) -> Overview:
        """Return what the first page shows, with plots of the last day or the last hour."""
        reports = self._health.review()
        newest = self._counts.newest
        points = list(self.history.day if day else self.history.hour)
        return Overview(
            worst(reports),
            tuple(sorted(reports, key=_badness)),
            tuple(self._figures(newest)),
            tuple(self._plots(points)),
            () if newest is None else _by_reason(newest),
            None if newest is None else newest.read_at,
        )

    def _figures(self, newest: Counts | None) -> Iterable[Figure]:
        recent = list(self.history.hour)[-RECENT:]
        if self.watches:
            yield Figure("Pings held", words.number(len(self._fleet.held)))
            changes = per_minute(sum(point.changes for point in recent), recent)
            yield Figure("Changes a minute", _rate(changes), "last 5 minutes")
        if self.pushes:
            sent = per_minute(sum(point.sent(OutcomeKind.DELIVERED) for point in recent), recent)
            yield Figure("Pushes a minute", _rate(sent), "accepted, last 5 minutes")
            latencies: Counter[int] = Counter()
            for point in recent:
                latencies.update(point.latencies)
            half = quantile(latencies, 0.5)
            yield Figure(
                "Change to accepted", words.NOTHING if half is None else words.duration(half), "half of all pushes"
            )
        if newest is not None:
            total = sum(newest.mailboxes.values())
            watching = sum(count for (state, _), count in newest.mailboxes.items() if state is WatchState.WATCHING)
            yield Figure("Mailboxes watched", words.number(watching), f"of {words.number(total)}")
            active = sum(
                count for (_, state), count in newest.registrations.items() if state is RegistrationState.ACTIVE
            )
            registered = sum(newest.registrations.values())
            yield Figure("Active registrations", words.number(active), f"of {words.number(registered)}")
            waiting = sum(level.pending for level in newest.outbox.values())
            yield Figure("Pushes that wait", words.number(waiting), _oldest(newest, self._clock()))

    def _plots(self, points: Sequence[Point]) -> Iterable[Plot]:
        times = [point.at for point in points]
        if self.watches:
            held: list[Value] = [point.held for point in points]
            yield plot("Pings held", times, [("held", held)], words.number, least=5)
            changes: list[Value] = [per_minute(point.changes, [point]) for point in points]
            yield plot("Changes a minute", times, [("noticed", changes)], words.number, least=5)
        if self.pushes:
            accepted: list[Value] = [per_minute(point.sent(OutcomeKind.DELIVERED), [point]) for point in points]
            failed: list[Value] = [per_minute(point.sent(*FAILED), [point]) for point in points]
            yield plot("Pushes a minute", times, [("accepted", accepted), ("not", failed)], words.number, least=5)
            most: list[Value] = [quantile(point.latencies, 0.95) for point in points]
            half: list[Value] = [quantile(point.latencies, 0.5) for point in points]
            yield plot("Change to accepted", times, [("half", half), ("95 %", most)], words.duration, least=0.1)

    # --- mail servers

    def servers(self, *, maintained: Mapping[str, datetime] | None = None) -> list[ServerRow]:
        """Return the mail servers of relay.toml, others that are in maintenance, then those that Autodiscover found.

        `maintained` says since when which are in maintenance; None: what was counted last says it.
        """
        if maintained is None:
            maintained = {} if self._counts.newest is None else self._counts.newest.maintained
        known = dict(self._admissions()) if self.watches else {}
        configured = dict(self._servers())
        rows = [
            self._server(name, url, known.pop(url, None), maintained.get(name))
            for name, url in sorted(configured.items())
        ]
        removed = sorted(maintained.keys() - configured.keys())  # their mailboxes wait until the maintenance ends
        rows += [self._server(name, "", None, maintained[name]) for name in removed]
        return rows + [self._server("", url, admission, None) for url, admission in sorted(known.items())]

    def _server(self, name: str, url: str, admission: ServerAdmission | None, maintained: datetime | None) -> ServerRow:
        used = self._connections.get(url)
        facts = [
            Figure(
                f"Connections over {PROTOCOLS[protocol]}", words.number(count), f"{words.number(carried)} requests open"
            )
            for protocol, (count, carried) in ({} if used is None else used()).items()
            if count
        ]
        if admission is None:
            return ServerRow(name, url, PartState.OK, "", None, maintained, tuple(facts), ())
        state, text = STATES[admission.state]
        if admission.state == "away" and admission.detail:
            text = f"{text}: {admission.detail}"
        if admission.refusals.suspected:
            state, text = PartState.FAILED, f"refuses many credentials at once; otherwise {text}"
        lesson = admission.path.lesson
        cut, capacity = admission.path.cut_off, admission.capacity
        learnt = None if lesson is None else lesson.interval
        facts += [
            Figure("Mailboxes watched here", words.number(admission.watched)),
            Figure("Wait for it", words.number(admission.waiting)),
            Figure("Learnt heartbeat", words.NOTHING if learnt is None else words.duration(learnt)),
            Figure("Pings are cut after", words.NOTHING if cut is None else words.duration(cut.middle)),
        ]
        if capacity.crowded:
            facts.append(Figure("Polled, it holds no more", words.number(capacity.polled)))
        if len(admission.doubtful):
            facts.append(Figure("Credentials in doubt", words.number(len(admission.doubtful))))
        if admission.held_back:
            facts.append(Figure("Held back, it refuses many", words.number(admission.held_back)))
        shown = name or url
        remarks = tuple(filter(None, (capacity.describe(shown), admission.path.describe(shown))))
        return ServerRow(name, url, state, text, admission.since, maintained, tuple(facts), remarks)

    # --- providers

    def providers(self) -> list[ProviderRow]:
        """Return the providers that this process pushes to."""
        return [self._provider(platform, stats) for platform, stats in self._pushes.items()]

    def _provider(self, platform: Platform, stats: PushStats) -> ProviderRow:
        recent, newest = list(self.history.hour)[-RECENT:], self._counts.newest
        sent = sum(point.sent(OutcomeKind.DELIVERED, provider=platform.value) for point in recent)
        failed = sum(point.sent(*FAILED, provider=platform.value) for point in recent)
        facts = [
            Figure("Accepted a minute", _rate(per_minute(sent, recent)), "last 5 minutes"),
            Figure("Not accepted", _share(failed, sent + failed), "last 5 minutes"),
            Figure("Under way", words.number(stats.in_flight)),
        ]
        level = None if newest is None else newest.outbox.get(platform)
        if level is not None:
            oldest = "" if level.oldest_at is None else f"the oldest since {words.stamp(level.oldest_at)} UTC"
            facts.append(Figure("Wait", words.number(level.pending), oldest))
        bad = PartState.DEGRADED if stats.doubts else PartState.OK
        state = PartState.FAILED if stats.outages or stats.faults else bad
        tokens = [] if newest is None else [each for each in newest.tokens if each.platform is platform]
        services = self._services() if platform is Platform.WEBPUSH else None
        return ProviderRow(
            platform.value,
            TITLES[platform],
            state,
            tuple(facts),
            tuple(Figure(kind.value, words.number(count)) for kind, count in stats.outcomes.most_common()),
            tuple(stats.outages.values()),
            tuple(doubt for environment, doubt in stats.doubts.items() if environment not in stats.outages),
            tuple(stats.faults.values()),
            tuple(
                (each.app, each.environment.value, each.registrations, each.reason, each.remedy)
                for each in tokens
                if each.reason
            ),
            tuple(self._account_rows(platform, stats)),
            () if services is None else tuple(services.states),
        )

    def _account_rows(self, platform: Platform, stats: PushStats) -> Iterable[AccountRow]:
        projects = self._projects()
        match platform:
            case Platform.APNS:
                yield from (_account(each, stats) for each in self._accounts())
            case Platform.FCM if projects is not None:
                for table, project in projects.states.items():
                    own = (project.breaker.detail, project.remedy) if project.away else ("", "")
                    yield _account(AccountState(table, project.apps, EVERYWHERE, project.in_flight, *own), stats)
            case _:
                return

    def seconds_since(self, moment: float) -> float:
        """Return how long ago a moment of the loop's clock is."""
        return max(0.0, asyncio.get_running_loop().time() - moment)


def _account(account: AccountState, stats: PushStats) -> AccountRow:
    """Return the row of an account: its own trouble comes first, then that of its apps, then that of the provider.

    Two accounts may be for one app, each in one environment.
    """
    where, troubles = account.environments, [(account.reason, account.remedy)]
    faults = (each for each in stats.faults.values() if each.app in account.apps)
    troubles += [(each.reason, each.remedy) for each in faults if each.environment in where]
    troubles += [(each.reason, each.remedy) for each in stats.outages.values() if each.environment in where]
    trouble, remedy = next((each for each in troubles if each[0]), ("", ""))
    only = f" ({where[0]})" if len(where) == 1 else ""
    return AccountRow(account.table, tuple(f"{app}{only}" for app in account.apps), trouble, remedy, account.in_flight)


def _badness(report: Report) -> tuple[int, str]:
    order = (PartState.FAILED, PartState.DEGRADED, PartState.OK)
    return order.index(report.finding.state), report.part


def _by_reason(counts: Counts) -> tuple[tuple[str, str, int, str], ...]:
    found = sorted(counts.mailboxes.items(), key=lambda item: -item[1])
    return tuple(
        (state.value, write_reason(reason), count, row_of(state, reason).remedy)
        for (state, reason), count in found
        if count
    )


def _oldest(counts: Counts, now: datetime) -> str:
    moments = [level.oldest_at for level in counts.outbox.values() if level.oldest_at is not None]
    if not moments:
        return ""
    return f"the oldest for {words.duration(max(timedelta(), now - min(moments)).total_seconds())}"


def _rate(value: float | None) -> str:
    return words.NOTHING if value is None else words.number(value)


def _share(part: int, whole: int) -> str:
    return words.NOTHING if not whole else f"{words.number(PERCENT * part / whole)} %"
