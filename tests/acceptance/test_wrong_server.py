"""The first day: the mail server's URL, name or CA is wrong, and everybody who looks is told so at once."""

import asyncio
import re

import pytest

from relay.sandbox.process import RelayProcess
from tests.acceptance.test_cli import relay as command
from tests.site import Site, troubles
from tests.waiting import until

USERS = [f"user{n}@example.com" for n in range(1, 13)]


def spoil(toml: str, fault: str) -> str:
    """Return the settings with one fault in [servers.sandbox]."""
    before, server, after = toml.partition("[servers.sandbox]\n")
    server, rest = after.split("\n[", 1)
    spoilt = {
        "url": server.replace("/Microsoft-Server-ActiveSync", "/nothing-here"),
        "port": re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:9", server),
        "name": re.sub(r"127\.0\.0\.1:\d+", "mail.invalid", server),
        "ca": re.sub(r"ca_file = .*\n", "", server),
    }
    return f"{before}[servers.sandbox]\n{spoilt[fault]}\n[{rest}"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param("url", "http-404", marks=pytest.mark.slow),
        pytest.param("ca", "unreachable", marks=pytest.mark.slow),
        pytest.param("port", "unreachable", marks=pytest.mark.slow),
        pytest.param("name", "unreachable", marks=pytest.mark.slow),
    ],
)
async def test_a_wrong_mail_server_is_told_at_once(site: Site, fault: str, reason: str) -> None:
    for user in USERS:
        site.sandbox.eas.add_mailbox(user, "right")
    site.sandbox.toml.write_text(spoil(site.sandbox.toml.read_text(), fault))

    async with site.relay() as process:
        answers = await asyncio.gather(*(site.register(user, "right") for user in USERS))
        assert {status for status, _ in answers} == {202}
        app = answers[0][1]
        assert (app["remedy"]["by"], app["mailbox"]["reason"]) == ("administrator", reason)

        async def told() -> bool:
            said = {part["part"]: part for part in await troubles(process)}.get("credential checks")
            text = f"12 new mailboxes wait, most: {reason}; 0 others have been accepted"
            return said is not None and (said["state"], said["reason"]) == ("failed", text)

        await until(told)
        assert await checked(process)
        explained = await command("explain", USERS[0], "--config", str(site.sandbox.toml))

    assert "Nothing yet" not in explained.out
    assert "credential checks" in process.log.read_text()


async def checked(process: RelayProcess) -> bool:
    """Return whether the metrics count the requests of the checks that failed."""
    metrics = await process.metrics()
    return bool(re.search(r'relay_eas_requests_total\{command="OPTIONS",outcome="(Acc|Unr)', metrics))
