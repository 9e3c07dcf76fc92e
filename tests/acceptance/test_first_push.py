"""The first push as the page about the sandbox shows it: its commands, run by a shell against a relay."""

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.site import ANN, PASSWORD, Site, open_site

PAGE: Final = Path(__file__).parents[2] / "docs" / "sandbox.md"
VARIABLE: Final = re.compile(r'^(RELAY__\w+)="([^"]+)" relay serve', re.MULTILINE)
BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> tuple[str, str]:
    """Return the commands that install and start the relay, and those of the phone."""
    section = PAGE.read_text(encoding="utf-8").partition("## The first push\n")[2].partition("\n## ")[0]
    start, phone = BLOCK.findall(section)
    return start, phone


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "sandbox", dict(VARIABLE.findall(blocks()[0]))) as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        yield opened


@pytest.mark.slow
async def test_the_commands_of_the_page_lead_to_a_push(site: Site, tmp_path: Path) -> None:
    script = blocks()[1]
    for shown, here in {
        "https://127.0.0.1:8447": site.sandbox.api_url,
        "http://127.0.0.1:8446": site.sandbox.control_url,
        "word=sandbox": f"word={shlex.quote(PASSWORD)}",
    }.items():
        assert shown in script
        script = script.replace(shown, here)

    async with site.relay():
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await shell.communicate()

    told = output.decode()
    assert shell.returncode == 0, told
    assert re.findall(r'"state": "(proving|active)"', told) == ["proving", "active"]
    kinds = [json.loads(push.body)["relay"]["kind"] for push in site.sandbox.apns.received]
    assert kinds == ["challenge", "new-items"]
    assert "kind" in told.rpartition("new-items")[0]
