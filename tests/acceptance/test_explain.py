"""`relay explain` as an operator runs it: a real process beside the database of a relay."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from relay.store.engine import open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.acceptance.test_cli import relay
from tests.contract.samples import activate
from tests.installation import Installation
from tests.migrating import write_new_sqlite
from tests.site import ANN, Site
from tests.waiting import until


@pytest.fixture
async def installation(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    file = site.load().database.file
    assert file is not None
    async with open_database(await write_new_sqlite(file)) as engine:
        wakeups = LocalWakeups()
        await activate(SqlRegistrationStore(engine, wakeups), SqlWatchStore(engine, wakeups))
    return site


@pytest.mark.slow
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


@pytest.mark.slow
async def test_says_that_it_knows_no_such_mailbox(installation: Installation) -> None:
    people = await relay("explain", "nobody", "--config", str(installation.toml))
    programs = await relay("explain", "nobody", "--json", "--config", str(installation.toml))

    assert (people.status, people.out) == (1, "")
    assert "'nobody' is known" in people.err
    assert (programs.status, json.loads(programs.out)) == (1, [])


@pytest.mark.slow
async def test_says_that_there_is_no_database(tmp_path: Path) -> None:
    site = Installation(tmp_path)

    ended = await relay("explain", "nobody", "--config", str(site.toml))

    assert ended.status == 1
    assert "there is no database" in ended.err
    assert not (tmp_path / "state/relay.sqlite3").exists()


async def explained(site: Site, *arguments: str, says: str) -> str:
    """Return what `relay explain` prints once it says something: events are written within some seconds."""
    told: list[str] = []

    async def said() -> bool:
        ended = await relay("explain", *arguments, "--config", str(site.sandbox.toml))
        told[:] = [ended.out]
        return says in ended.out

    await until(said)
    return told[0]


@pytest.mark.slow
async def test_tells_a_mail_on_its_way_and_a_moment(site: Site) -> None:
    async with site.relay():
        status, phone = await site.register()
        assert status == 201
        await site.held()
        site.deliver()
        told = await explained(site, ANN, says="push for mail accepted by APNs")

        happened = told[told.index("happened last") :]
        steps = ("an app registered through APNs", "Ping held", "new mail noticed", f"accepted by APNs [{phone['id']}]")
        places = [happened.index(step) for step in steps[1:]]
        assert places == sorted(places)
        assert steps[0] in happened
        now = datetime.now().astimezone()  # noqa: TID251 -- as a person reads a clock
        moment = await explained(site, "nn@exam", "--at", now.isoformat(), says="around")
        assert "A Ping was held, since" in moment
        assert "push for mail accepted by APNs" in moment


@pytest.mark.slow
async def test_tells_of_a_refused_registration_of_which_nothing_is_left(site: Site) -> None:
    async with site.relay() as process:
        assert (await site.register(password="wrong"))[0] == 403
        told = await explained(site, "ann@example.com", says="was refused")
        log = process.log.read_text()

    assert "ann@example.com has no mailbox here" in told
    assert "a registration was refused: wrong user or password, says the mail server" in told
    (line,) = [json.loads(line) for line in log.splitlines() if "credential of an app not taken" in line]
    assert (line["reason"], len(line["account"])) == ("credential", 32)
    assert "ann@" not in json.dumps(line)


@pytest.mark.slow
async def test_lists_users_of_which_a_part_is_given(installation: Installation) -> None:
    async with open_database(installation.load().database.dsn) as engine:
        wakeups = LocalWakeups()
        await activate(SqlRegistrationStore(engine, wakeups), SqlWatchStore(engine, wakeups), "joanna")

    people = await relay("explain", "ann", "--config", str(installation.toml))
    programs = await relay("explain", "ann", "--json", "--config", str(installation.toml))

    assert people.status == 1
    assert [line.split("\t")[0] for line in people.out.splitlines()] == ["ann@example.com", "joanna@example.com"]
    assert "2 mailboxes have 'ann' in their user: name one of them" in people.err
    assert [each["mailbox"]["user"] for each in json.loads(programs.out)] == ["ann@example.com", "joanna@example.com"]


@pytest.mark.slow
async def test_refuses_a_moment_that_is_none(installation: Installation) -> None:
    ended = await relay("explain", "ann@example.com", "--at", "noon", "--config", str(installation.toml))

    assert ended.status == 2
    assert "--at: 'noon' is no time: write 14:05, or 2026-11-29T14:05" in ended.err
