import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from eas_watcher.machine.memory import WatchState
from relay.domain.model import Platform, RegistrationState
from relay.domain.ports.ops import OutboxLevel, WatchNode
from relay.ops.health import PartState
from relay.ops.readings import PartReading, Reading, Sample
from relay.ops.status import DatabaseView, Latency, combine, document, lines

NOW: Final = datetime(2026, 11, 29, 14, tzinfo=UTC)
SERVER: Final = "https://mail.example.com/Microsoft-Server-ActiveSync"
A: Final = "http://a.example.com:9090"
B: Final = "http://b.example.com:9090"


def samples(**families: list[tuple[dict[str, str], float]]) -> dict[str, list[Sample]]:
    return {f"relay_{name}": [Sample(labels, value) for labels, value in given] for name, given in families.items()}


def watching(url: str = A, at: float = 0.0, changes: float = 0.0, **more: Any) -> Reading:
    found = samples(
        build_info=[({"role": "watch", "version": "1.2.3"}, 1)],
        pings_held=[({}, 7)],
        shards_leased=[({}, 128)],
        loop_lag_seconds=[({}, 0.01)],
        changes=[({"class": "email"}, changes)],
        changes_total=[({"class": "email"}, changes)],
        server_state=[({"url": SERVER}, 0)],
        server_requests_open=[({"url": SERVER, "protocol": "h2"}, 7)],
        counts_age_seconds=[({}, 5)],
        mailboxes=[({"state": "watching"}, 1)],
        **more,
    )
    return Reading(url, at, samples=found)


def pushing(at: float = 0.0, delivered: float = 0.0, refused: float = 0.0, fast: float = 0.0, **more: Any) -> Reading:
    found = samples(
        build_info=[({"role": "push", "version": "1.2.3"}, 1)],
        pushes_total=[
            ({"provider": "apns", "outcome": "delivered"}, delivered),
            ({"provider": "apns", "outcome": "refused"}, refused),
        ],
        pushes_in_flight=[({"provider": "apns"}, 2)],
        counts_age_seconds=[({}, 1)],
        mailboxes=[({"state": "watching", "reason": ""}, 9), ({"state": "waiting", "reason": "x"}, 1)],
        registrations=[({"provider": "apns", "state": "active"}, 12), ({"provider": "apns", "state": "proving"}, 3)],
        outbox_pending=[({"provider": "apns"}, 4)],
        outbox_oldest_seconds=[({"provider": "apns"}, 30)],
        change_to_accepted_seconds_bucket=[
            ({"provider": "apns", "le": "0.1"}, fast),
            ({"provider": "apns", "le": "1.0"}, delivered),
            ({"provider": "apns", "le": "+Inf"}, delivered),
        ],
        **more,
    )
    return Reading(B, at, samples=found)


VIEW: Final = DatabaseView(
    {WatchState.WATCHING: 20},
    {(Platform.APNS, RegistrationState.ACTIVE): 5, (Platform.FCM, RegistrationState.TOKEN_GONE): 1},
    {Platform.APNS: OutboxLevel(6, NOW - timedelta(seconds=90), 0)},
    (WatchNode("a-1", "1.2.3", 200, 9.0, leaving=False), WatchNode("b-2", "1.2.2", 56, -1.0, leaving=False)),
    NOW,
)


def test_what_several_processes_say_is_added_up() -> None:
    status = combine([watching(A), watching("http://c.example.com:9090"), pushing()], {}, None)

    assert status.state is PartState.OK
    assert sum(each.pings_held for each in status.processes) == 14
    assert [each.role for each in status.processes] == ["watch", "watch", "push"]
    (server,) = status.servers
    assert (server.state, server.requests, server.heartbeat, server.cut) == ("serving", 14, None, None)
    assert status.mailboxes == {"watching": 9, "waiting": 1}, "those of the newest counts"
    assert status.registrations == 12
    (apns,) = status.providers
    assert (apns.state, apns.in_flight, apns.pending, apns.oldest) == (PartState.OK, 2, 4, 30)
    assert status.changes_per_minute is status.accepted_per_minute is status.failed_per_minute is None


def test_two_readings_show_what_comes_per_minute() -> None:
    before = {each.url: each for each in (watching(changes=10), pushing(delivered=100, refused=3))}

    status = combine([watching(at=30, changes=12), pushing(at=30, delivered=110, refused=4)], before, None)

    assert status.changes_per_minute == 4
    assert (status.accepted_per_minute, status.failed_per_minute) == (20, 2)
    assert status.providers[0].accepted_per_minute == 20


def test_a_process_that_started_anew_counts_from_its_start() -> None:
    status = combine([watching(at=60, changes=5)], {A: watching(changes=1000)}, None)

    assert status.changes_per_minute == 5


def test_a_process_that_did_not_answer_before_has_no_pace() -> None:
    assert combine([watching(at=60)], {A: Reading(A, 0.0, trouble="away")}, None).changes_per_minute is None
    assert combine([watching(at=0)], {A: watching(at=0)}, None).changes_per_minute is None


def test_latency_is_that_of_the_pushes_since_the_last_reading() -> None:
    before = {B: pushing(delivered=100, fast=100)}

    assert combine([pushing(at=9, delivered=110, fast=106)], before, None).latency == Latency(10, 0.1, 1.0)
    assert combine([pushing(at=9, delivered=100, fast=100)], before, None).latency == Latency(100, 0.1, 0.1)
    assert combine([pushing()], {}, None).latency is None
    assert combine([watching()], {}, None).latency is None


def test_the_database_speaks_for_the_whole_installation() -> None:
    status = combine([pushing()], {}, VIEW)

    assert (status.mailboxes, status.registrations) == ({"watching": 20}, 5)
    assert (status.providers[0].pending, status.providers[0].oldest) == (6, 90)
    assert status.shards_free == 56, "those of a process whose lease has ended"
    empty = combine([pushing()], {}, replace(VIEW, outbox={Platform.APNS: OutboxLevel(0, None, 0)}))
    assert (empty.providers[0].pending, empty.providers[0].oldest) == (0, 0)


def test_the_worst_of_all_decides_and_troubles_come_with_their_remedies() -> None:
    slow = PartReading("event loop", PartState.DEGRADED, "14:00", "timers fire late", "give it more CPU")
    ill = replace(pushing(channel_faults=[({"provider": "apns"}, 1)]), parts=(slow,))

    status = combine([watching(), ill], {}, None)

    assert status.state is PartState.DEGRADED
    assert [(each.url, each.part.reason) for each in status.troubles] == [(B, "timers fire late")]
    assert status.providers[0].state is PartState.FAILED
    assert combine([watching(), Reading(B, 0.0, trouble="away")], {}, None).state is PartState.FAILED
    assert combine([watching()], {}, None, "does not answer").state is PartState.FAILED


def test_people_read_it() -> None:
    here = {"url": SERVER}
    server = watching(
        server_heartbeat_seconds=[(here, 240.0)],
        path_cut_seconds=[(here, 300.0)],
        server_waiting=[(here, 3.0)],
        server_polled=[(here, 2.0)],
    )
    slow = PartReading("event loop", PartState.DEGRADED, "14:00", "timers fire late", "give it more CPU")
    away = Reading("http://c.example.com:9090", 0.0, trouble="gives no answer in time")
    push = replace(pushing(at=60, delivered=1, fast=0), parts=(slow, replace(slow, name="rows", remedy="")))

    told = lines(combine([server, push, away], {B: pushing()}, VIEW), NOW, UTC)

    assert told == [
        "failed  at 2026-11-29 14:00:00, UTC",
        "",
        "mailboxes     20 watching",
        "Pings         7 held",
        "phones        5 registrations active",
        "per minute    0 changes, 1 pushes accepted, 0 not",
        "latency       from change to accepted: half within 1 s, 95 % within 1 s, of 1 push",
        (
            f"server        {SERVER}: serving; Pings last 240 s, cut after 300 s on the path; 7 requests open, "
            "3 wait for it, 2 polled"
        ),
        "provider      apns: ok; 2 in flight; 6 wait, the oldest for 90 s",
        f"process       {A} watch 1.2.3: ok; 7 Pings held, 128 shards; lag 0.01 s",
        f"process       {B} push 1.2.3: degraded; 0 Pings held; lag 0.00 s",
        "process       http://c.example.com:9090 gives no answer in time",
        "watch node    a-1 1.2.3: alive; 200 shards",
        "watch node    b-2 1.2.2: its lease has ended; 56 shards",
        "shards        56 of 256 belong to no watch process",
        "",
        "degraded  event loop: timers fire late",
        f"  since       14:00 ({B})",
        "  to do       give it more CPU",
        "",
        "degraded  rows: timers fire late",
        f"  since       14:00 ({B})",
    ]


def test_shadow_mode_is_told_once_for_all_processes_that_have_it() -> None:
    dark = (PartReading("push mode", PartState.OK, "14:00", "shadow: no push leaves", ""),)
    said = lines(combine([replace(pushing(), parts=dark), replace(watching(), parts=dark)], {}, None), NOW, UTC)

    assert [line for line in said if line.startswith("push mode")] == ["push mode     shadow: no push leaves"]
    assert combine([pushing()], {}, None).push_mode == ""


def test_people_read_what_is_not_known() -> None:
    told = lines(combine([replace(pushing(), samples={})], {}, None, "there is no database"), NOW, UTC)

    assert "mailboxes     none" in told
    assert "per minute    known with the next reading" in told
    assert "latency       no push was accepted yet" in told
    assert "database      there is no database" in told
    beyond = combine([pushing(change_to_accepted_seconds_sum=[], delivered=0)], {}, None)
    late = replace(beyond, latency=Latency(3, 0.5, float("inf")))
    assert "95 % within longer than any bound" in "\n".join(lines(late, NOW, UTC))


def test_programs_read_the_same() -> None:
    late = replace(combine([watching(), pushing()], {}, VIEW), latency=Latency(3, 0.5, float("inf")))

    told = json.loads(json.dumps(document(late, NOW)))

    assert told["at"] == "2026-11-29T14:00:00+00:00"
    assert told["latency"] == {"pushes": 3, "half_within_seconds": 0.5, "most_within_seconds": None}
    assert told["servers"][0]["url"] == SERVER
    assert told["nodes"][0] == {"id": "a-1", "version": "1.2.3", "shards": 200, "left": 9.0, "leaving": False}
    assert json.loads(json.dumps(document(replace(late, latency=None), NOW)))["latency"] is None
    leaving = replace(late, nodes=(replace(VIEW.nodes[0], leaving=True),))
    assert "watch node    a-1 1.2.3: leaves; 200 shards" in lines(leaving, NOW, UTC)
