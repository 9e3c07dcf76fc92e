"""A mail server that refuses everybody for a while: its users are told "maybe the server", and all comes back."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from relay.sandbox.installation import APP
from tests.acceptance.test_cli import relay as run_relay
from tests.site import ANN, PASSWORD, Site, part_of
from tests.waiting import until

BEN = "ben@example.com"
OTHER_IPHONE = "5b" * 32


def database_of(site: Site) -> Path:
    return site.sandbox.folder / "state" / "relay.sqlite3"


def stored(site: Site) -> dict[str, tuple[str, str, int]]:
    """Return state, reason and refusals of each mailbox, by its user."""
    connection = sqlite3.connect(f"file:{database_of(site)}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT user, state, reason, refusals FROM mailbox").fetchall()
    finally:
        connection.close()
    return {user: (state, reason, refusals) for user, state, reason, refusals in rows}


def pass_time(site: Site) -> None:
    """End the stored waits and tries, as if their time had passed while no relay ran."""
    past = (datetime.now(UTC) - timedelta(hours=2)).replace(tzinfo=None).isoformat(" ", "microseconds")  # noqa: TID251
    connection = sqlite3.connect(database_of(site))
    with connection:
        connection.execute("UPDATE mailbox SET next_try_at = ? WHERE next_try_at IS NOT NULL", [past])
        connection.execute("UPDATE tries SET last_at = ?", [past])
    connection.close()


async def all_are(site: Site, reason: str, refusals: int) -> None:
    await until(lambda: set(stored(site).values()) == {("waiting", reason, refusals)}, 60)


@pytest.mark.slow
async def test_a_server_that_refuses_everybody_is_doubted_told_of_and_asked_again_over_restarts(site: Site) -> None:
    eas, apns = site.sandbox.eas, site.sandbox.apns
    eas.add_mailbox(BEN, PASSWORD)
    async with site.relay():
        assert (await site.register())[0] == 201
        assert (await site.register(BEN, device={"platform": "apns", "token": OTHER_IPHONE, "app": APP}))[0] == 201
        await site.held(2)
        eas.fail(None, FailurePlan(AnswerHttp(401, {"WWW-Authenticate": "Basic"}), None, 10**9))
        for user in (ANN, BEN):
            site.deliver(user)
        await all_are(site, "http-401", 1)
    pass_time(site)
    async with site.relay():
        await all_are(site, "http-401", 2)
    pass_time(site)
    async with site.relay() as relay:
        await all_are(site, "http-401-doubtful", 3)
        pushes = await apns.wait(2, 30)
        part = await part_of(relay, "server sandbox", "refused the credentials of 2 of 2 mailboxes three times")
        metrics = await relay.metrics()
        said = await run_relay("explain", ANN, "--config", str(site.sandbox.toml), environ=dict(site.environ))

    for push in pushes:
        body = json.loads(push.body)
        assert body["relay"]["kind"] == "attention"
        assert body["relay"]["certain"] is False
        assert "maybe the server" in body["aps"]["alert"]["body"]
    assert part["state"] == "failed"
    assert "asked again at" in part["reason"]
    assert "relay_server_doubtful" in metrics
    assert "refused this credential 3 times, while it refused everyone who was asked" in said.out
    assert "The credential is tried again at" in said.out
    sent = sorted((site.sandbox.folder / "state" / "egress").glob("*.jsonl"))
    audit = await run_relay("audit", "verify", *map(str, sent))
    assert audit.status == 0, audit.out + audit.err

    eas.failures.clear()
    pass_time(site)
    tried = {user: len(eas.log(user)) for user in (ANN, BEN)}
    async with site.relay():
        await until(lambda: {state for state, _, _ in stored(site).values()} == {"watching"}, 60)
        await until(lambda: sum(b'"new-items"' in push.body for push in apns.received) == 2, 30)
    assert all(len(eas.log(user)) > tried[user] for user in tried)
