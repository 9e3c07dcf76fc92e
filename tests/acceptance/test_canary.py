"""The canary of a real relay: its mail goes by SMTP to the sandbox's mail server and comes back as a push."""

from pathlib import Path
from typing import Any

import pytest

from relay.push.egress.auditing import audit
from relay.sandbox.process import RelayProcess
from relay.sandbox.smtp import PASSWORD as SMTP_PASSWORD
from relay.sandbox.smtp import USER as SMTP_USER
from tests.site import PASSWORD, Site, part_of
from tests.waiting import until

CANARY = "canary@example.com"
LONG = 60.0


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


async def test_a_mail_of_the_canary_is_noticed_pushed_and_shown(site: Site) -> None:
    add_canary(site)
    async with site.relay() as relay:
        await until(lambda: metric_is(relay, 'relay_canary_mails_total{result="shown"}', 1), LONG)

        text = await relay.metrics()
        for stage, provider in (("noticed", ""), ("accepted", "webpush"), ("shown", "webpush")):
            assert f'relay_canary_seconds_count{{provider="{provider}",stage="{stage}"}} 1.0' in text
        part = await part_of(relay, "canary", "")
        assert part["state"] == "ok"
        assert site.sandbox.webpush.received == [], "its pushes go to no push service"
    [mail] = site.sandbox.smtp.mails
    assert b"Auto-Submitted: auto-generated" in mail
    assert site.sandbox.smtp.logins == 1
    found = audit(sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl")))
    assert (found.seen.lines, found.faults) == (1, [])


async def metric_is(relay: RelayProcess, name: str, value: float) -> bool:
    return await metric(relay, name) >= value
