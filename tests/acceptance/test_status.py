"""`relay status` and `relay check-health` as operators and monitoring run them, beside a real relay."""

import asyncio
import json
import os
import pty
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from relay.sandbox.process import RelayProcess, open_relay
from tests.acceptance.test_cli import relay
from tests.ports import free_port
from tests.site import ANN, PASSWORD, Site
from tests.waiting import SOON, until

LOAD = re.compile(r"event loop: timers fire [0-9.]+ s late")
"""What `relay check-health` says where this machine is busy."""


async def ready(site: Site, process: RelayProcess) -> None:
    """Deliver a mail, and wait until the metrics of the relay show its push."""
    site.sandbox.eas.add_mailbox(ANN, PASSWORD)
    assert (await site.register())[0] == 201
    await site.held()
    site.deliver()
    await site.sandbox.apns.wait(1, SOON)

    shown = (
        'relay_mailboxes{reason="",state="watching"} 1.0',  # counted every few seconds, at first before it was watched
        "relay_pings_held 1.0",
        'relay_change_to_accepted_seconds_count{provider="apns"} 1.0',
    )

    async def says_so() -> bool:
        told = await process.metrics()
        return all(line in told for line in shown)

    await until(says_so)


@pytest.mark.slow
async def test_people_and_programs_see_what_the_relay_does(site: Site) -> None:
    config = ("--config", str(site.sandbox.toml))
    async with site.relay() as process:
        await ready(site, process)
        people = await relay("status", "--once", "--seconds", "0.1", *config)
        programs = await relay("status", "--json", "--seconds", "0", *config)
        other = f"http://127.0.0.1:{free_port()}"
        several = await relay(
            "status", "--once", "--node", other, "--node", f"http://127.0.0.1:{site.sandbox.ports.ops}", *config
        )
    nobody = await relay("status", "--once", *config)

    assert (people.status, programs.status, several.status) == (0, 0, 0), people.err + programs.err + several.err
    assert "mailboxes     1 watching" in people.out
    assert "Pings         1 held" in people.out
    assert "changes, " in people.out
    told = json.loads(programs.out)
    assert [each for each in told["troubles"] if each["name"] != "event loop"] == []
    assert (told["mailboxes"], told["registrations"]) == ({"watching": 1}, 1)
    assert told["latency"]["pushes"] == 1
    assert told["nodes"][0]["shards"] == 256
    assert ANN not in people.out + programs.out
    assert f"process       {other} cannot be reached: Connection refused" in several.out
    assert nobody.status == 1
    assert "mailboxes     1 watching" in nobody.out, "the database still says it"
    assert "no process of the relay answers" in nobody.err


@pytest.mark.slow
async def test_a_terminal_shows_it_until_somebody_ends_it(site: Site) -> None:
    async with site.relay() as running:
        await ready(site, running)
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        command = (sys.executable, "-m", "relay", "status", "--config", str(site.sandbox.toml))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
        )
        os.close(theirs)
        shown = b""

        def sees(words: bytes) -> bool:
            nonlocal shown
            with suppress(BlockingIOError, OSError):
                shown += os.read(ours, 65536)
            return words in shown

        try:
            await until(lambda: sees(b"1 held"))
            await until(lambda: sees(b"0 changes, 0 pushes accepted"))
            process.terminate()
            await until(lambda: sees(b"") and process.returncode is not None)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            os.close(ours)
    assert process.returncode == 0


@pytest.mark.slow
async def test_monitoring_gets_one_line_and_a_status(site: Site) -> None:
    config = ("--config", str(site.sandbox.toml))
    async with site.relay() as process:
        await ready(site, process)
        well = await relay("check-health", *config)
        strict = await relay("check-health", "--crit-watched", "101", *config)
        container = await relay("check-health", "--probe", "ready", *config)
    dead = await relay("check-health", *config)
    ill = await relay("check-health", "--probe", "alive", *config)

    assert (strict.status, container.status) == (2, 0), strict.out + container.err
    assert LOAD.search(well.out) or well.status == 0, well.out
    assert LOAD.sub("role all: 1 Pings held", well.out).partition(" - ")[2].startswith("role all: 1 Pings held")
    assert strict.out.startswith("RELAY CRITICAL - ")
    assert "100% of the mailboxes are watched" in strict.out
    assert (dead.status, len(dead.out.splitlines())) == (2, 1)
    assert (ill.status, "Connection refused" in ill.err) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["::1", "*"])
async def test_both_follow_the_listener_of_the_configuration(site: Site, host: str) -> None:
    site.sandbox.toml.write_text(site.sandbox.toml.read_text().replace("[ops]\n", f'[ops]\nhost = "{host}"\n'))
    config = ("--config", str(site.sandbox.toml))
    async with open_relay(site.sandbox.toml, site.sandbox.ports.ops, environ=site.environ, ops_host="[::1]"):
        found = await relay("check-health", "--probe", "alive", *config)
        seen = await relay("status", "--json", "--seconds", "0", *config)

    assert (found.status, found.out) == (0, "alive\n"), found.err
    assert len(json.loads(seen.out)["processes"]) == 1, seen.err


@pytest.mark.slow
async def test_what_cannot_be_checked_is_unknown(tmp_path: Path) -> None:
    missing = await relay("check-health", "--config", str(tmp_path / "relay.toml"))
    strange = await relay("check-health", "--node", "ftp://relay")
    nowhere = await relay("status", "--node", "ftp://relay", "--config", str(tmp_path / "relay.toml"))

    assert (missing.status, missing.out.startswith("RELAY UNKNOWN - ")) == (3, True)
    assert (strange.status, strange.out) == (3, "RELAY UNKNOWN - --node: ftp://relay is no http://HOST:PORT\n")
    assert nowhere.status == 2
