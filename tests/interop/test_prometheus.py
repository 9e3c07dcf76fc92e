"""The alerts, the scrape example and the dashboard, as Prometheus' own promtool reads them."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.interop.packages import Unavailable, install, unavailable

CONFIG: Final = Path(__file__).parents[2] / "config"
RULES: Final = CONFIG / "prometheus-alerts.yml"
HOUR: Final = 60  # samples, one a minute
URL: Final = "https://mail.example.com/eas"


@pytest.fixture(scope="module")
def promtool() -> str:
    """Return the path of promtool, installed when missing."""
    found = shutil.which("promtool")
    if found is None:
        try:
            install("prometheus")
        except Unavailable as reason:
            unavailable(reason)
        found = shutil.which("promtool")
    assert found is not None
    return found


def run(promtool: str, *arguments: str | Path) -> None:
    """Run promtool, and fail with what it says."""
    ended = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@dataclass(frozen=True)
class Case:
    """One alert that the installation `north` raises, while `south`, scraped by the same Prometheus, has no fault."""

    alert: str
    north: Mapping[str, str]
    """Series without their label `installation` -> their values, one a minute, in promtool's notation."""
    south: Mapping[str, str]
    severity: str
    says: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """The alert's labels besides `installation` and `severity`."""
    at: int = 45
    """Minutes after the first value at which the alert fires."""


A: Final = 'instance="a"'
ONE: Final = {"instance": "a"}


def constant(name: str, north: str, south: str, labels: str = A) -> tuple[dict[str, str], dict[str, str]]:
    """Return one series of each installation whose value does not change."""
    series = f"{name}{{{labels}}}"
    return {series: f"{north}x{2 * HOUR}"}, {series: f"{south}x{2 * HOUR}"}


def rising(name: str, north: int, south: int, labels: str = A) -> tuple[dict[str, str], dict[str, str]]:
    """Return one counter of each installation that rises by so much a minute."""
    series = f"{name}{{{labels}}}"
    return {series: f"0+{north}x{2 * HOUR}"}, {series: f"0+{south}x{2 * HOUR}"}


def histogram(seconds: str) -> dict[str, str]:
    """Return the buckets of pushes that all took a little less than `seconds`."""
    name = "relay_change_to_accepted_seconds_bucket"
    bounds = ("1", "30", "60", "+Inf")
    reached = bounds.index(seconds)
    return {
        f'{name}{{instance="a",provider="fcm",le="{bound}"}}': f"0+{60 if place >= reached else 0}x{2 * HOUR}"
        for place, bound in enumerate(bounds)
    }


def mailboxes(**counts: int) -> dict[str, str]:
    """Return the mailboxes by state as two processes of one database show them; both count all."""
    reasons = {"watching": "", "waiting": "unreachable", "verifying": "unreachable"}
    return {
        f'relay_mailboxes{{instance="{instance}",state="{state}",reason="{reasons[state]}"}}': f"{count}x{2 * HOUR}"
        for state, count in counts.items()
        for instance in "ab"
    }


UP: Final = 'job="push-relay",instance="a"'
REFUSED: Final = 'instance="a",listener="api",kind="full"'
TOKENS: Final = 'instance="a",provider="apns",app="com.example.mail",environment="production",reason="BadDeviceToken"'
LOGINS: Final = 'instance="a",server="main"'
MOST: Final = {f"relay_refused_logins_most{{{LOGINS}}}": f"100x{2 * HOUR}"}
LOGIN_COUNTS: Final = constant("relay_refused_logins", "41", "39", LOGINS)
PROVIDER: Final = 'instance="a",provider="fcm"'
OF_FCM: Final = {"provider": "fcm"}
OF_URL: Final = {"url": URL}
PASSWORDS: Final = 'instance="a",command="Ping",outcome="Unauthorized"'
SHARES: Final = {f'relay_shards_leased{{instance="{each}"}}': f"128x{2 * HOUR}" for each in "ab"}

INTERVAL: Final = {f"relay_canary_interval_seconds{{{A}}}": f"300x{2 * HOUR}"}
GOAL: Final = {f"relay_canary_goal_ratio{{{A}}}": f"0.95x{2 * HOUR}"}

CASES: Final = (
    Case(
        "RelayDown", *constant("up", "0", "1", UP), "critical", "The relay process a does not answer.",
        {**ONE, "job": "push-relay"},
    ),
    Case(
        "RelayInstallationGone", {f"up{{{UP}}}": "1x30"}, {f"up{{{UP}}}": f"1x{2 * HOUR}"}, "critical",
        "Prometheus scrapes no process of this installation any more; "
        "if that is meant, this alert ends within an hour.",
        at=75,
    ),
    Case(
        "RelayCanaryLost",
        {f"relay_canary_last_shown_timestamp_seconds{{{A}}}": f"0x{2 * HOUR}", **INTERVAL},
        {f"relay_canary_last_shown_timestamp_seconds{{{A}}}": f"0+60x{2 * HOUR}", **INTERVAL},
        "critical",
        "No mail of the canary has been shown for 45m 0s: new mail may reach no phone. "
        "The part canary of /healthz says how far they come.",
    ),
    Case(
        "RelayCanaryLate",
        {f"relay_canary_in_time_ratio{{{A}}}": f"0.9x{2 * HOUR}", **GOAL},
        {f"relay_canary_in_time_ratio{{{A}}}": f"0.99x{2 * HOUR}", **GOAL},
        "warning",
        "Only 90% of the canary's mails of the last day were shown in time: "
        "relay_canary_seconds says which stage takes the time.",
    ),
    Case(
        "RelayPartFailed", *constant("relay_part_state", "2", "0", f'{A},part="apns"'), "critical",
        "apns has failed on a; /healthz says what to do.", {**ONE, "part": "apns"},
    ),
    Case(
        "RelayPartDegraded", *constant("relay_part_state", "1", "0", f'{A},part="apns"'), "warning",
        "apns is degraded on a; /healthz says what to do.", {**ONE, "part": "apns"},
    ),
    Case(
        "RelayConfigurationFaulty", *constant("relay_config_reload_success", "0", "1"), "warning",
        "The configuration on disk of a is faulty: it would not start again; /healthz names the settings.", ONE,
    ),
    Case(
        "RelayConnectionsRefused", *rising("relay_connections_refused_total", 120, 30, REFUSED), "warning",
        "a refuses connections to its listener api: full.", {**ONE, "listener": "api", "kind": "full"},
    ),
    Case(
        "RelayMailServerFull", *constant("relay_server_polled", "7", "0", f'{A},url="{URL}"'), "warning",
        f"{URL} holds too few Pings: 7 mailboxes are polled, their pushes are late by minutes.", OF_URL,
    ),
    Case(
        "RelayDatabaseDown", *constant("relay_database_up", "0", "1"), "critical",
        "The database does not answer a: it cannot watch or push safely.", ONE,
    ),
    Case(
        "RelayPushesWait", *constant("relay_outbox_oldest_seconds", "601", "600", PROVIDER), "critical",
        "Pushes to fcm have waited for more than ten minutes.", OF_FCM,
    ),
    Case(
        "RelayChannelFault", *constant("relay_channel_faults", "2", "0", PROVIDER), "critical",
        "The relay cannot push to 2 apps through fcm: key, topic or environment is wrong.", {**ONE, **OF_FCM},
    ),
    Case(
        "RelayProviderAway", *constant("relay_provider_outages", "1", "0", PROVIDER), "critical",
        "fcm is away for a; pushes wait.", {**ONE, **OF_FCM},
    ),
    Case(
        "RelayEgressUnwritable", *constant("relay_egress_writable", "0", "1"), "critical",
        "The egress log of a cannot be written: no push leaves until it can.", ONE,
    ),
    Case(
        "RelayEgressChanged", *rising("relay_egress_changed_total", 1, 0), "warning",
        "Somebody else changed the egress log of a: run `relay audit verify`.", ONE,
    ),
    Case(
        "RelayEgressRoom", *constant("relay_egress_free_bytes", "134217728", "5e9"), "warning",
        "The disk of the egress log of a has 128MiB left; without room no push leaves.", ONE,
    ),
    Case(
        "RelayTokensRefused", *constant("relay_tokens_refused", "21", "20", TOKENS), "warning",
        "apns refuses 21 device tokens of com.example.mail (production).",
        {"provider": "apns", "app": "com.example.mail", "environment": "production"}, at=90,
    ),
    Case(
        "RelayPushesSetAside", *constant("relay_outbox_aside", "3", "0", PROVIDER), "warning",
        "3 pushes to fcm break the relay: report them.", OF_FCM,
    ),
    Case(
        "RelayRowsSetAside", *constant("relay_rows_aside", "3", "0", f'{A},table="mailbox"'), "warning",
        "3 rows of mailbox cannot be read; everything else goes on.", {"table": "mailbox"},
    ),
    Case(
        "RelayPushesSlow", histogram("60"), histogram("1"), "warning",
        "One push in twenty to fcm takes longer than ten seconds.", OF_FCM,
    ),
    Case(
        "RelayCredentialsRefused", *rising("relay_eas_requests_total", 2, 1, PASSWORDS), "warning",
        "Mail servers refuse many passwords: one server or its directory may have a fault.",
    ),
    Case(
        "RelayCredentialsDoubtful", *constant("relay_server_doubtful", "4", "0", f'{A},url="{URL}"'), "warning",
        f"{URL} refused 4 mailboxes and accepted no other: its directory or store may be down.", OF_URL,
    ),
    Case(
        "RelayMailboxesUnwatched", mailboxes(watching=80, waiting=20), mailboxes(watching=100, waiting=5), "warning",
        "More than a tenth of all mailboxes wait: unreachable.", {"reason": "unreachable"},
    ),
    Case(
        "RelayMailboxesUnproved", mailboxes(watching=80, verifying=20), mailboxes(watching=100, verifying=5), "warning",
        "New mailboxes wait, for their mail server judges no credential (unreachable): look at its URL, name and CA.",
        {"reason": "unreachable"},
    ),
    Case(
        "RelayLoginsRefused", {**LOGIN_COUNTS[0], **MOST}, {**LOGIN_COUNTS[1], **MOST}, "warning",
        "main refuses many credentials of apps: somebody may try passwords through the relay.", {"server": "main"},
    ),
    Case(
        "RelayShardsUnowned", constant("relay_shards_leased", "128", "128")[0], SHARES, "critical",
        "Some mailboxes belong to no watch process: start another one.",
    ),
    Case(
        "RelayClockWrong", *constant("relay_clock_ahead_seconds", "-61", "60", f'{A},peer="mail.example.com"'),
        "warning", "The clock of a and that of mail.example.com differ by 61 seconds.",
        {**ONE, "peer": "mail.example.com"},
    ),
    Case("RelayLoopSlow", *constant("relay_loop_lag_seconds", "0.6", "0.1"), "warning", "a is overloaded.", ONE),
)  # fmt: skip


def of(installation: str | None, series: Mapping[str, str]) -> list[dict[str, str]]:
    """Return series with their installation; None: without the label."""
    label = "" if installation is None else f',installation="{installation}"'
    return [{"series": f"{name[:-1]}{label}}}", "values": values} for name, values in series.items()]


def document(alert: str, at: int, series: list[dict[str, str]], *expected: dict[str, Any]) -> dict[str, Any]:
    """Return the document of one test of promtool."""
    test = {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [{"eval_time": f"{at}m", "alertname": alert, "exp_alerts": list(expected)}],
    }
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}


def expected(case: Case, installation: str | None) -> dict[str, Any]:
    """Return the alert that promtool must see."""
    labels = {**case.labels, "severity": case.severity}
    if installation is None:
        return {"exp_labels": labels, "exp_annotations": {"summary": case.says}}
    named = {**labels, "installation": installation}
    return {"exp_labels": named, "exp_annotations": {"summary": f"{installation}: {case.says}"}}


def check(promtool: str, folder: Path, tests: dict[str, Any]) -> None:
    """Run one test document."""
    path = folder / "tests.yml"
    path.write_text(json.dumps(tests))  # which is YAML, too
    run(promtool, "test", "rules", path)


def test_every_alert_has_a_case() -> None:
    rules = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

    assert sorted(rules) == sorted({"RelayAbsent", *(case.alert for case in CASES)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_names_the_installation_with_the_fault_and_no_other(promtool: str, tmp_path: Path, case: Case) -> None:
    series = of("north", case.north) + of("south", case.south)

    check(promtool, tmp_path, document(case.alert, case.at, series, expected(case, "north")))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_one_installation_needs_no_label(promtool: str, tmp_path: Path, case: Case) -> None:
    if case.alert == "RelayInstallationGone":
        tests = document("RelayInstallationGone", case.at, of(None, case.south))
    else:
        tests = document(case.alert, case.at, of(None, case.north), expected(case, None))

    check(promtool, tmp_path, tests)


def test_a_job_without_any_process_is_told(promtool: str, tmp_path: Path) -> None:
    case = Case("RelayAbsent", {}, {}, "critical", "Prometheus scrapes no relay process: look at its job push-relay.")
    alert = expected(case, None)
    alert["exp_labels"]["job"] = "push-relay"
    other = [{"series": 'up{job="node"}', "values": "1x60"}]

    check(promtool, tmp_path, document("RelayAbsent", 10, other, alert))
    check(promtool, tmp_path, document("RelayAbsent", 10, of("north", {f"up{{{UP}}}": "1x60"})))


def test_prometheus_takes_the_scrape_example_with_the_alerts_beside_it(promtool: str) -> None:
    run(promtool, "check", "config", CONFIG / "prometheus-scrape.yml")


def test_prometheus_parses_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    panels = json.loads((CONFIG / "grafana-dashboard.json").read_text())["panels"]
    queries = [target["expr"].replace("$installation", ".*") for panel in panels for target in panel["targets"]]
    records = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": records}]}))

    assert len(queries) > 10
    assert not [query for query in queries if re.search(r"\$", query)], "Grafana knows no other variable"
    run(promtool, "check", "rules", path)
