from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
import trustme

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.reasons import Reason
from relay.domain.canary import Judgement, Result, Stage
from relay.domain.model import Environment, Platform, RegistrationState
from relay.domain.outcome import Delivered, OutcomeKind, RetryLater
from relay.domain.ports.ops import OutboxLevel, RefusedLogins
from relay.http.admission import Refused
from relay.push.breaker import IN_A_ROW
from relay.push.fcm.config import FcmAccount
from relay.push.fcm.projects import Projects
from relay.push.stats import ChannelFault
from tests.fakes.metrics import Bench, cut_admission
from tests.fakes.ops import NOON
from tests.unit.relay.push.pushes import due_push


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_apps_have_shown_is_counted_and_measured(bench: Bench) -> None:
    bench.receipts.taken[Platform.WEBPUSH] += 1
    bench.receipts.on_shown(Platform.WEBPUSH, 0.7)

    samples = bench.samples()

    assert samples["relay_push_receipts_total{provider=webpush}"] == 1
    assert samples["relay_push_receipts_total{provider=apns}"] == 0
    assert samples["relay_change_to_shown_seconds_bucket{le=0.5,provider=webpush}"] == 0
    assert samples["relay_change_to_shown_seconds_bucket{le=1.0,provider=webpush}"] == 1
    assert samples["relay_change_to_shown_seconds_count{provider=apns}"] == 0


def test_the_canary_has_its_stages_its_goal_and_what_became_of_its_mails(bench: Bench) -> None:
    started = bench.samples()
    assert started["relay_canary_last_shown_timestamp_seconds{}"] == NOON.timestamp()
    assert started["relay_canary_interval_seconds{}"] == 300
    assert started["relay_canary_goal_ratio{}"] == 0.95
    assert "relay_canary_in_time_ratio{}" not in started

    later = NOON + timedelta(minutes=5)
    for result in (Result.SHOWN, Result.SHOWN, Result.SHOWN, Result.NOT_SHOWN):
        shown = Judgement(result, {(Stage.NOTICED, None): 1.5, (Stage.SHOWN, Platform.WEBPUSH): 2.5})
        bench.canary.note(shown, later)

    samples = bench.samples()
    assert samples["relay_canary_mails_total{result=shown}"] == 3
    assert samples["relay_canary_mails_total{result=not-shown}"] == 1
    assert samples["relay_canary_mails_total{result=late}"] == 0
    assert samples["relay_canary_last_shown_timestamp_seconds{}"] == later.timestamp()
    assert samples["relay_canary_in_time_ratio{}"] == 0.75
    assert samples["relay_canary_seconds_bucket{le=2.0,provider=,stage=noticed}"] == 4
    assert samples["relay_canary_seconds_bucket{le=2.0,provider=webpush,stage=shown}"] == 0
    bench.goal = None
    assert "relay_canary_goal_ratio{}" not in bench.samples()


def test_certificates_have_the_time_until_they_expire_and_unreadable_ones_have_none(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("relay.example.com", not_after=NOON + timedelta(days=3))
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "apns.pem")
    bench = Bench({"apns.certificate_file": tmp_path / "apns.pem", "api.certificate_file": tmp_path / "none.pem"})

    samples = bench.samples()

    left = {name: value for name, value in samples.items() if name.startswith("relay_certificate")}
    assert left == {"relay_certificate_expires_seconds{key=apns.certificate_file}": 3 * 86_400}


def test_the_process_is_measured_without_any_database(bench: Bench) -> None:
    bench.fleet.held = {MailboxId("a"): 300, MailboxId("b"): 600}
    bench.fleet.changes[CollectionClass.EMAIL] = 4
    bench.requests["Ping", "answered"] = 5
    bench.requests["Sync", "Unreachable"] = 6
    bench.servers["https://mail.example.com/eas"] = cut_admission()
    bench.apns.outcomes[OutcomeKind.DELIVERED] = 7
    bench.apns.lowered = 3
    bench.apns.shadowed = 4
    bench.apns.in_flight = 8
    bench.apns.faults["x", Environment.SANDBOX] = ChannelFault("x", Environment.SANDBOX, "r", "m", NOON)
    bench.lag._lags.append(0.25)
    bench.listeners["api"].enter("192.0.2.1")
    bench.listeners["api"].refused[Refused.ADDRESS] = 5
    bench.clocks.answered("mail.example.com", f"{NOON - timedelta(seconds=90):%a, %d %b %Y %H:%M:%S} GMT", 0.1)

    samples = bench.samples()

    assert {
        "relay_build_info{role=all,version=1.2.3}": 1,
        "relay_pings_held{}": 2,
        "relay_heartbeat_seconds{quantity=minimum}": 300,
        "relay_heartbeat_seconds{quantity=average}": 450,
        "relay_heartbeat_seconds{quantity=maximum}": 600,
        "relay_changes_total{class=email}": 4,
        "relay_eas_requests_total{command=Ping,outcome=answered}": 5,
        "relay_eas_requests_total{command=Sync,outcome=Unreachable}": 6,
        "relay_server_state{url=https://mail.example.com/eas}": 0,
        "relay_server_waiting{url=https://mail.example.com/eas}": 0,
        "relay_server_refused{url=https://mail.example.com/eas}": 0,
        "relay_path_cut_seconds{url=https://mail.example.com/eas}": 300,
        "relay_server_heartbeat_seconds{url=https://mail.example.com/eas}": 240,
        "relay_server_connections{protocol=h2,url=https://mail.example.com/eas}": 3,
        "relay_server_connections{protocol=http/1.1,url=https://mail.example.com/eas}": 2,
        "relay_server_requests_open{protocol=h2,url=https://mail.example.com/eas}": 250,
        "relay_server_requests_open{protocol=http/1.1,url=https://mail.example.com/eas}": 1,
        "relay_server_polled{url=https://mail.example.com/eas}": 0,
        "relay_pushes_total{outcome=delivered,provider=apns}": 7,
        "relay_pushes_lowered_total{provider=apns}": 3,
        "relay_push_shadowed_total{provider=apns}": 4,
        "relay_pushes_in_flight{provider=apns}": 8,
        "relay_channel_faults{provider=apns}": 1,
        "relay_shards_leased{}": 256,
        "relay_watch_nodes{}": 3,
        "relay_loop_lag_seconds{}": 0.25,
        "relay_connections_open{listener=api}": 1,
        "relay_api_requests_refused_total{code=busy}": 2,
        "relay_connections_refused_total{kind=address,listener=api}": 5,
        "relay_connections_refused_total{kind=full,listener=api}": 0,
        "relay_clock_ahead_seconds{peer=mail.example.com}": 90,
        "relay_server_doubtful{url=https://mail.example.com/eas}": 0,
        "relay_database_up{}": 0,
        "relay_part_state{part=database}": 2,
    }.items() <= samples.items()
    assert not any(name.startswith(("relay_mailboxes", "relay_outbox")) for name in samples)
    assert any(name.startswith("process_") for name in samples)


async def test_counts_of_the_database_are_exposed_with_their_age(bench: Bench) -> None:
    bench.store.mailboxes = {(WatchState.WATCHING, None): 9, (WatchState.WAITING, Reason.UNREACHABLE): 1}
    bench.store.registrations = {(Platform.FCM, RegistrationState.ACTIVE): 3}
    bench.store.levels = {
        Platform.APNS: OutboxLevel(5, NOON - timedelta(seconds=50), 2),
        Platform.FCM: OutboxLevel(0, None, 0),
    }
    bench.store.logins = {"main": RefusedLogins(7, 100, 30, wait=False)}
    await bench.counts.refresh()
    bench.clock.forward(10)

    assert {
        "relay_mailboxes{reason=,state=watching}": 9,
        "relay_mailboxes{reason=unreachable,state=waiting}": 1,
        "relay_registrations{provider=fcm,state=active}": 3,
        "relay_outbox_pending{provider=apns}": 5,
        "relay_outbox_failing{provider=apns}": 2,
        "relay_outbox_oldest_seconds{provider=apns}": 60,
        "relay_outbox_oldest_seconds{provider=fcm}": 0,
        "relay_refused_logins{server=main}": 7,
        "relay_refused_logins_most{server=main}": 100,
        "relay_counts_age_seconds{}": 10,
        "relay_database_up{}": 1,
        "relay_part_state{part=database}": 0,
    }.items() <= bench.samples().items()


def test_an_accepted_push_is_measured_from_its_first_change(bench: Bench) -> None:
    assert bench.samples()["relay_change_to_accepted_seconds_count{provider=apns}"] == 0

    bench.apns.on_accepted(Platform.APNS, 0.7)
    bench.apns.on_accepted(Platform.APNS, 0.0)

    samples = bench.samples()
    assert samples["relay_change_to_accepted_seconds_count{provider=apns}"] == 2
    assert samples["relay_change_to_accepted_seconds_sum{provider=apns}"] == pytest.approx(0.7)
    assert samples["relay_change_to_accepted_seconds_bucket{le=0.5,provider=apns}"] == 1
    assert samples["relay_change_to_accepted_seconds_bucket{le=1.0,provider=apns}"] == 2


def test_reloads_are_counted_and_what_waits_for_a_restart(bench: Bench) -> None:
    bench.configuration.taken(NOON, ("database.url",), changed=True)
    bench.configuration.refused([("log.level", "is unknown", "Correct it.")])

    samples = bench.samples()

    assert samples["relay_config_reload_success{}"] == 0
    assert samples["relay_config_reload_timestamp_seconds{}"] == NOON.timestamp()
    assert samples["relay_config_reload_restart_needed{}"] == 1
    assert samples["relay_config_reloads_total{result=faulty}"] == 1
    assert samples["relay_config_reloads_total{result=applied}"] == 1


async def test_each_firebase_project_has_its_own_counts(bench: Bench) -> None:
    assert not any(name.startswith("relay_fcm_project") for name in bench.samples())
    tables = ("fcm", "fcm.accounts.other")
    projects = bench.fcm_projects = Projects(
        [FcmAccount(frozenset({table}), Path("x.json"), table) for table in tables], 100, Random(1)
    )
    for number in range(IN_A_ROW):
        projects.admit("fcm.accounts.other", due_push(number), 0.0)
        projects.ended("fcm.accounts.other", due_push(number), RetryLater("timed-out"), 0.0, of_project=True)
    projects.admit("fcm", due_push(8), 0.0)
    projects.ended("fcm", due_push(8), Delivered(), 0.0, of_project=False)
    projects.admit("fcm", due_push(9), 0.0)

    assert {
        "relay_fcm_project_pushes_total{account=fcm,outcome=delivered}": 1,
        "relay_fcm_project_pushes_total{account=fcm.accounts.other,outcome=retry-later}": IN_A_ROW,
        "relay_fcm_project_pushes_in_flight{account=fcm}": 1,
        "relay_fcm_project_pushes_in_flight{account=fcm.accounts.other}": 0,
        "relay_fcm_project_away{account=fcm}": 0,
        "relay_fcm_project_away{account=fcm.accounts.other}": 1,
    }.items() <= bench.samples().items()
