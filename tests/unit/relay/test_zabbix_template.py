"""Own the proof that the template for Zabbix fits the program, the alerts of Prometheus, and itself."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import RFC_4122, UUID

import yaml

from tests.fakes.metrics import Bench

CONFIG: Final = Path(__file__).parents[3] / "config"
NAMED: Final = re.compile(r"/Push relay by HTTP/([^,)]*?\[[^\]]*\]|[^,)]*)[,)]")
"""The item of a function in an expression."""
METRIC: Final = re.compile(r"^(?:relay|process)_[a-z_0-9]+")
ELSEWHERE: Final = {
    "RelayAbsent",  # about the targets of Prometheus
    "RelayInstallationGone",  # same
    "RelayCanaryLost",  # about the canary of all processes together; the part `canary` says it in the one that sends
    "RelayCanaryLate",  # same
    "RelayShardsUnowned",  # about all processes together; the part `shards` says it in each of them
}
PRIORITIES: Final = {"critical": "HIGH", "warning": "WARNING"}


@cache
def exported() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIG / "zabbix-template.yaml").read_text())["zabbix_export"]
    return found


def template() -> dict[str, Any]:
    (found,) = exported()["templates"]
    return dict(found)


def nodes(node: object) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping of a document."""
    if isinstance(node, Mapping):
        yield node
        for inner in node.values():
            yield from nodes(inner)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for inner in node:
            yield from nodes(inner)


def every_item() -> list[dict[str, Any]]:
    rules = template()["discovery_rules"]
    return [*template()["items"], *(item for rule in rules for item in rule["item_prototypes"])]


def every_trigger() -> list[Mapping[str, Any]]:
    return [node for node in nodes(template()) if "expression" in node]


def alert_of(trigger: Mapping[str, Any]) -> str:
    (tag,) = trigger["tags"]
    return str(tag["value"])


def steps() -> list[tuple[str, list[str]]]:
    """Return type and parameters of every step that reads metrics."""
    found = [step for node in nodes(template()) for step in node.get("preprocessing", ())]
    return [(step["type"], step["parameters"]) for step in found if step["type"].startswith("PROMETHEUS_")]


def test_every_uuid_is_of_version_4_and_stands_once() -> None:
    uuids = [node["uuid"] for node in nodes(exported()) if "uuid" in node]

    # Zabbix reads digits without quotes as a number, and refuses the whole file.
    assert re.findall(r"uuid: [0-9]+$", (CONFIG / "zabbix-template.yaml").read_text(), re.MULTILINE) == []

    assert len(uuids) > 80
    assert [text for text in uuids if UUID(text).hex != text or UUID(text).version != 4] == []
    assert [text for text in uuids if UUID(text).variant != RFC_4122] == []
    assert [text for text, number in Counter(uuids).items() if number > 1] == []


async def test_every_metric_exists() -> None:
    bench = Bench({"api.certificate_file": CONFIG / "missing"})
    await bench.fill()
    exposition = bench.metrics.render().decode()
    known = set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))
    histogram = {f"{name}_bucket" for name in known}

    named = {match[0] for _, parameters in steps() if (match := METRIC.match(parameters[0]))}

    assert len(steps()) == sum(bool(METRIC.match(parameters[0])) for _, parameters in steps())
    assert named <= known | histogram


def test_every_label_of_a_rule_is_a_macro_of_its_prototypes() -> None:
    for rule in template()["discovery_rules"]:
        macros = {path["lld_macro"] for path in rule["lld_macro_paths"]}
        for prototype in rule["item_prototypes"]:
            named = set(re.findall(r"\{#[A-Z]+\}", prototype["key"]))
            used = set(re.findall(r"\{#[A-Z]+\}", str(prototype)))

            assert used <= macros, prototype["key"]
            assert named == macros or prototype["type"] == "CALCULATED", prototype["key"]


def test_every_item_is_a_part_of_what_one_request_brings() -> None:
    keys = [item["key"] for item in every_item()]
    masters = {node["master_item"]["key"] for node in nodes(template()) if "master_item" in node}

    assert [key for key, number in Counter(keys).items() if number > 1] == []
    assert masters == {"relay.metrics"}
    assert [item["key"] for item in every_item() if item["type"] == "HTTP_AGENT"] == ["relay.alive", "relay.metrics"]


def test_every_trigger_is_about_items_of_its_own_template() -> None:
    keys = {item["key"] for item in every_item()}

    for trigger in every_trigger():
        named = NAMED.findall(trigger["expression"])
        assert named, trigger["name"]
        assert set(named) <= keys, trigger["name"]


def test_every_macro_is_explained_and_used() -> None:
    text = str({name: part for name, part in template().items() if name != "macros"})
    macros = template()["macros"]

    assert all(macro["description"] for macro in macros)
    assert {macro["macro"] for macro in macros} == set(re.findall(r"\{\$RELAY\.[A-Z.]+\}", text))


def test_every_alert_has_a_trigger_of_the_same_weight() -> None:
    groups = yaml.safe_load((CONFIG / "prometheus-alerts.yml").read_text())["groups"]
    alerts = {rule["alert"]: PRIORITIES[rule["labels"]["severity"]] for group in groups for rule in group["rules"]}

    triggers = {alert_of(trigger): trigger["priority"] for trigger in every_trigger()}

    assert triggers == {name: weight for name, weight in alerts.items() if name not in ELSEWHERE}
    assert alerts.keys() >= ELSEWHERE
