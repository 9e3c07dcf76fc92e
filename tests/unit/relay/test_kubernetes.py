"""The manifests for Kubernetes fit the program, as far as that shows without a cluster."""

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from relay.domain.model import Role
from relay.installing.layout import PARTS, Answers, Keys, layout
from relay.installing.sample import Value
from relay.installing.shipped import SAMPLE, read
from relay.push.webpush.vapid import make_key, public_key
from relay.security.sealing import generate
from relay.settings import load
from relay.settings.loading import database_of
from relay.settings.sections import known_keys
from relay.watch.leases import DRAIN, GOODBYE
from tests.installation import Installation

FOLDER: Final = Path(__file__).parents[3] / "packaging/kubernetes"
KUSTOMIZATION: Final = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
ROLES: Final = [role.value for role in PARTS]


@cache
def manifests() -> list[dict[str, Any]]:
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in KUSTOMIZATION["resources"]]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text)]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in manifests() if each["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    return {
        name: each["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for name, each in of_kind(kind).items()
    }


def generated(kind: str) -> dict[str, list[str]]:
    return {each["name"]: each["files"] for each in KUSTOMIZATION[f"{kind}Generator"]}


def test_every_manifest_is_applied() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert all({"apiVersion", "kind", "metadata"} <= each.keys() for each in manifests())
    assert pods().keys() == {*ROLES, "migrate"}


@pytest.mark.parametrize("name", [*ROLES, "migrate"])
def test_a_pod_may_do_nothing_but_its_work(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_probed_where_it_answers(role: str) -> None:
    (container,) = pods()[role]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert container["args"] == ["serve", "--role", role, "--config", "/etc/push-relay/relay.toml"]
    assert ports["ops"] == known_keys()["ops.port"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "ops"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "ops"}
    keys = [each["name"].removeprefix("RELAY__").lower().replace("__", ".") for each in container["env"]]
    assert set(keys) <= known_keys().keys()


def test_a_watch_pod_has_time_to_hand_over_and_is_not_process_1() -> None:
    assert pods()["watch"]["terminationGracePeriodSeconds"] > DRAIN + GOODBYE
    assert pods()["watch"]["shareProcessNamespace"] is True


@pytest.mark.parametrize("name", [*ROLES, "migrate"])
def test_a_pod_mounts_its_own_settings_and_secrets_for_its_group_alone(name: str) -> None:
    settings = next(volume for volume in pods()[name]["volumes"] if volume["name"] == "settings")["projected"]

    assert settings["defaultMode"] == 0o440
    assert settings["sources"] == [{"configMap": {"name": f"{name}-settings"}}, {"secret": {"name": f"{name}-files"}}]
    files = [*generated("configMap")[f"{name}-settings"], *generated("secret")[f"{name}-files"]]
    assert all(file.startswith(f"deploy/{name}/") for file in files)


@pytest.mark.parametrize("name", [*ROLES, "migrate"])
def test_what_init_writes_passes_check_as_kubernetes_mounts_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    wanted = {
        Path(file).name for file in [*generated("configMap")[f"{name}-settings"], *generated("secret")[f"{name}-files"]]
    }

    written = {
        file.path.name: file.content for file in made(Installation(tmp_path / "given")) if file.path.parent.name == name
    }

    assert written.keys() == wanted
    for file, content in written.items():
        path = mounted / file
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        path.chmod(0o440)
    if name == "migrate":
        assert "relay@" in database_of(mounted / "relay.toml", {}, Role.ALL).url
    else:
        load(mounted / "relay.toml", {}, Role(name))


def made(site: Installation) -> Any:
    """Return the files of an installation with everything given."""
    private, public = generate()
    vapid = make_key()
    keys = Keys(private, public, vapid, public_key(vapid), lambda: "word", lambda: os.urandom(16))
    apps = ["com.example.mail"]
    values: dict[str, Value] = {
        "servers.url": "https://mail.example.com",
        "apns.topics": apps,
        "fcm.apps": apps,
        "apns.key_id": "ABCDE12345",
        "apns.team_id": "TEAM567890",
    }
    given = {
        "apns.key_file": "apns.p8",
        "fcm.service_account_file": "fcm.json",
        "api.certificate_file": "api.pem",
        "api.key_file": "api.key",
    }
    copies = {key: (file, site.folder / file) for key, file in given.items()}
    return layout(Path("/deploy"), None, PARTS, Answers(values, copies), keys, read(SAMPLE)).files


def policies(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("NetworkPolicy")[name]["spec"]
    return spec


def test_everything_is_forbidden_that_no_policy_allows() -> None:
    assert policies("nobody") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_watch_role_reaches_one_address_outside() -> None:
    (way,) = policies("watch")["egress"]

    assert [block["ipBlock"]["cidr"] for block in way["to"]] == ["192.0.2.25/32"]


def test_the_push_role_reaches_no_private_address_and_not_the_mail_server() -> None:
    (way,) = policies("push")["egress"]
    four, six = (block["ipBlock"] for block in way["to"])

    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "192.0.2.25/32"} <= set(four["except"])
    assert "fc00::/7" in six["except"]


def test_only_the_api_is_reached_from_outside() -> None:
    assert policies("api")["ingress"] == [{"ports": [{"port": "https"}]}]
    assert list(of_kind("Service")) == ["api"]
    assert not [name for name in ("watch", "push") if "ingress" in policies(name)]


def test_the_policies_meet_the_pods() -> None:
    for name in ROLES:
        labels = policies(name)["podSelector"]["matchLabels"]
        assert labels.items() <= of_kind("Deployment")[name]["spec"]["template"]["metadata"]["labels"].items()
