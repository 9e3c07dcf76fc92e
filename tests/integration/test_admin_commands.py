"""`relay mailboxes`, `relay registrations`, `relay maintenance` and the audit log, over the database of a relay."""

import asyncio
import json
import sys
from pathlib import Path
from signal import SIGINT
from subprocess import PIPE, Popen
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from relay.cli.main import cli
from relay.store.engine import open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import activate
from tests.installation import Installation
from tests.migrating import write_new_sqlite

USER = "ann@example.com"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setenv("SUDO_USER", "cleo")
    site = Installation(tmp_path)
    asyncio.run(fill(site))
    return site


async def fill(site: Installation) -> None:
    file = site.load().database.file
    assert file is not None
    async with open_database(await write_new_sqlite(file)) as engine:
        wakeups = LocalWakeups()
        registrations, watches = SqlRegistrationStore(engine, wakeups), SqlWatchStore(engine, wakeups)
        for name in ("ann", "ben"):
            await activate(registrations, watches, name)


def command(site: Installation, *arguments: str) -> Ended:
    ended = CliRunner().invoke(cli, [*arguments, "--config", str(site.toml)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def test_lists_shows_pauses_and_resumes_mailboxes(installation: Installation) -> None:
    listed = command(installation, "mailboxes", "list", "--json", "--limit", "1")
    paused = command(installation, "mailboxes", "pause", USER)
    again = command(installation, "mailboxes", "pause", "mb-ann")
    people = command(installation, "mailboxes", "list", "--state", "paused")
    shown = command(installation, "mailboxes", "show", USER)
    resumed = command(installation, "mailboxes", "resume", "--server", "office")

    page = json.loads(listed.out)
    assert [each["user"] for each in page["mailboxes"]] == [USER]
    assert page["cursor"] == "mb-ann"
    assert (paused.status, paused.err) == (0, "")
    assert "mb-ann: paused" in paused.out
    assert again.status == 1
    assert "paused already" in again.err
    assert people.out.count("mb-") == 1
    assert "relay mailboxes resume" in shown.out
    assert "mb-ben: it is not paused" in resumed.err
    assert resumed.status == 0


def test_an_empty_list_and_too_long_a_page_are_told(installation: Installation) -> None:
    empty = command(installation, "mailboxes", "list", "--user", "nobody")
    long = command(installation, "registrations", "list", "--limit", "5000")

    assert (empty.status, empty.out) == (0, "")
    assert "there are no mailboxes" in empty.err
    assert long.status == 2
    assert "500" in long.err


def test_shows_and_ends_registrations(installation: Installation) -> None:
    listed = command(installation, "registrations", "list", "--user", "ann")
    shown = command(installation, "registrations", "show", "reg-ann-phone")
    tested = command(installation, "registrations", "test-push", "reg-ann-phone", "--json")
    ended = command(installation, "registrations", "forget", "reg-ann-phone", "--yes")
    nobody = command(installation, "registrations", "show", "reg-ann-phone")

    assert "reg-ann-phone" in listed.out
    assert "reg-ben" not in listed.out
    assert "production" in shown.out
    assert "token-ann-phone" not in listed.out + shown.out
    assert json.loads(tested.out)[0]["done"] is True
    assert (ended.status, nobody.status) == (0, 1)
    assert "'reg-ann-phone' is known" in nobody.err


def test_ends_no_registration_if_one_of_those_named_is_unknown(installation: Installation) -> None:
    ended = command(installation, "registrations", "forget", "reg-ann-phone", "reg-nobody", "--yes")

    assert ended.status == 1
    assert "'reg-nobody' is known" in ended.err
    assert command(installation, "registrations", "show", "reg-ann-phone").status == 0


def test_forgets_a_user_and_leaves_a_keyed_hash_that_finds_the_act(installation: Installation) -> None:
    exported = command(installation, "mailboxes", "export", USER)
    forgotten = command(installation, "mailboxes", "forget", USER, "--yes")
    listed = command(installation, "mailboxes", "list")
    acts = command(installation, "audit", "acts", "--user", r"EXAMPLE\Ann", "--json")
    verified = command(installation, "audit", "verify", "--acts")

    assert json.loads(exported.out)[0]["mailbox"]["user"] == USER
    assert (forgotten.status, forgotten.out) == (0, "mb-ann: forgotten\n"), forgotten.err
    assert USER not in listed.out
    found = json.loads(acts.out)
    assert [(each["who"], each["via"], each["what"]) for each in found] == [
        ("cleo", "cli", "mailbox.forget"),
        ("cleo", "cli", "mailbox.export"),
    ]
    assert verified.out.startswith("2 acts, unbroken")
    for file in (installation.folder / "state").iterdir():
        content = file.read_bytes()
        assert USER.encode() not in content, file
        assert b"token-ann-phone" not in content, file


def test_asks_before_it_forgets(installation: Installation) -> None:
    ended = command(installation, "mailboxes", "forget", USER)

    assert ended.status == 1
    assert f"{USER} (1 mailbox)" in ended.err
    assert command(installation, "mailboxes", "show", USER).status == 0


def test_asks_before_it_ends_a_registration_that_is_known(installation: Installation) -> None:
    unknown = command(installation, "registrations", "forget", "reg-nobody")
    ended = command(installation, "registrations", "forget", "reg-ann-phone")

    assert (unknown.status, "End for good" in unknown.err) == (1, False)
    assert "'reg-nobody' is known" in unknown.err
    assert (ended.status, "End for good: reg-ann-phone?" in ended.err) == (1, True)
    assert command(installation, "registrations", "show", "reg-ann-phone").status == 0


@pytest.mark.parametrize("asking", [("mailboxes", "forget", USER), ("registrations", "forget", "reg-ann-phone")])
def test_ctrl_c_ends_a_command_that_asks(installation: Installation, asking: tuple[str, ...]) -> None:
    arguments = (sys.executable, "-m", "relay", *asking, "--config", str(installation.toml))
    with Popen(arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as asks:
        assert asks.stderr is not None
        while (written := asks.stderr.read(1)) not in {"?", ""}:
            pass
        asks.send_signal(SIGINT)
        ended = asks.wait(60)

    assert (written, ended) == ("?", 1)
    assert command(installation, "mailboxes", "show", USER).status == 0


@pytest.mark.slow
def test_a_mailbox_that_goes_while_the_command_asks_does_not_keep_others_from_being_forgotten(
    installation: Installation,
) -> None:
    arguments = (sys.executable, "-m", "relay", "mailboxes", "forget", "mb-ben", "mb-ann", "--config")
    with Popen((*arguments, str(installation.toml)), stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as asks:
        assert asks.stderr is not None
        while asks.stderr.read(1) not in {"?", ""}:
            pass
        assert command(installation, "mailboxes", "forget", "mb-ben", "--yes").status == 0
        out, err = asks.communicate("y\n", 60)

    assert (asks.returncode, out.strip()) == (0, "mb-ann: forgotten"), err
    assert "mb-ben: it is gone already" in err


def test_a_key_that_cannot_be_noted_in_the_audit_log_is_not_made(installation: Installation) -> None:
    (installation.folder / "state/admin-audit.key").mkdir()
    before = sorted((installation.folder / "state").iterdir())

    ended = command(installation, "keys", "new")

    assert ended.status == 1
    assert "cannot write the audit log" in ended.err
    assert sorted((installation.folder / "state").iterdir()) == before


def test_maintenance_is_for_servers_of_the_configuration(installation: Installation) -> None:
    unknown = command(installation, "maintenance", "nowhere", "on")
    on = command(installation, "maintenance", "main", "on")
    listed = command(installation, "maintenance")
    off = command(installation, "maintenance", "main", "off")
    none = command(installation, "maintenance")

    assert (none.status, none.out, none.err) == (0, "", "no mail server is in maintenance\n")
    assert (unknown.status, on.status, off.status) == (1, 0, 0)
    assert "'nowhere' is known" in unknown.err
    assert listed.out.startswith("main\t")


def test_says_what_to_name(installation: Installation) -> None:
    nobody = command(installation, "mailboxes", "pause")
    stranger = command(installation, "mailboxes", "pause", "nobody@example.com")

    assert (nobody.status, stranger.status) == (2, 1)
    assert "--server" in nobody.err
    assert "'nobody@example.com' is known" in stranger.err


def test_verify_finds_an_act_that_was_changed(installation: Installation) -> None:
    command(installation, "mailboxes", "pause", USER)
    (installation.folder / "state/admin-audit.key").write_text("0" * 64 + "\n")

    verified = command(installation, "audit", "verify", "--acts")

    assert verified.status == 1
    assert "cannot be checked" in verified.err
