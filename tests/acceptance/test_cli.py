"""The command line as an administrator sees it: real processes, exit statuses, and the text on the terminal."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes.chains import Authority
from tests.installation import Installation
from tests.site import ANN, PASSWORD, Site
from tests.waiting import SOON

LIMIT = 60.0  # seconds


class Ended(NamedTuple):
    status: int
    out: str
    err: str


async def relay(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "400", **(environ or {})},
        cwd=cwd,
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    installation = Installation(tmp_path)
    installation.listen_elsewhere()
    return installation


@pytest.mark.slow
async def test_check_accepts_a_good_configuration(installation: Installation) -> None:
    ended = await relay("check", "--config", str(installation.toml))

    assert ended.status == 0, ended.err
    assert "good" in ended.out
    assert "https://mail.example.com" in ended.out


@pytest.mark.slow
async def test_check_names_the_flaw_of_a_ca_and_accepts_it(installation: Installation) -> None:
    installation.write("ca.pem", Authority(critical=False).pem)
    installation.replace("[servers.main]", '[servers.main]\nca_file = "ca.pem"')

    ended = await relay("check", "--config", str(installation.toml))

    assert ended.status == 0, ended.err
    assert "warning: servers.main.ca_file" in ended.err
    assert "basic constraints not critical" in ended.err


@pytest.mark.parametrize("command", ["check", "serve"])
async def test_every_fault_of_the_configuration_is_named_at_once(installation: Installation, command: str) -> None:
    installation.replace('url = "https://mail.example.com"', 'url = "http://mail.example.com"')
    installation.replace('key_id = "ABCDE12345"', 'key_id = "short"')
    installation.replace('apps = ["com.example.mail"]', 'aps = ["com.example.mail"]')
    installation.replace('certificate_file = "api.pem"', 'certificate_file = "missing.pem"')
    (installation.folder / "fcm.json").chmod(0o644)

    ended = await relay(command, "--config", str(installation.toml))

    assert ended.status == 2
    for key in ("servers.main.url", "apns.key_id", "fcm.aps", "api.certificate_file", "fcm.service_account_file"):
        assert key in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
async def test_a_missing_configuration_says_what_to_do(tmp_path: Path) -> None:
    ended = await relay("serve", "--config", str(tmp_path / "none.toml"))

    assert ended.status == 2
    assert "none.toml" in ended.err
    assert "--config" in ended.err


@pytest.mark.slow
async def test_settings_are_found_without_an_option(installation: Installation, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    there = {"RELAY_CONFIG": str(installation.toml)}

    named = await relay("check", environ=there, cwd=elsewhere)
    nowhere = await relay("check", cwd=elsewhere)
    (elsewhere / "config").symlink_to(installation.folder)
    beside = await relay("check", cwd=elsewhere)

    assert f"{installation.toml}: good" in named.out, named.err
    assert nowhere.status == 2
    for name in ("/etc/push-relay/relay.toml", f"{elsewhere}/config/relay.toml", "--config", "RELAY_CONFIG"):
        assert name in nowhere.err
    assert "config/relay.toml: good" in beside.out, beside.err


@pytest.mark.slow
async def test_the_probe_is_a_command_in_every_folder(tmp_path: Path) -> None:
    helped = await relay("probe", "--help", cwd=tmp_path)
    faulty = await relay("probe", "--url", "http://mail.example.com", "--user", "ann", cwd=tmp_path)

    assert helped.status == 0, helped.err
    assert "relay probe" in helped.out
    assert "--password-file" in helped.out
    assert faulty.status == 2
    assert "--url takes an https URL" in faulty.err


@pytest.mark.slow
async def test_keygen_makes_keys_once(installation: Installation) -> None:
    state = installation.folder / "state"
    for key in state.iterdir():
        key.unlink()

    first = await relay("keygen", "--config", str(installation.toml))
    made = (state / "sealing-private.pem").read_bytes()
    second = await relay("keygen", "--config", str(installation.toml))

    assert first.status == 0, first.err
    assert (state / "sealing-private.pem").stat().st_mode & 0o777 == 0o600
    assert second.status == 1
    assert "exists" in second.err
    assert (state / "sealing-private.pem").read_bytes() == made


@pytest.mark.slow
async def test_the_first_start_names_all_faults_at_once(installation: Installation) -> None:
    environ = {"RELAY__API__PORT": "65536", "RELAY__DATABASE__URL": "mysql://db", "RELAY__SEALING__MODE": "none"}
    checked = await relay("check", "--config", str(installation.toml), environ=environ)
    served = await relay("serve", "--config", str(installation.toml), environ=environ)

    assert served.err.startswith("3 faults in the configuration")
    assert served == checked


@pytest.mark.slow
async def test_a_second_process_on_the_same_embedded_database_is_refused(site: Site) -> None:
    async with site.relay():
        second = await relay(
            *("serve", "--config", str(site.sandbox.toml)), environ={"RELAY__API__PORT": "1", "RELAY__OPS__PORT": "2"}
        )

    assert second.status == 1
    assert "another relay process uses the database" in second.err
    assert "Traceback" not in second.err


@pytest.mark.slow
async def test_a_port_in_use_is_said_so(site: Site, tmp_path: Path) -> None:
    environ = {"RELAY__RELAY__STATE_DIR": str(tmp_path / "other"), "RELAY__OPS__PORT": str(site.sandbox.ports.control)}
    (tmp_path / "other").mkdir()

    ended = await relay("serve", "--config", str(site.sandbox.toml), environ=environ)

    assert ended.status == 1
    assert re.search(r"address already in use", ended.err)
    assert str(site.sandbox.ports.control) in ended.err
    assert "Traceback" not in ended.err


async def test_sigterm_ends_a_relay_that_holds_pings_at_once_and_well(site: Site) -> None:
    clock = asyncio.get_running_loop().time
    async with site.relay() as running:
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        began = clock()
        status = await running.stop()

    assert status == 0
    assert clock() - began < 10
    log = running.log.read_text(encoding="utf-8")
    assert '"event": "relay stopped"' in log
    assert "Traceback" not in log
    assert "never awaited" not in log


@pytest.mark.slow
async def test_a_mail_is_delivered_to_a_sandbox_from_the_command_line(site: Site) -> None:
    control = ("--control", site.sandbox.control_url)

    delivered = await relay("deliver", ANN, "--subject", "Hello", *control)
    unknown = await relay("deliver", "nobody@example.com", *control)
    nowhere = await relay("deliver", ANN, "--control", "http://127.0.0.1:9")

    assert delivered.status == 0, delivered.err
    mailbox = site.sandbox.eas.mailbox(ANN)
    assert sum(1 for folder in mailbox.folders for _ in mailbox.items(folder)) == 1
    assert (unknown.status, nowhere.status) == (1, 1)
    assert "nobody@example.com" in unknown.err
    assert "relay sandbox" in nowhere.err


@pytest.mark.slow
async def test_an_auditor_proves_that_only_templates_left(site: Site) -> None:
    async with site.relay():
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        for number in range(1, 4):
            site.deliver()
            await site.sandbox.apns.wait(number, SOON)
    path = site.sandbox.folder / "state" / "egress" / "egress-000001.jsonl"

    untouched = await relay("audit", "verify", str(path))
    known = await relay("audit", "verify", "-c", str(site.sandbox.toml), str(path))
    folder = await relay("audit", "verify", str(path.parent))
    configured = await relay("audit", "verify", environ={"RELAY_CONFIG": str(site.sandbox.toml)})
    empty = await relay("audit", "verify", str(site.sandbox.folder / "state"))
    copy = site.sandbox.folder / "copies" / "log" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    elsewhere = await relay("audit", "verify", str(copy))
    new_key = await relay("audit", "new-key", "-c", str(site.sandbox.toml))
    path.write_bytes(path.read_bytes().replace(b"New mail", b"Minutes!", 1))
    changed = await relay("audit", "verify", str(path))
    missing = await relay("audit", "verify", str(path.with_name("none.jsonl")))

    assert untouched.status == 0, untouched.err
    assert "3 lines" in untouched.out
    assert "key" not in untouched.err, "the key is where the relay keeps it"
    assert known.status == 0, known.err
    assert "registrations are not in the database" not in known.err
    for ended in (folder, configured):
        assert ended.status == 0, ended.err
        assert "3 lines" in ended.out
        assert "key" not in ended.err
    assert empty.status == 2
    assert "there is no file of an egress log in the folder" in empty.err
    assert elsewhere.status == 0, elsewhere.err
    assert "3 lines are chained with a key that is not here" in elsewhere.err
    assert new_key.status == 0, new_key.err
    assert len((path.parent.parent / "egress.key").read_text().split()) == 2
    assert changed.status == 1
    assert f"{path}:1" in changed.err
    assert missing.status == 2


@pytest.mark.slow
async def test_the_demo_shows_what_it_promises() -> None:
    ended = await relay("demo", "--once")

    assert ended.status == 0, ended.out
    assert '"title": "New mail"' in ended.out
    assert "All was as it should be" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said", "ends"), [((), b"until Ctrl-C", 0), (("--once",), b"1 A simulated mail server", 1)]
)
async def test_the_demo_ends_by_itself_when_it_is_told_to(
    tmp_path: Path, options: tuple[str, ...], said: bytes, ends: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "demo", *options),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT):
            async for line in process.stdout:
                if said in line:
                    break
            process.terminate()
            await process.stdout.read()
            status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()

    assert status == ends
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "url", "status", "words"),
    [
        ("serve", "sqlite:////proc/nowhere/relay.sqlite3", 2, "database.url /proc/nowhere cannot be written"),
        ("check", "sqlite:////proc/nowhere/relay.sqlite3", 2, "database.url /proc/nowhere cannot be written"),
        ("migrate", "sqlite:////proc/nowhere/relay.sqlite3", 1, "No such file or directory: /proc/nowhere"),
        ("serve", "postgresql://relay@127.0.0.1:9/relay", 1, "the database does not answer"),
        ("migrate", "postgresql://relay@127.0.0.1:9/relay", 1, "the database does not answer"),
    ],
)
async def test_a_database_out_of_reach_is_told_in_words(
    installation: Installation, command: str, url: str, status: int, words: str
) -> None:
    environ = {"RELAY__DATABASE__URL": url, "RELAY__API__PORT": "1", "RELAY__OPS__PORT": "2"}

    ended = await relay(command, "--config", str(installation.toml), environ=environ)

    assert ended.status == status
    assert words in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
async def test_a_state_folder_that_is_missing_is_made_for_the_owner_only(
    installation: Installation, tmp_path: Path
) -> None:
    state = tmp_path / "other" / "state"
    keys = installation.folder / "state"
    environ = {
        "RELAY__RELAY__STATE_DIR": str(state),
        "RELAY__SEALING__PRIVATE_KEY_FILE": str(keys / "sealing-private.pem"),
        "RELAY__SEALING__PUBLIC_KEY_FILE": str(keys / "sealing-public.pem"),
    }

    ended = await relay("migrate", "--config", str(installation.toml), environ=environ)

    assert ended.status == 0, ended.err
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "relay.sqlite3").stat().st_mode & 0o777 == 0o600


async def test_a_fault_of_the_relay_itself_shows_neither_values_nor_a_traceback(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text(
        "from relay.cli import main\n"
        "@main.cli.command()\n"
        "def broken() -> None:\n"
        "    raise KeyError('canary of a password')\n"
        "main.main()\n"
    )

    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), "broken", stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()

    assert process.returncode == 1
    assert b"report the line above" in err
    assert b"KeyError" in err
    assert b"canary" not in err.replace(b"raise KeyError('canary of a password')", b"")
    assert b"Traceback" not in err
