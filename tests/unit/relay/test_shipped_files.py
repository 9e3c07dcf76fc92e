"""Own the proof that what operators copy fits the program: keys, defaults, metric names, commands."""

import configparser
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from ipaddress import IPv4Network
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from relay.api.problems import BY_ERROR
from relay.cli.output import FAULTY
from relay.domain.model import SHARDS
from relay.installing.layout import PARTS, Answers, Keys, layout
from relay.installing.shipped import SAMPLE, read
from relay.process.dead_man import LOOK
from relay.process.service_manager import SHARE
from relay.settings.sections import known_keys
from relay.watch.leases import DRAIN, GOODBYE
from tests.fakes.metrics import Bench
from tests.installation import Installation

ROOT: Final = Path(__file__).parents[3]
COMMENTED: Final = re.compile(r"^#(?=[a-z0-9_]+ = |\[[a-z.]+\]$)", re.MULTILINE)
IMPORT: Final = re.compile(
    r"^ *(?:import|(?=from [\w.]+ import )from) (\w+)[\w.]*(?: as \w+| import .+|  # .+)?$", re.MULTILINE
)
"""A line that imports, and the package; to parse all sources takes a second."""
METRIC: Final = re.compile(r"\b(?:relay|process|python)_[a-z_]+")


def shipped(name: str) -> str:
    return (ROOT / name).read_text()


def shipped_keys() -> dict[str, Any]:
    """Return every key of config/relay.toml, those in comments too, with its value."""
    tables = tomllib.loads(COMMENTED.sub("", shipped("config/relay.toml")))
    servers = tables.pop("servers")
    tables["servers.NAME"] = servers["main"]
    tables["apns.accounts.NAME"] = tables["apns"].pop("accounts")["other"]
    tables["fcm.accounts.NAME"] = tables["fcm"].pop("accounts")["other"]
    tables["admin.tokens.NAME"] = tables["admin"].pop("tokens")["helpdesk"]
    tables["admin.proxy"] = tables["admin"].pop("proxy")
    return {f"{table}.{key}": value for table, keys in tables.items() for key, value in keys.items()}


def test_relay_toml_names_every_key_and_no_other() -> None:
    assert shipped_keys().keys() == known_keys().keys()


def shown_as(key: str, default: Any) -> Any:
    """Return how relay.toml shows a default; the one address of a listener needs no list."""
    if key in ("api.host", "ops.host"):
        return ", ".join(default)
    return list(default) if isinstance(default, tuple) else default


def test_relay_toml_shows_the_defaults() -> None:
    shown = shipped_keys()

    for key, (default, _) in known_keys().items():
        if default not in (None, ()):
            assert shown[key] == shown_as(key, default), key


def test_a_key_with_a_default_is_commented_out_in_relay_toml() -> None:
    active = tomllib.loads(shipped("config/relay.toml"))
    servers = active.pop("servers")
    active["servers.NAME"] = servers["main"]

    set_keys = {f"{table}.{key}" for table, keys in active.items() for key in keys}

    assert not [key for key in set_keys if known_keys()[key][0] not in (None, ())]


def test_relay_toml_loads_beside_the_files_it_names(tmp_path: Path) -> None:
    site = Installation(tmp_path)
    site.configure(shipped("config/relay.toml"))

    assert site.faults() == []


def test_the_settings_page_explains_every_key() -> None:
    text = shipped("docs/configure.md")

    assert [key for key in known_keys() if f"`{key}`" not in text] == []


async def test_alerts_and_dashboard_name_only_metrics_that_exist() -> None:
    bench = Bench()
    await bench.fill()
    known = {name.partition("{")[0] for name in bench.samples()}
    alerts = [
        rule for group in yaml.safe_load(shipped("config/prometheus-alerts.yml"))["groups"] for rule in group["rules"]
    ]
    panels = json.loads(shipped("config/grafana-dashboard.json"))["panels"]
    queries = [rule["expr"] for rule in alerts] + [target["expr"] for panel in panels for target in panel["targets"]]

    named = {name for query in queries for name in METRIC.findall(query)}

    assert len(alerts) > 5
    assert len(named) > 10
    assert named <= known


async def test_the_operators_page_explains_every_metric() -> None:
    bench = Bench()
    await bench.fill()
    suffixes = re.compile(r"_(bucket|count|sum|created)$")
    names = {suffixes.sub("", name.partition("{")[0]) for name in bench.samples() if name.startswith("relay_")}
    text = shipped("docs/operate.md")

    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_every_event_for_a_siem_is_logged_by_something_and_explained() -> None:
    named = set(re.findall(r'\$!event == "([^"]+)"', shipped("config/rsyslog-cef.conf")))
    sources = [*ROOT.glob("relay/**/*.py"), *ROOT.glob("eas_watcher/**/*.py"), ROOT / "config" / "siem-events.sh"]
    logged = "".join(path.read_text() for path in sources)

    assert len(named) > 10
    assert [event for event in sorted(named) if f'"{event}"' not in logged] == []
    assert [event for event in sorted(named) if f"`{event}`" not in shipped("docs/monitor.md")] == []


def test_the_alert_on_shards_knows_how_many_there_are() -> None:
    assert f"sum by (installation) (relay_shards_leased) < {SHARDS}" in shipped("config/prometheus-alerts.yml")


def test_compose_keeps_the_roles_apart() -> None:
    compose = yaml.safe_load(shipped("docker-compose.yml"))
    services, networks = compose["services"], compose["networks"]
    version = tomllib.loads(shipped("pyproject.toml"))["project"]["version"]

    assert compose["x-relay"]["image"] == f"push-relay:{version}"
    assert {name for name, service in services.items() if "scale" not in service["profiles"]} == {"relay", "init"}
    assert all(networks[network]["internal"] for network in services["watch"]["networks"])
    assert not set(services["push"]["networks"]) & {"mail", "company"}
    assert not shared_networks(services, "api", "watch", "push", "migrate")
    assert {name for name, network in networks.items() if not network.get("internal")} == {
        *("single", "clients", "company", "internet")
    }
    assert all(
        network["driver_opts"]["com.docker.network.bridge.inhibit_ipv4"] == "true"
        for network in networks.values()
        if network.get("internal")
    )
    for role in ("api", "watch", "push"):
        assert services[role]["command"][:3] == ["serve", "--role", role]
        state = ["egress:/var/lib/push-relay"] if role == "push" else []
        assert services[role]["volumes"] == [f"./deploy/{role}:/etc/push-relay:ro", *state]
        assert services[role]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def shared_networks(services: dict[str, Any], *names: str) -> set[str]:
    """Return the networks in which more than one of some services are."""
    counts = Counter(network for name in names for network in services[name]["networks"])
    return {network for network, count in counts.items() if count > 1}


def test_the_firewall_of_docker_knows_the_subnets_of_compose() -> None:
    networks = yaml.safe_load(shipped("docker-compose.yml"))["networks"]
    subnets = {name: IPv4Network(network["ipam"]["config"][0]["subnet"]) for name, network in networks.items()}
    named = dict(re.findall(r"^([A-Z]+)=([0-9./]+)", shipped("config/docker-firewall.sh"), re.MULTILINE))

    assert all(subnet.subnet_of(IPv4Network(named["ALL"])) for subnet in subnets.values())
    assert (subnets["clients"], subnets["internet"]) == (IPv4Network(named["CLIENTS"]), IPv4Network(named["INTERNET"]))
    assert not [pair for pair in combinations(subnets.values(), 2) if pair[0].overlaps(pair[1])]


def test_compose_limits_the_logs_of_every_service() -> None:
    services = yaml.safe_load(shipped("docker-compose.yml"))["services"]

    assert all({"max-size", "max-file"} <= service["logging"]["options"].keys() for service in services.values())


def test_compose_mounts_what_init_writes() -> None:
    services = yaml.safe_load(shipped("docker-compose.yml"))["services"]
    keys = Keys(b"", b"", b"", "", lambda: "word", lambda: bytes(16))
    written = {str(file.path) for file in layout(Path("deploy"), None, PARTS, Answers(), keys, read(SAMPLE)).files}

    assert services["init"]["entrypoint"][:3] == ["relay", "init", "/etc/push-relay"]
    for name in ("api", "watch", "push", "migrate"):
        assert services[name]["volumes"][0] == f"./deploy/{name}:/etc/push-relay:ro"
        assert f"deploy/{name}/relay.toml" in written
    assert services["migrate"]["command"][:2] == ["migrate", "--grants"]
    mounted = services["postgres"]["volumes"][1].partition(":")[0].removeprefix("./")
    secret = yaml.safe_load(shipped("docker-compose.yml"))["secrets"]["postgres-password"]["file"].removeprefix("./")
    assert {mounted, secret} <= written


def test_a_watch_process_has_time_to_hand_over_and_a_kernel_timer_in_its_container() -> None:
    longest = DRAIN + GOODBYE
    watch = yaml.safe_load(shipped("docker-compose.yml"))["services"]["watch"]
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", shipped("config/relay.service"), re.MULTILINE)

    assert watch["init"] is True
    assert int(watch["stop_grace_period"].removesuffix("s")) > longest
    assert int(unit) > longest
    assert f"for {DRAIN:.0f} s at most" in shipped("docs/operate.md")


def test_the_image_is_locked_and_runs_as_a_user_of_its_own() -> None:
    lines = shipped("Dockerfile").splitlines()

    assert "USER 10001:10001" in lines
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${PYTHON_IMAGE}"}
    assert any(line.endswith('CMD ["relay", "check-health", "--probe", "alive"]') for line in lines)


def test_make_help_lists_every_target() -> None:
    makefile = shipped("Makefile")
    targets = re.findall(r"^([a-z]+):(?!=)", makefile, re.MULTILINE)

    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert re.findall(r"^ *make ([a-z]+) +[a-z]", listed, re.MULTILINE) == targets
    assert re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE) == [" ".join(targets)]


def test_each_version_in_the_changelog_says_first_what_to_do_on_upgrade() -> None:
    versions = shipped("CHANGELOG.md").split("\n## ")[1:]
    names = [version.partition("]")[0].removeprefix("[") for version in versions]

    assert names[:2] == ["Unreleased", tomllib.loads(shipped("pyproject.toml"))["project"]["version"]]
    assert [
        name for name, text in zip(names, versions, strict=True) if text.split("### ")[1][:19] != "To do on upgrade\n- "
    ] == []


def test_the_image_is_built_from_files_that_docker_may_see() -> None:
    copies = [line.split()[1:-1] for line in shipped("Dockerfile").splitlines() if line.startswith("COPY ")]
    copied = {name for names in copies if not names[0].startswith("--from") for name in names}
    project = tomllib.loads(shipped("pyproject.toml"))["project"]

    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= copied
    assert {f"!{name}" for name in copied} <= set(shipped(".dockerignore").splitlines())
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_license_is_shipped_whole() -> None:
    text = shipped("LICENSE")

    assert tomllib.loads(shipped("pyproject.toml"))["project"]["license"] == "Apache-2.0"
    assert text.lstrip().startswith("Apache License\n                           Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile", "docs/install.md", "docs/authentication.md"])
def test_a_lock_is_installed_without_resolving_anything(file: str) -> None:
    """What is released after the lock neither breaks an installation nor enters it."""
    installs = [line for line in shipped(file).splitlines() if "-r requirements/" in line]

    assert installs
    assert all("--no-deps --require-hashes -r" in line for line in installs)


@pytest.mark.parametrize("setting", ["NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces"])
def test_the_unit_is_hardened(setting: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read_string(shipped("config/relay.service"))

    assert unit["Service"][setting] == "yes"
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert unit["Service"]["User"] != "root"
    assert (ROOT / "docs" / Path(unit["Unit"]["Documentation"]).name).exists()
    assert unit["Service"]["RestartPreventExitStatus"] == str(FAULTY)


@pytest.mark.parametrize("page", ["docs/ios.md", "docs/android.md"])
def test_the_refusals_that_apps_are_told_of_exist(page: str) -> None:
    known = {(str(kind.status.value), kind.code) for kind in BY_ERROR.values()}
    told = set(re.findall(r"`(4\d\d)`(?: with code)? `([a-z-]+)`", shipped(page)))

    assert {code for _, code in told} == {"credential-refused", "enrolment-refused", "gone", "not-authorized", "wiped"}
    assert told <= known
    assert not re.search(r"`404`", shipped(page))


def test_every_library_that_the_code_imports_is_declared() -> None:
    """A library that only another one brings would be gone with a release of that one."""
    project = tomllib.loads(shipped("pyproject.toml"))["project"]
    extras = [*project["optional-dependencies"]["kerberos"], *project["optional-dependencies"]["otel"]]
    declared = {re.split(r"[^A-Za-z0-9-]", need)[0].lower() for need in [*project["dependencies"], *extras]}
    names = {"google": "google-auth", "jwt": "pyjwt", "prometheus_client": "prometheus-client"}
    names["pydantic_core"] = "pydantic"  # which demands one exact version of it
    names["markupsafe"] = "jinja2"  # whose templates take and make its texts
    names["opentelemetry"] = "opentelemetry-sdk"  # and its encoder, which the extra names too

    sources = chain(ROOT.glob("relay/**/*.py"), ROOT.glob("eas_watcher/**/*.py"))
    imported = {name for file in sources for name in IMPORT.findall(file.read_text(encoding="utf-8"))}
    foreign = imported - sys.stdlib_module_names - {"eas_watcher", "relay"}
    assert {names.get(name, name) for name in foreign} <= declared


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this host has no systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    unit = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", shipped("config/relay.service"), flags=re.MULTILINE)
    (tmp_path / "relay.service").write_text(re.sub(r"^Documentation=.*$", "", unit, flags=re.MULTILINE))
    (tmp_path / "relay.socket").write_text(shipped("config/relay.socket"))
    files = [str(tmp_path / "relay.service"), str(tmp_path / "relay.socket")]

    verified = subprocess.run(["systemd-analyze", "verify", *files], check=False, capture_output=True, text=True)

    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_unit_gives_signs_of_life_and_reloads_by_the_signal_that_the_relay_knows() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read_string(shipped("config/relay.service"))
    sock = shipped("config/relay.socket")

    assert unit["Service"]["Type"] == "notify"
    assert float(unit["Service"]["WatchdogSec"]) > LOOK * SHARE
    assert unit["Service"]["ExecReload"].endswith("-HUP $MAINPID")
    assert f"ListenStream={known_keys()['api.port'][0]}" in sock


def test_every_file_that_is_no_module_is_in_the_wheel() -> None:
    patterns = tomllib.loads(shipped("pyproject.toml"))["tool"]["setuptools"]["package-data"]["*"]
    # A folder without __init__.py is a package, too, if it is below one.
    packages = [path for name in ("eas_watcher", "relay") for path in [ROOT / name, *ROOT.glob(f"{name}/**/")]]

    shipped_files = {file for package in packages for pattern in patterns for file in package.glob(pattern)}
    files = {
        file
        for name in ("eas_watcher", "relay")
        for file in ROOT.glob(f"{name}/**/*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }

    assert {str(file) for file in files if file.parent.name in ("templates", "static")} != set()
    assert sorted(str(file) for file in files - shipped_files) == []
