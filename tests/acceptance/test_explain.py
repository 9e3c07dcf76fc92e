"""`relay explain` as an operator runs it: a real process beside the database of a relay."""

import json
from pathlib import Path

import pytest

from relay.store.engine import open_database
from relay.store.migrate import upgrade
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.acceptance.test_cli import relay
from tests.contract.samples import activate
from tests.installation import Installation


@pytest.fixture
async def installation(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    async with open_database(site.load().database.dsn) as engine:
        await upgrade(engine)
        wakeups = LocalWakeups()
        await activate(SqlRegistrationStore(engine, wakeups), SqlWatchStore(engine, wakeups))
    return site


async def test_explains_a_registration_to_people_and_programs(installation: Installation) -> None:
    people = await relay("explain", "reg-ann-phone", "--config", str(installation.toml))
    programs = await relay("explain", "ann@example.com", "--json", "--config", str(installation.toml))

    assert (people.status, programs.status) == (0, 0), people.err + programs.err
    assert "ann@example.com at server office" in people.out
    assert "No process watches this mailbox" in people.out
    (case,) = json.loads(programs.out)
    assert case["mailbox"]["state"] == "starting"
    assert case["registrations"][0]["id"] == "reg-ann-phone"
    assert "token-ann-phone" not in people.out + programs.out


async def test_says_that_it_knows_no_such_mailbox(installation: Installation) -> None:
    people = await relay("explain", "nobody", "--config", str(installation.toml))
    programs = await relay("explain", "nobody", "--json", "--config", str(installation.toml))

    assert (people.status, people.out) == (1, "")
    assert "'nobody' is known" in people.err
    assert (programs.status, json.loads(programs.out)) == (1, [])


async def test_says_that_there_is_no_database(tmp_path: Path) -> None:
    site = Installation(tmp_path)

    ended = await relay("explain", "nobody", "--config", str(site.toml))

    assert ended.status == 1
    assert "there is no database" in ended.err
    assert not (tmp_path / "state/relay.sqlite3").exists()
