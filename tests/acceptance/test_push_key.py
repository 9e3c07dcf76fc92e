"""A push key that Apple does not know, corrected while the relay runs: nothing is lost, and no restart is needed."""

import asyncio
from pathlib import Path

import pytest

from relay.sandbox.certificates import make_apns_key
from relay.sandbox.process import RelayProcess
from tests.site import ANN, PASSWORD, open_site
from tests.waiting import until

PATIENCE = 60.0  # seconds; the relay sees a changed file within five, and tries an app that waits again at once


def replace(file: Path, content: str) -> None:
    """Replace a file by a new one with the same rights, in one step."""
    fresh = file.with_suffix(".new")
    fresh.write_text(content)
    fresh.chmod(0o600)
    fresh.rename(file)


async def apns_is(relay: RelayProcess, state: str) -> dict[str, str]:
    """Wait until health shows APNs in a state; return its entry."""
    async with asyncio.timeout(PATIENCE):
        while True:
            parts: dict[str, dict[str, str]] = {part["part"]: part for part in (await relay.health())["parts"]}
            if parts["apns"]["state"] == state:
                return parts["apns"]
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_a_corrected_push_key_is_taken_while_the_relay_runs(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.sandbox.eas.add_mailbox(ANN, PASSWORD)
        file = site.sandbox.folder / "apns.p8"
        good = file.read_text()
        replace(file, make_apns_key()[0])
        async with site.relay() as relay:
            assert (await site.register())[0] == 201
            await site.held()
            site.deliver()
            said = await apns_is(relay, "failed")
            assert "InvalidProviderToken" in said["reason"]
            assert "apns.key_file" in said["remedy"]

            replace(file, good)
            await until(lambda: any(push.status == 200 for push in site.sandbox.apns.received), PATIENCE)
            await apns_is(relay, "ok")
