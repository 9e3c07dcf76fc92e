"""Metrics with all objects that they measure, for tests to fill and to read."""

import pathlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from prometheus_client.parser import text_string_to_metric_families

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.runtime.context import FleetStats
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.idle_timeout import IdleTimeout, PathKnowledge
from relay.domain.canary import FEWEST, CanaryLog, Goal, Judgement, Result, Stage
from relay.domain.model import Environment, Platform, RegistrationState
from relay.domain.outcome import OutcomeKind
from relay.domain.ports.ops import OutboxLevel, RefusedLogins, TokenLevel
from relay.domain.unreadable import UnreadableRows
from relay.http.admission import Admission
from relay.ops import checks
from relay.ops.configuration import Configuration
from relay.ops.counts import CountsCache
from relay.ops.health import Health
from relay.ops.lag import LoopLag
from relay.ops.metrics import Metrics
from relay.push.egress.keeping import Incident
from relay.push.fcm.projects import Projects
from relay.push.stats import PushStats
from relay.registration.receipts import ReceiptStats
from tests.fakes.ops import NOON, HandClock, OpsCounts


def cut_admission() -> ServerAdmission:
    """Return the admission to a server whose Pings are cut after 300 s."""
    return ServerAdmission(
        20.0, 8, Random(1), lambda: NOON, PathKnowledge(cut_off=IdleTimeout(299.0, 301.0), remembered=240)
    )


@dataclass
class QuietEgress:
    """The state of an egress log in which nothing happens until a test changes it."""

    trouble: str = ""
    incidents: int = 0
    free: int | None = 5_000_000_000
    incident: Incident | None = None


class Bench:
    """Metrics with all objects that they measure."""

    def __init__(self, certificates: Mapping[str, pathlib.Path] | None = None) -> None:
        self.clock = HandClock()
        self.store = OpsCounts()
        self.counts = CountsCache(self.store, self.clock)
        self.fleet = FleetStats()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.servers: dict[str, ServerAdmission] = {}
        self.apns = PushStats()
        self.egress = QuietEgress()
        self.lag = LoopLag()
        self.clocks = PeerClocks(self.clock)
        self.unreadable = UnreadableRows()
        self.listeners = {"api": Admission()}
        self.configuration = Configuration(NOON)
        self.fcm_projects: Projects | None = None
        self.receipts = ReceiptStats()
        self.canary = CanaryLog()
        self.goal: Goal | None = Goal(frozenset({Platform.WEBPUSH}))
        self.metrics = Metrics(
            version="1.2.3",
            role="all",
            counts=self.counts,
            health=Health([checks.database(self.counts, self.clock)], self.clock),
            lag=self.lag,
            clocks=self.clocks,
            fleet=self.fleet,
            requests=lambda: self.requests,
            servers=self.servers.items,
            push={Platform.APNS: self.apns},
            certificates=certificates or {},
            shards=lambda: 256,
            nodes=lambda: 3,
            clock=self.clock,
            unreadable=self.unreadable,
            listeners=self.listeners,
            refused={"busy": 2},
            egress=self.egress,
            configuration=self.configuration,
            fcm_projects=lambda: self.fcm_projects,
            receipts=self.receipts,
            canary=self.canary,
            goal=lambda: self.goal,
            connections={"https://mail.example.com/eas": lambda: {"http/1.1": (2, 1), "h2": (3, 250)}},
        )

    def samples(self) -> dict[str, float]:
        """Return all samples as {'name{label=value}': value}, labels in order of their names."""
        found = {}
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    async def fill(self) -> None:
        """Let every metric have a sample."""
        self.fleet.held = {MailboxId("a"): 300}
        self.fleet.changes[CollectionClass.EMAIL] = 1
        self.requests["Ping", "answered"] = 1
        self.clocks.answered("mail.example.com", "Sat, 28 Nov 2026 12:00:00 GMT", 0.1)
        self.servers["https://mail.example.com/eas"] = cut_admission()
        self.apns.outcomes[OutcomeKind.DELIVERED] = 1
        self.unreadable.looked("mailbox", "mb-1", {"mb-1": "state: 'bogus'"})
        self.store.mailboxes = {(WatchState.WATCHING, None): 1}
        self.store.registrations = {(Platform.APNS, RegistrationState.ACTIVE): 1}
        refused = TokenLevel(Platform.APNS, "com.example.mail", Environment.SANDBOX, "BadDeviceToken", "look", 2)
        self.store.token_levels = [refused]
        self.store.levels = {Platform.APNS: OutboxLevel(1, NOON - timedelta(seconds=1), 0)}
        for _ in range(FEWEST):
            self.canary.note(Judgement(Result.SHOWN, {(Stage.SHOWN, Platform.WEBPUSH): 1.0}), NOON)
        self.store.logins = {"main": RefusedLogins(1, 100, 30, wait=False)}
        await self.counts.refresh()
