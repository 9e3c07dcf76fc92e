"""The metrics of a process; a scrape reads values that exist already and never waits."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.runtime.context import FleetStats
from eas_watcher.server.admission import ServerAdmission
from relay.domain.canary import CanaryLog, Goal, Result, Stage
from relay.domain.clock import Clock
from relay.domain.model import Platform
from relay.domain.reasons import write_reason
from relay.domain.unreadable import UnreadableRows
from relay.http.admission import Admission, Refused
from relay.ops.configuration import Configuration
from relay.ops.counts import Counts, CountsCache
from relay.ops.health import Health, PartState
from relay.ops.lag import LoopLag
from relay.ops.mail_server import Used
from relay.push.egress.log import EgressState
from relay.push.fcm.projects import Projects
from relay.push.stats import PushStats
from relay.registration.receipts import ReceiptStats
from relay.security.certificates import read_expiry
from relay.watch.turnover import TurnoverProgress

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds until the provider accepted a push: the goal is about one second, an outage lasts hours."""
SHOWN_BUCKETS: Final = (*BUCKETS[2:], 28_800.0, 86_400.0)
"""Seconds until an app showed a push: a phone that is off overnight gets it in the morning."""
CANARY_BUCKETS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Seconds from the sending of a mail: the mail server takes a part of them."""
SERVER_STATES: Final = {"serving": 0, "starting": 1, "returning": 1, "away": 2}
SEVERITY: Final = {PartState.OK: 0, PartState.DEGRADED: 1, PartState.FAILED: 2}


class Metrics:
    """The registry of one process."""

    def __init__(
        self,
        *,
        version: str,
        role: str,
        counts: CountsCache,
        health: Health,
        lag: LoopLag,
        clocks: PeerClocks,
        fleet: FleetStats,
        requests: Callable[[], Mapping[tuple[str, str], int]],
        servers: Callable[[], Iterable[tuple[str, ServerAdmission]]],
        push: Mapping[Platform, PushStats],
        certificates: Mapping[str, Path],
        shards: Callable[[], int],
        nodes: Callable[[], int],
        clock: Clock,
        unreadable: UnreadableRows,
        listeners: Mapping[str, Admission] = MappingProxyType({}),
        refused: Mapping[str, int] = MappingProxyType({}),
        egress: EgressState | None = None,
        connections: Mapping[str, Used] = MappingProxyType({}),
        configuration: Configuration | None = None,
        fcm_projects: Callable[[], Projects | None] = lambda: None,
        receipts: ReceiptStats | None = None,
        canary: CanaryLog | None = None,
        goal: Callable[[], Goal | None] = lambda: None,
        turnover: TurnoverProgress | None = None,
    ) -> None:
        """Set up with what is measured; for a role without watches or pushes these are empty.

        `requests` returns how many requests to mail servers ended how, by command and result, `servers` the admissions
        to them with their URLs, `connections` what returns those to each by its URL, `shards` the number of leases
        held; `certificates` are those that the relay shows to others, by their keys in relay.toml, `listeners` the
        connections of clients by the name of their listener, `refused` the requests that the API refused because too
        many came, by problem code, `fcm_projects` returns the Firebase projects, `receipts` is what apps have shown,
        None for a role that they do not talk to, `canary` what became of the canary's mails, and `goal` what is wanted
        of them, `turnover` how far the process is with seals for former keys. Sets the hook `on_accepted` of every
        PushStats in `push`, and `on_shown` of `receipts`, and `on_stage` of `canary`.
        """
        self._clock = clock
        self._registry = CollectorRegistry()
        self._accepted = Histogram(
            "relay_change_to_accepted_seconds",
            "Time from the first change that a push reports until its provider accepted it.",
            ["provider"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        build = {"version": version, "role": role}
        self._registry.register(
            _RelayCollector(
                build,
                counts,
                health,
                lag,
                clocks,
                fleet,
                requests,
                servers,
                push,
                certificates,
                shards,
                nodes,
                clock,
                unreadable,
                listeners,
                refused,
                egress,
                connections,
                configuration,
                fcm_projects,
                receipts,
                turnover,
            )
        )
        if canary is not None:
            self._registry.register(_CanaryCollector(canary, goal, clock))
            canary.on_stage = self.on_stage
        self._stages = Histogram(
            "relay_canary_seconds",
            "Time from the sending of a canary mail until it was noticed, accepted by a provider, and shown.",
            ["stage", "provider"],
            buckets=CANARY_BUCKETS,
            registry=None if canary is None else self._registry,
        )
        self._shown = Histogram(
            "relay_change_to_shown_seconds",
            "Time from the first change that a push reports until an app showed it, as its receipt says.",
            ["provider"],
            buckets=SHOWN_BUCKETS,
            registry=None if receipts is None else self._registry,
        )
        if receipts is not None:
            for each in Platform:
                self._shown.labels(each.value)
            receipts.on_shown = self.on_shown
        ProcessCollector(registry=self._registry)
        self._accepted_by = {platform: self._accepted.labels(platform.value) for platform in push}
        """The part of each provider, looked up once."""
        for stats in push.values():
            stats.on_accepted = self.on_accepted

    def on_accepted(self, platform: Platform, seconds: float) -> None:
        """Measure a push that its provider has just accepted."""
        self._accepted_by[platform].observe(seconds)

    def on_stage(self, stage: Stage, platform: Platform | None, seconds: float) -> None:
        """Measure a stage of a canary mail."""
        self._stages.labels(stage.value, "" if platform is None else platform.value).observe(seconds)

    def on_shown(self, platform: Platform, seconds: float) -> None:
        """Measure a push that an app has shown."""
        self._shown.labels(platform.value).observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus, version 0.0.4."""
        return generate_latest(self._registry)


class _CanaryCollector(Collector):
    def __init__(self, canary: CanaryLog, goal: Callable[[], Goal | None], clock: Clock) -> None:
        self._canary = canary
        self._goal = goal
        self._clock = clock
        self._since = clock()

    def collect(self) -> Iterable[Metric]:
        """Return what became of the canary's mails, and what is wanted."""
        mails = CounterMetricFamily("relay_canary_mails", "Canary mails by what became of them.", labels=["result"])
        for result in Result:
            mails.add_metric([result.value], self._canary.results[result])
        yield mails
        yield GaugeMetricFamily(
            "relay_canary_last_shown_timestamp_seconds",
            "When a canary mail was last shown, or this process was started.",
            (self._canary.last_shown_at or self._since).timestamp(),
        )
        goal, share = self._goal(), self._canary.share(self._clock())
        if goal is not None:
            yield GaugeMetricFamily("relay_canary_interval_seconds", "Time between two canary mails.", goal.interval)
            yield GaugeMetricFamily("relay_canary_goal_ratio", "Part of them that shall be shown in time.", goal.share)
        if share is not None:
            yield GaugeMetricFamily(
                "relay_canary_in_time_ratio", "Part of the canary mails of the last day that were shown in time.", share
            )


class _RelayCollector(Collector):
    def __init__(
        self,
        build: Mapping[str, str],
        counts: CountsCache,
        health: Health,
        lag: LoopLag,
        clocks: PeerClocks,
        fleet: FleetStats,
        requests: Callable[[], Mapping[tuple[str, str], int]],
        servers: Callable[[], Iterable[tuple[str, ServerAdmission]]],
        push: Mapping[Platform, PushStats],
        certificates: Mapping[str, Path],
        shards: Callable[[], int],
        nodes: Callable[[], int],
        clock: Clock,
        unreadable: UnreadableRows,
        listeners: Mapping[str, Admission],
        refused: Mapping[str, int],
        egress: EgressState | None,
        connections: Mapping[str, Used],
        configuration: Configuration | None,
        fcm_projects: Callable[[], Projects | None],
        receipts: ReceiptStats | None,
        turnover: TurnoverProgress | None,
    ) -> None:
        self._receipts = receipts
        self._turnover = turnover
        self._fcm_projects = fcm_projects
        self._egress = egress
        self._configuration = configuration
        self._connections = connections
        self._build = build
        self._counts = counts
        self._health = health
        self._lag = lag
        self._clocks = clocks
        self._fleet = fleet
        self._requests = requests
        self._servers = servers
        self._push = push
        self._certificates = certificates
        self._shards = shards
        self._nodes = nodes
        self._clock = clock
        self._unreadable = unreadable
        self._listeners = listeners
        self._refused = refused

    def collect(self) -> Iterable[Metric]:
        """Return every metric with its present value."""
        build = GaugeMetricFamily(
            "relay_build_info", "Always 1; version and role of this process.", labels=[*self._build]
        )
        build.add_metric([*self._build.values()], 1)
        yield build
        yield GaugeMetricFamily("relay_loop_lag_seconds", "Worst lag of timers in the last 30 s.", self._lag.worst)
        differences = GaugeMetricFamily(
            "relay_clock_ahead_seconds", "By how much this host's clock is ahead of a peer's.", labels=["peer"]
        )
        for peer, ahead in self._clocks.differences().items():
            differences.add_metric([peer], ahead)
        yield differences
        parts = GaugeMetricFamily("relay_part_state", "0 ok, 1 degraded, 2 failed; see /healthz.", labels=["part"])
        for report in self._health.review():
            parts.add_metric([report.part], SEVERITY[report.finding.state])
        yield parts
        yield from self._listening()
        yield from self._watching()
        if self._turnover is not None:
            yield from self._seals(self._turnover)
        yield from self._pushing()
        if self._receipts is not None:
            receipts = CounterMetricFamily("relay_push_receipts", "Pushes that apps have shown.", labels=["provider"])
            for platform in Platform:
                receipts.add_metric([platform.value], self._receipts.taken[platform])
            yield receipts
        if self._egress is not None:
            yield from self._logging(self._egress)
        if self._configuration is not None:
            yield from self._configured(self._configuration)
        yield self._expiring()
        yield self._set_aside()
        newest = self._counts.newest
        yield GaugeMetricFamily(
            "relay_database_up", "Whether the database answered last time.", float(self._counts.reachable)
        )
        if newest is not None:
            yield from self._counted(newest)

    def _listening(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily(
            "relay_connections_open", "Connections of clients, from their acceptance on.", labels=["listener"]
        )
        refused = CounterMetricFamily(
            "relay_connections_refused", "Connections closed before a request.", labels=["listener", "kind"]
        )
        for listener, door in self._listeners.items():
            connections.add_metric([listener], door.open)
            for kind in Refused:
                refused.add_metric([listener, kind.value], door.refused[kind])
        requests = CounterMetricFamily(
            "relay_api_requests_refused", "Requests refused because too many came, by problem code.", labels=["code"]
        )
        for code, count in self._refused.items():
            requests.add_metric([code], count)
        yield from (connections, refused, requests)

    def _watching(self) -> Iterable[Metric]:
        held = list(self._fleet.held.values())
        yield GaugeMetricFamily("relay_pings_held", "Pings that mail servers hold for this process.", len(held))
        heartbeats = GaugeMetricFamily(
            "relay_heartbeat_seconds", "Heartbeat of the Pings held now.", labels=["quantity"]
        )
        if held:
            for name, value in (("minimum", min(held)), ("average", sum(held) / len(held)), ("maximum", max(held))):
                heartbeats.add_metric([name], value)
        yield heartbeats
        changes = CounterMetricFamily("relay_changes", "New items that mail servers reported.", labels=["class"])
        for cls, count in list(self._fleet.changes.items()):
            changes.add_metric([cls.value], count)
        yield changes
        requests = CounterMetricFamily(
            "relay_eas_requests", "ActiveSync requests by their outcome.", labels=["command", "outcome"]
        )
        for (command, outcome), count in list(self._requests().items()):
            requests.add_metric([command, outcome], count)
        yield requests
        yield from self._admissions()
        yield GaugeMetricFamily("relay_shards_leased", "Shards of mailboxes that this process owns.", self._shards())
        yield GaugeMetricFamily("relay_watch_nodes", "Watch processes that share the shards.", self._nodes())

    def _seals(self, turnover: TurnoverProgress) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "relay_seals_renewed", "Seals replaced by such for the present key.", turnover.renewed
        )
        yield GaugeMetricFamily("relay_seals_left", "Seals that are still for another key.", turnover.left)
        yield GaugeMetricFamily("relay_seals_closed", "Of these, seals that no key here opens.", turnover.closed)

    def _admissions(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "relay_server_state", "0 serving, 1 its mailboxes start or return, 2 away.", labels=["url"]
        )
        waiting = GaugeMetricFamily("relay_server_waiting", "Mailboxes that wait for their server.", labels=["url"])
        refused = GaugeMetricFamily(
            "relay_server_refused", "Mailboxes held back while their server refuses many.", labels=["url"]
        )
        doubtful = GaugeMetricFamily(
            "relay_server_doubtful",
            "Mailboxes refused three times, perhaps by a fault of their server.",
            labels=["url"],
        )
        cuts = GaugeMetricFamily(
            "relay_path_cut_seconds", "Idle timeout on the path, where one is known.", labels=["url"]
        )
        heartbeats = GaugeMetricFamily(
            "relay_server_heartbeat_seconds", "Heartbeat that Pings to the server survived last.", labels=["url"]
        )
        capacities = GaugeMetricFamily(
            "relay_server_pings_limit", "Pings the server holds at once, where mailboxes take turns.", labels=["url"]
        )
        polled = GaugeMetricFamily(
            "relay_server_polled", "Mailboxes polled because their server holds no more Pings.", labels=["url"]
        )
        for url, admission in self._servers():
            if admission.capacity.limit is not None and admission.capacity.crowded:
                capacities.add_metric([url], admission.capacity.limit)
            polled.add_metric([url], admission.capacity.polled)
            states.add_metric([url], SERVER_STATES[admission.state])
            waiting.add_metric([url], admission.waiting)
            refused.add_metric([url], admission.held_back)
            doubtful.add_metric([url], len(admission.doubtful))
            lesson = admission.path.lesson
            if lesson is not None and lesson.interval is not None:
                heartbeats.add_metric([url], lesson.interval)
            if admission.path.cut_off is not None:
                cuts.add_metric([url], admission.path.cut_off.middle)
        yield from (states, waiting, refused, doubtful, cuts, heartbeats, capacities, polled)
        yield from self._connecting()

    def _connecting(self) -> Iterable[Metric]:
        labels = ["url", "protocol"]
        connections = GaugeMetricFamily("relay_server_connections", "Connections to a mail server.", labels=labels)
        requests = GaugeMetricFamily(
            "relay_server_requests_open",
            "Requests to a mail server without an answer, held Pings above all.",
            labels=labels,
        )
        for url, used in self._connections.items():
            for protocol, (count, carried) in used().items():
                connections.add_metric([url, protocol], count)
                requests.add_metric([url, protocol], carried)
        yield from (connections, requests)

    def _pushing(self) -> Iterable[Metric]:
        pushes = CounterMetricFamily("relay_pushes", "Pushes by the provider's answer.", labels=["provider", "outcome"])
        lowered = CounterMetricFamily(
            "relay_pushes_lowered",
            "Pushes sent without waking their phone, which was woken too often.",
            labels=["provider"],
        )
        shadowed = CounterMetricFamily(
            "relay_push_shadowed",
            "Pushes that were due and did not leave, since push.mode is shadow.",
            labels=["provider"],
        )
        in_flight = GaugeMetricFamily("relay_pushes_in_flight", "Pushes sent and not answered.", labels=["provider"])
        faults = GaugeMetricFamily("relay_channel_faults", "Apps that cannot be pushed to now.", labels=["provider"])
        outages = GaugeMetricFamily(
            "relay_provider_outages", "Environments of the provider that serve no app now.", labels=["provider"]
        )
        for platform, stats in self._push.items():
            for outcome, count in list(stats.outcomes.items()):
                pushes.add_metric([platform.value, outcome.value], count)
            lowered.add_metric([platform.value], stats.lowered)
            shadowed.add_metric([platform.value], stats.shadowed)
            in_flight.add_metric([platform.value], stats.in_flight)
            faults.add_metric([platform.value], len(stats.faults))
            outages.add_metric([platform.value], len(stats.outages))
        yield from (pushes, lowered, shadowed, in_flight, faults, outages)
        yield from self._projects()

    def _projects(self) -> Iterable[Metric]:
        projects = self._fcm_projects()
        if projects is None:
            return
        pushes = CounterMetricFamily(
            "relay_fcm_project_pushes", "Pushes by Firebase project and FCM's answer.", labels=["account", "outcome"]
        )
        in_flight = GaugeMetricFamily(
            "relay_fcm_project_pushes_in_flight", "Pushes of a Firebase project without an answer.", labels=["account"]
        )
        away = GaugeMetricFamily(
            "relay_fcm_project_away", "1 if a Firebase project takes no push now.", labels=["account"]
        )
        for table, project in projects.states.items():
            for outcome, count in list(project.outcomes.items()):
                pushes.add_metric([table, outcome.value], count)
            in_flight.add_metric([table], project.in_flight)
            away.add_metric([table], project.away)
        yield from (pushes, in_flight, away)

    def _logging(self, egress: EgressState) -> Iterable[Metric]:
        yield GaugeMetricFamily("relay_egress_writable", "1 if what leaves can be logged.", 0 if egress.trouble else 1)
        yield CounterMetricFamily("relay_egress_changed", "Changes of the egress log by others.", egress.incidents)
        if egress.free is not None:
            yield GaugeMetricFamily("relay_egress_free_bytes", "Room on the disk of the egress log.", egress.free)

    def _configured(self, state: Configuration) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "relay_config_reload_success", "1 if the configuration on disk is in use.", 0 if state.faults else 1
        )
        yield GaugeMetricFamily(
            "relay_config_reload_timestamp_seconds",
            "When the configuration in use was read.",
            state.taken_at.timestamp(),
        )
        yield GaugeMetricFamily(
            "relay_config_reload_restart_needed", "Changed settings that need a restart.", len(state.waiting)
        )
        reloads = CounterMetricFamily("relay_config_reloads", "Reloads by what came of them.", labels=["result"])
        for result, count in state.reloads.items():
            reloads.add_metric([result], count)
        yield reloads

    def _expiring(self) -> Metric:
        left = GaugeMetricFamily(
            "relay_certificate_expires_seconds",
            "Time until a certificate expires; negative after that.",
            labels=["key"],
        )
        now = self._clock()
        for key, file in self._certificates.items():
            try:
                left.add_metric([key], (read_expiry(file) - now).total_seconds())
            except (OSError, ValueError):
                continue  # health reports it
        return left

    def _set_aside(self) -> Metric:
        rows = GaugeMetricFamily("relay_rows_aside", "Rows that this process cannot read.", labels=["table"])
        for table, count in Counter(row.table for row in self._unreadable.rows()).items():
            rows.add_metric([table], count)
        return rows

    def _counted(self, counts: Counts) -> Iterable[Metric]:
        now = self._clock()
        mailboxes = GaugeMetricFamily("relay_mailboxes", "Mailboxes in the database.", labels=["state", "reason"])
        for (state, reason), count in counts.mailboxes.items():
            mailboxes.add_metric([state.value, write_reason(reason)], count)
        registrations = GaugeMetricFamily(
            "relay_registrations", "Registrations in the database.", labels=["provider", "state"]
        )
        for (platform, registration_state), count in counts.registrations.items():
            registrations.add_metric([platform.value, registration_state.value], count)
        pending = GaugeMetricFamily("relay_outbox_pending", "Pushes that wait.", labels=["provider"])
        failing = GaugeMetricFamily("relay_outbox_failing", "Of these, failed at least once.", labels=["provider"])
        oldest = GaugeMetricFamily("relay_outbox_oldest_seconds", "Age of the oldest of these.", labels=["provider"])
        parked = GaugeMetricFamily(
            "relay_outbox_aside", "Pushes set aside because they break the relay.", labels=["provider"]
        )
        for platform, level in counts.outbox.items():
            pending.add_metric([platform.value], level.pending)
            failing.add_metric([platform.value], level.failing)
            age = 0.0 if level.oldest_at is None else max(0.0, (now - level.oldest_at).total_seconds())
            oldest.add_metric([platform.value], age)
            parked.add_metric([platform.value], level.parked)
        logins = GaugeMetricFamily(
            "relay_refused_logins", "Credentials of apps refused in the lock-out window.", labels=["server"]
        )
        most = GaugeMetricFamily("relay_refused_logins_most", "How many of them the settings bear.", labels=["server"])
        for server, found in counts.refused_logins.items():
            logins.add_metric([server], found.refused)
            most.add_metric([server], found.most)
        yield from (logins, most)
        refused = GaugeMetricFamily(
            "relay_tokens_refused",
            "Registrations in quarantine.",
            labels=["provider", "app", "environment", "reason"],
        )
        for tokens in counts.tokens:
            if tokens.reason:
                names = [tokens.platform.value, tokens.app, tokens.environment.value, tokens.reason]
                refused.add_metric(names, tokens.registrations)
        yield from (mailboxes, registrations, pending, failing, oldest, parked, refused)
        age = (now - counts.read_at).total_seconds()
        yield GaugeMetricFamily("relay_counts_age_seconds", "Age of what was counted in the database.", max(0.0, age))
