"""The status of an installation: what its processes and its database say together, as lines and as JSON values."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from typing import Final

from eas_watcher.machine.memory import WatchState
from relay.domain.counted import counted
from relay.domain.model import SHARDS, Platform, RegistrationState
from relay.domain.ports.ops import OutboxLevel, WatchNode
from relay.ops.health import PartState
from relay.ops.readings import PartReading, Reading, worst_of
from relay.ops.timeline import clock_time, zone_of

MINUTE: Final = 60.0  # seconds
HALF: Final = 0.5
MOST: Final = 0.95
STATES: Final = {0: "serving", 1: "its mailboxes start or return", 2: "away"}
"""The meanings of the metric `relay_server_state`."""
MODE: Final = "push mode"
"""The part of health that says what shadow mode holds back."""
_ACCEPTED: Final = "relay_change_to_accepted_seconds"


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """What the database says of the whole installation."""

    mailboxes: Mapping[WatchState, int]
    registrations: Mapping[tuple[Platform, RegistrationState], int]
    outbox: Mapping[Platform, OutboxLevel]
    nodes: Sequence[WatchNode]
    now: datetime


@dataclass(frozen=True, slots=True)
class Process:
    """One process."""

    url: str
    role: str
    version: str
    state: PartState
    trouble: str
    pings_held: int
    shards: int
    lag: float
    """Worst lag of timers in the last half minute, in seconds."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A part of a process that is not well, and what to do."""

    url: str
    part: PartReading


@dataclass(frozen=True, slots=True)
class Server:
    """One mail server, as all processes see it."""

    url: str
    state: str
    heartbeat: float | None
    """Seconds of the last Pings that survived; None: not known yet."""
    cut: float | None
    """The idle timeout on the path in seconds; None: none is known."""
    waiting: int
    requests: int
    """Requests without an answer, most of them held Pings."""
    polled: int


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider, as all processes see it."""

    name: str
    state: PartState
    accepted_per_minute: float | None
    in_flight: int
    pending: int
    oldest: float
    """Age of the oldest push that waits, in seconds."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long changes took to their acceptance by a provider: upper bounds, in seconds."""

    pushes: int
    half: float
    most: float
    """Of 95 % of the pushes."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is so at one moment."""

    state: PartState
    processes: tuple[Process, ...]
    troubles: tuple[Trouble, ...]
    mailboxes: Mapping[str, int]
    registrations: int
    """Active ones."""
    changes_per_minute: float | None
    """None: there is no earlier reading to compare with; likewise the next two."""
    accepted_per_minute: float | None
    failed_per_minute: float | None
    latency: Latency | None
    """None: no push was accepted since the processes started."""
    servers: tuple[Server, ...]
    providers: tuple[Provider, ...]
    push_mode: str = ""
    """What push processes in shadow mode hold back; empty: nothing."""
    nodes: tuple[WatchNode, ...] = ()
    """The watch processes that share the shards, by the database."""
    database: str = ""
    """Why the database says nothing; empty: it did, or was not asked."""
    shards_free: int = 0
    """Shards that no watch process has."""


def combine(
    readings: Sequence[Reading],
    before: Mapping[str, Reading],
    view: DatabaseView | None,
    database_trouble: str = "",
) -> Status:
    """Return what readings of all processes say together; with those `before`, by URL, also what comes per minute."""
    fresh = [each for each in readings if not each.trouble]
    pace = _Pace(fresh, before)
    return Status(
        state=worst_of([*(each.state for each in readings), *([PartState.FAILED] if database_trouble else [])]),
        processes=tuple(map(_process, readings)),
        troubles=tuple(
            Trouble(each.url, part) for each in fresh for part in each.parts if part.state is not PartState.OK
        ),
        mailboxes=_mailboxes(fresh, view),
        registrations=_registrations(fresh, view),
        changes_per_minute=pace.of("relay_changes_total"),
        accepted_per_minute=pace.of("relay_pushes_total", outcome="delivered"),
        failed_per_minute=pace.failed(),
        latency=_latency(fresh, before),
        servers=tuple(_server(url, fresh) for url in _names(fresh, "relay_server_state", "url")),
        providers=tuple(_provider(name, fresh, pace, view) for name in _provider_names(fresh)),
        push_mode="; ".join(sorted({part.reason for each in fresh for part in each.parts if part.name == MODE})),
        nodes=() if view is None else tuple(view.nodes),
        database=database_trouble,
        shards_free=0 if view is None else SHARDS - sum(node.shards for node in view.nodes if node.left > 0),
    )


class _Pace:
    """What comes per minute, by two readings of each process."""

    def __init__(self, fresh: Iterable[Reading], before: Mapping[str, Reading]) -> None:
        pairs = [(each, before[each.url]) for each in fresh if each.url in before]
        self._pairs = [(now, then) for now, then in pairs if not then.trouble and now.at > then.at]

    def of(self, name: str, **labels: str) -> float | None:
        """Return the pace of a counter; a process that was restarted counts from 0."""
        if not self._pairs:
            return None
        return sum(
            _grown(now.total(name, **labels), then.total(name, **labels)) / (now.at - then.at) * MINUTE
            for now, then in self._pairs
        )

    def failed(self) -> float | None:
        """Return the pace of pushes that were not accepted."""
        every, accepted = self.of("relay_pushes_total"), self.of("relay_pushes_total", outcome="delivered")
        return None if every is None or accepted is None else max(0.0, every - accepted)


def _grown(now: float, then: float) -> float:
    return now - then if now >= then else now


def _process(reading: Reading) -> Process:
    return Process(
        reading.url,
        reading.label("relay_build_info", "role"),
        reading.label("relay_build_info", "version"),
        reading.state,
        reading.trouble,
        int(reading.total("relay_pings_held")),
        int(reading.total("relay_shards_leased")),
        reading.total("relay_loop_lag_seconds"),
    )


def _names(readings: Iterable[Reading], metric: str, label: str) -> list[str]:
    return sorted({each.labels[label] for reading in readings for each in reading.of(metric) if label in each.labels})


def _newest(readings: Iterable[Reading]) -> Reading | None:
    """Return the reading whose counts of the whole database are the newest."""
    return min(readings, key=lambda each: each.total("relay_counts_age_seconds"), default=None)


def _mailboxes(fresh: Sequence[Reading], view: DatabaseView | None) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    if view is not None:
        counts.update({state.value: number for state, number in view.mailboxes.items()})
    elif (newest := _newest(fresh)) is not None:
        for each in newest.of("relay_mailboxes"):
            counts[each.labels["state"]] += int(each.value)
    return dict(counts.most_common())


def _registrations(fresh: Sequence[Reading], view: DatabaseView | None) -> int:
    if view is not None:
        active = RegistrationState.ACTIVE
        return sum(number for (_, state), number in view.registrations.items() if state is active)
    newest = _newest(fresh)
    return 0 if newest is None else int(newest.total("relay_registrations", state=RegistrationState.ACTIVE.value))


def _latency(fresh: Sequence[Reading], before: Mapping[str, Reading]) -> Latency | None:
    """Return the latency since the readings before, or since the start if no push was accepted since then."""
    recent = _buckets(fresh, before)
    buckets = recent if recent and recent[-1][1] > 0 else _buckets(fresh, {})
    if not buckets or buckets[-1][1] <= 0:
        return None
    pushes = buckets[-1][1]
    return Latency(int(pushes), _within(buckets, pushes * HALF), _within(buckets, pushes * MOST))


def _buckets(fresh: Iterable[Reading], before: Mapping[str, Reading]) -> list[tuple[float, float]]:
    """Return how many pushes were accepted within each bound, by bound."""
    counts: dict[float, float] = {}
    for reading in fresh:
        for sign, each in ((1, reading), (-1, before.get(reading.url))):
            for sample in () if each is None else each.of(f"{_ACCEPTED}_bucket"):
                bound = float(sample.labels["le"])
                counts[bound] = counts.get(bound, 0.0) + sign * sample.value
    return sorted(counts.items())


def _within(buckets: Iterable[tuple[float, float]], number: float) -> float:
    return next(bound for bound, count in buckets if count >= number)


def _server(url: str, readings: Iterable[Reading]) -> Server:
    seen = [each for each in readings if each.of("relay_server_state", url=url)]
    worst = max(each.total("relay_server_state", url=url) for each in seen)

    def known(name: str, choose: Callable[[list[float]], float]) -> float | None:
        values = [sample.value for each in seen for sample in each.of(name, url=url)]
        return choose(values) if values else None

    def total(name: str) -> int:
        return int(sum(each.total(name, url=url) for each in seen))

    return Server(
        url,
        STATES.get(int(worst), ""),
        known("relay_server_heartbeat_seconds", max),
        known("relay_path_cut_seconds", min),
        total("relay_server_waiting"),
        total("relay_server_requests_open"),
        total("relay_server_polled"),
    )


def _provider_names(fresh: Sequence[Reading]) -> list[str]:
    """Return the providers that some process pushes through."""
    return _names(fresh, "relay_pushes_in_flight", "provider")


def _provider(name: str, fresh: Sequence[Reading], pace: _Pace, view: DatabaseView | None) -> Provider:
    def total(metric: str) -> float:
        return sum(each.total(metric, provider=name) for each in fresh)

    newest = _newest(fresh)
    pending = 0 if newest is None else int(newest.total("relay_outbox_pending", provider=name))
    oldest = 0.0 if newest is None else newest.total("relay_outbox_oldest_seconds", provider=name)
    level = None if view is None else view.outbox.get(Platform(name))
    if level is not None and view is not None:
        pending = level.pending
        oldest = 0.0 if level.oldest_at is None else max(0.0, (view.now - level.oldest_at).total_seconds())
    failed = total("relay_channel_faults") or total("relay_provider_outages")
    parts = (part.state for each in fresh for part in each.parts if part.name in {name, f"{name} tokens"})
    return Provider(
        name,
        PartState.FAILED if failed else worst_of(parts),
        pace.of("relay_pushes_total", provider=name, outcome="delivered"),
        int(total("relay_pushes_in_flight")),
        pending,
        oldest,
    )


# --- as lines and as JSON values


def lines(status: Status, now: datetime, zone: tzinfo | None = None) -> list[str]:
    """Return a status as lines for people."""
    some = ", ".join(f"{number} {state}" for state, number in status.mailboxes.items()) or "none"
    held = sum(each.pings_held for each in status.processes)
    said = [
        f"{status.state.value}  at {clock_time(now, zone)}, {zone_of(now, zone)}",
        "",
        f"mailboxes     {some}",
        f"Pings         {held} held",
        f"phones        {counted(status.registrations, 'registration')} active",
        f"per minute    {_rates(status)}",
        f"latency       {_latency_line(status.latency)}",
        *(f"server        {_server_line(each)}" for each in status.servers),
        *(f"provider      {_provider_line(each)}" for each in status.providers),
        *([f"push mode     {status.push_mode}"] if status.push_mode else []),
        *(f"process       {_process_line(each)}" for each in status.processes),
        *(f"watch node    {_node_line(each)}" for each in status.nodes),
    ]
    if status.nodes and status.shards_free:
        said.append(f"shards        {status.shards_free} of {SHARDS} belong to no watch process")
    if status.database:
        said.append(f"database      {status.database}")
    for each in status.troubles:
        part = each.part
        said += ["", f"{part.state.value}  {part.name}: {part.reason}", f"  since       {part.since} ({each.url})"]
        said += [f"  to do       {part.remedy}"] if part.remedy else []
    return said


def _rates(status: Status) -> str:
    if status.changes_per_minute is None:
        return "known with the next reading"
    accepted, failed = status.accepted_per_minute or 0.0, status.failed_per_minute or 0.0
    return f"{status.changes_per_minute:.0f} changes, {accepted:.0f} pushes accepted, {failed:.0f} not"


def _latency_line(latency: Latency | None) -> str:
    if latency is None:
        return "no push was accepted yet"
    half, most = (f"{bound:g} s" if bound != float("inf") else "longer than any bound" for bound in _bounds(latency))
    return f"from change to accepted: half within {half}, 95 % within {most}, of {counted(latency.pushes, 'push')}"


def _bounds(latency: Latency) -> tuple[float, float]:
    return latency.half, latency.most


def _server_line(server: Server) -> str:
    heartbeat = "no heartbeat learnt yet" if server.heartbeat is None else f"Pings last {server.heartbeat:.0f} s"
    cut = "" if server.cut is None else f", cut after {server.cut:.0f} s on the path"
    waiting = f", {server.waiting} wait for it" if server.waiting else ""
    polled = f", {server.polled} polled" if server.polled else ""
    return (
        f"{server.url}: {server.state}; {heartbeat}{cut}; {counted(server.requests, 'request')} open{waiting}{polled}"
    )


def _provider_line(provider: Provider) -> str:
    oldest = f", the oldest for {provider.oldest:.0f} s" if provider.pending else ""
    return f"{provider.name}: {provider.state.value}; {provider.in_flight} in flight; {provider.pending} wait{oldest}"


def _process_line(process: Process) -> str:
    if process.trouble:
        return f"{process.url} {process.trouble}"
    shards = f", {process.shards} shards" if process.shards else ""
    held = f"{process.pings_held} Pings held{shards}"
    return f"{process.url} {process.role} {process.version}: {process.state.value}; {held}; lag {process.lag:.2f} s"


def _node_line(node: WatchNode) -> str:
    state = "its lease has ended" if node.left <= 0 else "leaves" if node.leaving else "alive"
    return f"{node.id} {node.version}: {state}; {node.shards} shards"


def document(status: Status, now: datetime) -> dict[str, object]:
    """Return a status as JSON values; null where nothing is known."""
    values = asdict(status)
    troubles = [{"url": each.url, **asdict(each.part)} for each in status.troubles]
    latency = status.latency
    bounds = None
    if latency is not None:
        half, most = (None if bound == float("inf") else bound for bound in _bounds(latency))
        bounds = {"pushes": latency.pushes, "half_within_seconds": half, "most_within_seconds": most}
    return {"at": now.isoformat(timespec="seconds"), **values, "troubles": troubles, "latency": bounds}
