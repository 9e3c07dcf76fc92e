"""A phone proves that it is on the device of its registration, through a real relay; somebody else's never does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.push.egress.auditing import audit
from relay.sandbox.apns import ApnsSimulator
from tests.site import ANN, PASSWORD, Site, open_site
from tests.waiting import SOON, until

BEN = "ben@example.com"


def data(apns: ApnsSimulator) -> list[dict[str, Any]]:
    """Return the relay's part of every push that APNs got."""
    return [json.loads(push.body)["relay"] for push in apns.received]


async def post(site: Site, made: Mapping[str, Any], path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {made['secret']}"}
    async with site.api.post(f"/v1/registrations/{made['id']}{path}", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.slow
async def test_nothing_but_challenges_reaches_a_phone_before_it_has_proved_itself(tmp_path: Path) -> None:
    async with open_site(tmp_path, {"RELAY__API__PROVE_POSSESSION": "apns, fcm, webpush"}) as site:
        apns = site.sandbox.apns
        for user in (ANN, BEN):
            site.sandbox.eas.add_mailbox(user, PASSWORD)
        async with site.relay() as process:
            status, ann = await site.register()
            assert (status, ann["state"], ann["remedy"]["by"]) == (201, "proving", "app")
            await apns.wait(1, SOON)
            process.kill()
        async with site.relay():
            _, ben = await site.register(BEN)  # who knows Ann's device token, and never sees what her phone gets
            await until(lambda: {each["registration"] for each in data(apns)} == {ann["id"], ben["id"]})
            for user in (ANN, BEN):
                site.deliver(user, subject="canary")
            assert (await post(site, ben, "/proof", {"nonce": "made-up-by-ben-himself"}))[1]["code"] == "wrong-proof"
            assert (await post(site, ben, "/test-push"))[1]["code"] == "not-active"
            assert {each["kind"] for each in data(apns)} == {"challenge"}

            newest = {each["registration"]: each["nonce"] for each in data(apns)}[ann["id"]]
            status, proved = await post(site, ann, "/proof", {"nonce": newest})
            assert (status, proved["state"]) == (200, "active")
            await site.held()
            site.deliver(ANN, subject="canary")
            await until(lambda: data(apns)[-1]["kind"] == "new-items")
            _, asked = await post(site, ann, "/test-push")
            path = f"/v1/registrations/{ann['id']}/test-pushes/{asked['test']['id']}"

            async def delivered() -> bool:
                headers = {"Authorization": f"Bearer {ann['secret']}"}
                async with site.api.get(path, headers=headers) as response:
                    return bool((await response.json())["state"] == "delivered")

            await until(delivered)
            of_ben = [each["kind"] for each in data(apns) if each["registration"] == ben["id"]]
            assert of_ben == ["challenge"]
    found = audit(sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl")))
    assert found.faults == []
    assert found.seen.lines >= len(apns.received)
