"""The canary of a real relay: its mail goes by SMTP to the sandbox's mail server and comes back as a push."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from push_relay_client.push import read_push_id

from relay.push.egress.auditing import audit
from relay.sandbox.process import RelayProcess
from relay.sandbox.smtp import PASSWORD as SMTP_PASSWORD
from relay.sandbox.smtp import USER as SMTP_USER
from tests.site import PASSWORD, Site, identity_of
from tests.waiting import until

CANARY = "canary@example.com"
LONG = 120.0  # seconds; the interval between two mails is thirty, and a lost one is known after another


@pytest.fixture(autouse=True)
def a_mailbox(site: Site) -> None:
    site.sandbox.eas.add_mailbox(CANARY, PASSWORD)


def add_canary(site: Site, password: str = PASSWORD, smtp_password: str = SMTP_PASSWORD, **keys: Any) -> Path:
    """Add the table [canary] to the relay's settings; return the file of the mailbox's password."""
    folder = site.sandbox.folder
    own, sending = folder / "canary.password", folder / "canary-smtp.password"
    for file, text in ((own, password), (sending, smtp_password)):
        file.touch(0o600)
        file.write_text(f"{text}\n")
    table: dict[str, Any] = {
        "server": "sandbox",
        "user": CANARY,
        "password_file": own.name,
        "smtp_host": "127.0.0.1",
        "smtp_port": site.sandbox.ports.smtp,
        "smtp_ca_file": "ca.pem",
        "smtp_user": SMTP_USER,
        "smtp_password_file": sending.name,
        "interval_seconds": 30,
        "goal_seconds": 30,
        **keys,
    }
    lines = [f"{key} = {value if isinstance(value, int) else f'{value!r}'}" for key, value in table.items()]
    with site.sandbox.toml.open("a", encoding="utf-8") as toml:
        toml.write("\n[canary]\n" + "\n".join(lines) + "\n")
    return own


async def metric(relay: RelayProcess, name: str) -> float:
    lines = [line for line in (await relay.metrics()).splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rpartition(" ")[2]) if lines else -1.0


@pytest.mark.slow
async def test_a_mail_of_the_canary_is_noticed_pushed_and_shown(site: Site) -> None:
    add_canary(site)
    async with site.relay() as relay:
        await until(lambda: metric_is(relay, 'relay_canary_mails_total{result="shown"}', 1), LONG)

        text = await relay.metrics()
        for stage, provider in (("noticed", ""), ("accepted", "webpush"), ("shown", "webpush")):
            assert f'relay_canary_seconds_count{{provider="{provider}",stage="{stage}"}} 1.0' in text
        assert (await has_words(relay, ""))["state"] == "ok"
        assert site.sandbox.webpush.received == [], "its pushes go to no push service"
    [mail] = site.sandbox.smtp.mails
    assert b"Auto-Submitted: auto-generated" in mail
    assert site.sandbox.smtp.logins == 1
    found = audit(sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl")))
    assert (found.seen.lines, found.faults) == (1, [])


async def metric_is(relay: RelayProcess, name: str, value: float) -> bool:
    return await metric(relay, name) >= value


async def has_words(relay: RelayProcess, reason: str) -> Mapping[str, str]:
    """Wait until the health of the canary has a reason; return the part."""
    found: dict[str, str] = {}

    async def has_reason() -> bool:
        found.update(next(part for part in (await relay.health())["parts"] if part["part"] == "canary"))
        return reason in found["reason"]

    await until(has_reason, LONG)
    return found


@pytest.mark.slow
async def test_a_wrong_password_is_shown_to_the_mail_server_once_also_over_restarts(site: Site) -> None:
    own = add_canary(site, password="wrong")
    for _ in range(2):
        async with site.relay() as relay:
            part = await has_words(relay, "the canary's mailbox is not watched: credential-refused")
            assert "canary.password_file" in part["remedy"]
            await asyncio.sleep(3)
            assert await metric(relay, "relay_canary_in_time_ratio") == -1.0
    assert site.sandbox.eas.records.refusals[CANARY] == 1
    assert site.sandbox.smtp.mails == []
    assert own.read_text() == "wrong\n"


@pytest.mark.slow
async def test_a_refused_login_for_sending_is_shown_once_also_over_restarts(site: Site) -> None:
    add_canary(site, smtp_password="wrong")
    for _ in range(2):
        async with site.relay() as relay:
            part = await has_words(relay, "the mail server does not take the canary's mails: login-refused")
            assert "canary.smtp_password_file" in part["remedy"]
            await asyncio.sleep(3)
    assert site.sandbox.smtp.logins == 1


@pytest.mark.slow
async def test_a_mail_server_that_takes_no_mail_is_named_with_its_code(site: Site) -> None:
    add_canary(site)
    site.sandbox.smtp.refusing = "452 no room for canary@example.com"
    async with site.relay() as relay:
        part = await has_words(relay, "recipient-refused-452")
        assert part["state"] == "degraded"
        assert await metric_is(relay, 'relay_canary_mails_total{result="not-sent"}', 1)
        assert "no room" not in str(await relay.health())


@pytest.mark.slow
async def test_a_lost_mail_is_told_from_a_lost_push(site: Site) -> None:
    add_canary(site, interval_seconds=30, goal_seconds=5)
    site.sandbox.smtp.losing = True
    async with site.relay() as relay:
        await has_words(relay, "the canary's mail came to no notice")
        assert await metric_is(relay, 'relay_canary_mails_total{result="not-noticed"}', 1)
        site.sandbox.smtp.losing = False
        await until(lambda: metric_is(relay, 'relay_canary_mails_total{result="shown"}', 1), LONG)
        assert (await has_words(relay, ""))["state"] == "ok"


@pytest.mark.slow
async def test_a_phone_shows_by_its_receipts_what_it_was_pushed(site: Site) -> None:
    add_canary(site, platforms=["apns"], interval_seconds=30, goal_seconds=1)
    async with site.relay() as relay:
        _, made = await site.register(CANARY)
        (push,) = await site.sandbox.apns.wait(1, LONG)
        id_ = read_push_id(json.loads(push.body))
        assert id_ is not None
        await asyncio.sleep(1.5)
        await site.client.shown(identity_of(made), {id_: 0})
        await until(lambda: metric_is(relay, 'relay_canary_mails_total{result="late"}', 1), LONG)
        assert 'relay_canary_seconds_count{provider="apns",stage="shown"} 1.0' in await relay.metrics()

        await site.sandbox.apns.wait(2, LONG)
        await has_words(relay, "its device did not show it")
