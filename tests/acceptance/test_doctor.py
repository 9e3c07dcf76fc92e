"""`relay doctor` as an administrator runs it: lines, exit statuses, and the sample of docs/operate.md."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.test_cli import relay
from tests.installation import Installation
from tests.site import Site, healed

ROOT: Final = Path(__file__).parents[2]


def normal(text: str, folder: str) -> list[str]:
    """Return lines without what differs from run to run: paths, numbers, and the public key."""
    text = re.sub(r"subscribe with \S+", "subscribe with KEY", text.replace(folder, "FOLDER"))
    return [re.sub(r"[0-9]+(?:[.:-][0-9]+)*", "N", re.sub(" +", " ", line)) for line in text.strip().splitlines()]


@pytest.mark.slow
async def test_the_sample_of_the_documents_is_what_a_site_with_two_faults_gets(site: Site) -> None:
    (site.sandbox.folder / "state").chmod(0o755)
    site.sandbox.fcm.rotate()

    ended = await relay("doctor", "--config", str(site.sandbox.toml))

    documented = (ROOT / "docs/operate.md").read_text()
    (sample,) = re.findall(r"```\n(good +folder.*?|note +folder.*?)```", documented, re.DOTALL)
    assert ended.status == 1, ended.err
    assert normal(ended.out, str(site.sandbox.folder)) == normal(sample, "/etc/push-relay")
    assert ended.err == ""


@pytest.mark.slow
async def test_a_relay_that_runs_is_known_by_its_ports(site: Site) -> None:
    async with site.relay() as process:
        await site.register()
        await site.held()
        ended = await relay("doctor", "--config", str(site.sandbox.toml), "--json")
        await healed(process)

    document = json.loads(ended.out)
    texts = {
        each["subject"]: each["text"] for each in document["checks"] if each["check"] in {"port", "files", "seals"}
    }
    assert ended.status == 0, ended.out
    assert document["good"]
    assert document["seconds"] < 60
    assert texts["ops.port"].endswith("is the relay's, which runs")
    assert texts["api.port"].endswith("is the relay's, which runs")
    assert "the relay that runs here may open" in texts["open files"]
    assert texts["sealing.private_key_file"] == "opens the 1 stored credentials"


@pytest.mark.slow
async def test_faults_of_the_configuration_are_findings_too(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.replace('key_id = "ABCDE12345"', 'key_id = "short"')

    text = await relay("doctor", "--config", str(installation.toml))
    programs = await relay("doctor", "--config", str(installation.toml), "--json")

    assert (text.status, programs.status) == (2, 2)
    assert "apns.key_id" in text.err
    document = json.loads(programs.out)
    assert not document["good"]
    assert [each["subject"] for each in document["checks"]] == ["apns.key_id"]
