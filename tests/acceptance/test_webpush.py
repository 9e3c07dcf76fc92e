"""A phone without Apple and Google, from its subscription to its pushes, through a real relay."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from push_relay_client import Refused, WebPush
from push_relay_client.push import read_push_id

from relay.domain.receipts import A_SEALED_ID
from relay.push.egress.auditing import audit
from relay.push.webpush.vapid import public_key
from relay.sandbox.installation import APP
from tests.acceptance.test_cli import relay
from tests.installation import Installation
from tests.site import ANN, Site, identity_of
from tests.waiting import SOON, until


@pytest.mark.slow
async def test_a_phone_subscribes_registers_and_reads_what_came(site: Site) -> None:
    webpush = site.sandbox.webpush
    async with site.relay() as process:
        status, made = await site.register_webpush()
        assert (status, made["state"]) == (201, "active")
        await site.held()

        site.deliver(subject="canary")
        (push,) = await webpush.wait(1, SOON)

        assert push.status == 201
        read = json.loads(webpush.messages[0])
        id_ = read_push_id(read)
        assert A_SEALED_ID.fullmatch(read.pop("id"))
        assert read == {"v": 1, "registration": made["id"], "kind": "new-items", "class": "email", "count": 1}
        client, identity = site.client, identity_of(made)
        assert id_ is not None
        await client.shown(identity, {id_: 0.01, "of-another-registration": 1})
        assert 'relay_push_receipts_total{provider="webpush"} 1.0' in await process.metrics()

        async def explained() -> bool:
            said = await relay("explain", ANN, "--config", str(site.sandbox.toml), environ=dict(site.environ))
            return re.search(r"push for mail shown by the app, \d+\.\d s after", said.out) is not None

        await until(explained)

        async def outcome() -> tuple[str, str | None]:
            seen = await client.get(identity)
            return seen.state, seen.last_outcome

        # The phone unsubscribes, and subscribes again.
        webpush.gone(push.device_token)
        assert (await client.test_push(identity)).state == "queued"
        await webpush.wait(2, SOON)
        async with asyncio.timeout(SOON):
            while (told := await outcome()) != ("token-gone", "token-gone: http-410"):
                assert told[0] == "active"
                await asyncio.sleep(0.05)

        fresh: dict[str, Any] = webpush.subscribe()
        device = WebPush(APP, fresh["endpoint"], fresh["keys"])
        assert (await client.patch(identity, device=device)).state == "active"
        with pytest.raises(Refused, match="429 too-many-tests") as refused:
            await client.test_push(identity)
        assert refused.value.problem.retry_after
        site.deliver(subject="canary")
        await until(lambda: json.loads(webpush.messages[-1])["kind"] == "new-items" and len(webpush.messages) > 1)
        assert webpush.received[-1].device_token == fresh["endpoint"]

        health = await process.health()
        states_by_part = {part["part"]: part["state"] for part in health["parts"]}
        assert states_by_part["webpush"] == states_by_part["push services"] == "ok"
        assert states_by_part["file webpush.vapid_key_file"] == "ok"
        assert 'relay_pushes_total{outcome="delivered",provider="webpush"}' in await process.metrics()
    assert webpush.complaints == []
    found = audit(sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl")))
    assert (found.seen.lines, found.faults) == (3, [])


@pytest.mark.slow
async def test_the_command_line_makes_the_key_once_and_prints_what_apps_need(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.listen_elsewhere()
    table = (
        '[webpush]\nhosts = ["push.example.com"]\napps = ["com.example.mail"]\n'
        'vapid_key_file = "vapid.pem"\nsubject = "mailto:push@example.com"\n'
    )
    installation.configure(f"{installation.toml.read_text()}\n{table}")
    config = ("--config", str(installation.toml))
    (tmp_path / "vapid.pem").unlink()
    missing = await relay("vapid", *config)
    assert (missing.status, missing.out) == (1, "")
    assert "vapid.pem" in missing.err

    made = await relay("vapid", "--new", *config)
    again = await relay("vapid", "--new", *config)
    printed = await relay("vapid", *config)
    checked = await relay("check", *config)

    key = public_key((tmp_path / "vapid.pem").read_bytes())
    assert (made.status, made.out.strip()) == (0, key)
    assert (again.status, again.out) == (1, "")
    assert "subscribe again" in again.err
    assert (printed.status, printed.out.strip(), printed.err) == (0, key, "")
    assert checked.status == 0, checked.err
    assert "webpush: com.example.mail" in checked.out
