"""Shadow mode with real processes: everything is watched, nothing is pushed, and a reload changes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from relay.push.egress.auditing import audit
from relay.sandbox.process import RelayProcess
from tests.acceptance.test_cli import relay
from tests.acceptance.test_explain import explained
from tests.acceptance.test_possession import data, post
from tests.acceptance.test_reload import logged, reloaded, replace
from tests.site import ANN, PASSWORD, Site, open_site
from tests.waiting import SOON, until

HELD_BACK = "push for mail not sent: shadow mode"


def kinds(site: Site) -> list[str]:
    """Return the kinds of the pushes that APNs got, in their order."""
    return [each["kind"] for each in data(site.sandbox.apns)]


async def shadowed(relay: RelayProcess, provider: str = "apns") -> int:
    """Return how many pushes were held back since the start."""
    name = f'relay_push_shadowed_total{{provider="{provider}"}} '
    [line] = [line for line in (await relay.metrics()).splitlines() if line.startswith(name)]
    return int(float(line.removeprefix(name)))


def dark(site: Site, *more: str) -> None:
    replace(site.sandbox.toml, "[ops]", "\n".join(["[push]", 'mode = "shadow"', *more, "", "[ops]"]))


async def held_back(site: Site, process: RelayProcess, number: int) -> None:
    """Deliver a mail, and wait until its push was held back as the one with this number."""
    site.deliver(subject="canary")

    async def so_many() -> bool:
        return await shadowed(process) == number

    await until(so_many)


@pytest.mark.slow
async def test_a_relay_in_shadow_mode_pushes_nothing_until_a_reload_and_then_only_what_is_new(tmp_path: Path) -> None:
    async with open_site(tmp_path, {"RELAY__API__PROVE_POSSESSION": "apns"}) as site:
        site.sandbox.eas.add_mailbox(ANN, PASSWORD)
        dark(site)
        async with site.relay() as process:
            _, ann = await site.register()
            [challenge] = await site.sandbox.apns.wait(1, SOON)
            nonce = json.loads(challenge.body)["relay"]["nonce"]
            assert (await post(site, ann, "/proof", {"nonce": nonce}))[1]["state"] == "active"
            await site.held()
            await held_back(site, process, 1)

            assert kinds(site) == ["challenge"]
            assert HELD_BACK in await explained(site, ANN, says=HELD_BACK)
            assert "did not leave" in await explained(site, ANN, says="was shadow then")
            assert (await part(process))["reason"].startswith("shadow: no push of new items leaves;")
            told = await relay("status", "--seconds", "0", "--config", str(site.sandbox.toml))
            assert "push mode     shadow: no push of new items leaves;" in told.out
            assert [line["key"] for line in logged(process, "setting noted")] == ["push.mode"]

            await site.held()
            replace(site.sandbox.toml, 'mode = "shadow"', 'mode = "live"')
            await reloaded(process)
            site.deliver(subject="canary")
            await until(lambda: kinds(site) == ["challenge", "new-items"])
            assert data(site.sandbox.apns)[-1]["count"] == 1

            await site.held()
            replace(site.sandbox.toml, 'mode = "live"', 'mode = "shadow"')
            await reloaded(process)
            await held_back(site, process, 2)
            assert kinds(site) == ["challenge", "new-items"]
    found = audit(sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl")))
    assert (found.faults, found.seen.lines) == ([], 2)


async def part(process: RelayProcess) -> dict[str, Any]:
    return next(each for each in (await process.health())["parts"] if each["part"] == "push mode")
