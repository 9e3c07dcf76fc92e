"""`relay init` as an administrator uses it: what it writes passes `relay check`, and reaches the first push."""

import asyncio
import base64
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from relay.domain.model import Role
from relay.installing.database_users import verifier
from relay.sandbox.process import open_relay
from relay.store.engine import open_database
from relay.store.privileges import ROLES, excess
from tests.acceptance.test_cli import relay
from tests.acceptance.test_phone import phone
from tests.installation import Installation
from tests.ports import free_ports
from tests.postgres import PostgresServer, running_postgres
from tests.site import Site

PUSHED: Final = 'register\nexpect state watching within 60s\ndeliver\nexpect banner "New mail"\n'


def options(site: Installation) -> tuple[str, ...]:
    """Return what an administrator gives, with the files of an installation."""
    return (
        *("--server", "https://mail.example.com", "--domain", "example.com", "--app", "com.example.mail"),
        *("--apns", str(site.folder / "apns.p8"), "--apns-key-id", "ABCDE12345", "--apns-team", "TEAM567890"),
        *("--fcm", str(site.folder / "fcm.json"), "--webpush-host", "push.example.com"),
        *("--contact", "mailto:push@example.com"),
        *("--certificate", str(site.folder / "api.pem"), "--key", str(site.folder / "api.key")),
    )


@pytest.fixture
def given(tmp_path: Path) -> Installation:
    (tmp_path / "given").mkdir()
    return Installation(tmp_path / "given")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def listening() -> dict[str, str]:
    """Return variables that choose free ports."""
    api, ops = free_ports(2)
    return {"RELAY__API__PORT": str(api), "RELAY__OPS__PORT": str(ops)}


async def test_init_passes_check_when_everything_is_given(given: Installation, tmp_path: Path) -> None:
    made = await relay("init", str(tmp_path / "new"), *options(given))
    checked = await relay("check", "--config", str(tmp_path / "new/relay.toml"), environ=listening())

    assert made.status == 0, made.err
    assert "Fill in" not in made.out
    assert checked.status == 0, checked.err
    assert "the first start makes" not in checked.out
    assert "webpush: com.example.mail" in checked.out


@pytest.mark.slow
async def test_a_mail_server_may_be_named_by_its_host_alone(tmp_path: Path) -> None:
    made = await relay("init", str(tmp_path / "new"), "--server", "mail.example.com", "--non-interactive")

    assert made.status == 0, made.err
    assert 'url = "https://mail.example.com"' in (tmp_path / "new/relay.toml").read_text()


@pytest.mark.slow
async def test_check_names_the_blanks_of_init_and_no_other_setting(given: Installation, tmp_path: Path) -> None:
    made = await relay("init", str(tmp_path / "new"), "--non-interactive")
    checked = await relay("check", "--config", str(tmp_path / "new/relay.toml"), environ=listening())

    blanks = made.out.partition("relay.toml: ")[2].partition(".\n")[0].split(", ")
    named = {line.split()[0] for line in checked.err.splitlines()[1:]}
    assert checked.status == 2
    assert "servers.main.url" in blanks
    assert named == {
        *blanks,
        *("api.certificate_file", "api.key_file", "apns.key_file", "fcm.service_account_file"),
    }


@pytest.mark.slow
async def test_init_never_writes_over_a_file(given: Installation, tmp_path: Path) -> None:
    first = await relay("init", str(tmp_path / "new"), *options(given))
    before = {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    second = await relay("init", str(tmp_path / "new"), *options(given))

    assert first.status == 0
    assert second.status == 1
    assert "nothing is written over" in second.err
    assert {path: path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--roles", "api,wach"), "--roles is 'api,wach': write all, or some of api,watch,push"),
        (("--roles", "all,api"), "write all, or some of"),
        (("--owner", "nobody-here"), "this host has no user nobody-here"),
        (("--sandbox", "nowhere"), "start `relay sandbox --folder nowhere` first"),
    ],
)
async def test_init_says_what_is_wrong_with_its_arguments(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    ended = await relay("init", str(tmp_path / "new"), *arguments)

    assert ended.status == 2
    assert says in ended.err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = await relay("init", str(tmp_path / "file/new"), "--non-interactive")

    assert ended.status == 1
    assert "nothing is written" in ended.err


@pytest.mark.slow
async def test_the_first_push_of_what_init_writes_for_a_sandbox(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    made = await relay("init", str(folder), "--sandbox", str(site.sandbox.folder))
    assert made.status == 0, made.err
    assert "Fill in" not in made.out

    async with open_relay(folder / "relay.toml", site.sandbox.ports.ops):
        ended = await phone(site, PUSHED)

    assert ended.status == 0, ended.err


@asynccontextmanager
async def initiated(folder: Path, given: Installation, postgres: PostgresServer) -> AsyncIterator[dict[Role, Path]]:
    """Make three roles and their users on PostgreSQL, whose socket the settings name."""
    made = await relay(
        *("init", str(folder), "--roles", "api,watch,push", *options(given)),
        *("--database", f"localhost/relay?host={postgres.socket.parent}"),
    )
    assert made.status == 0, made.err
    for statement in (folder / "postgres/users.sql").read_text().splitlines():
        if not statement.startswith("--"):
            await postgres.execute(statement)
    migrated = await relay("migrate", "--grants", "--config", str(folder / "migrate/relay.toml"))
    assert migrated.status == 0, migrated.err
    yield {role: folder / role.value / "relay.toml" for role in (Role.API, Role.WATCH, Role.PUSH)}
    await postgres.drop("relay")


@pytest.mark.slow
async def test_three_roles_pass_check_and_have_the_rights_of_their_role_alone(
    given: Installation, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with initiated(tmp_path / "new", given, postgres) as configs:
        for role, config in configs.items():
            checked = await relay("check", "--role", role.value, "--config", str(config), environ=listening())
            assert checked.status == 0, checked.err
            url = tomllib.loads(config.read_text())["database"]["url"]
            async with open_database(url) as database:
                assert await excess(database, role) == []
        assert await stored_as_postgresql_does(tmp_path / "new", postgres)


async def stored_as_postgresql_does(folder: Path, postgres: PostgresServer) -> bool:
    """Return whether PostgreSQL itself would take each password for the verifier that it was given."""
    connection = await asyncpg.connect(user="postgres", database="postgres", host=str(postgres.socket.parent))
    try:
        stored = dict(await connection.fetch("SELECT rolname, rolpassword FROM pg_authid WHERE rolname ~ '^relay'"))
        for user, home in {"relay": "migrate", **{user: user.removeprefix("relay_") for user in ROLES}}.items():
            password = (folder / home / "database.password").read_text().strip()
            salt = base64.b64decode(stored[user].split("$")[1].partition(":")[2])
            if verifier(password, salt) != stored[user]:
                return False
    finally:
        await connection.close()
    return True


@pytest.mark.slow
async def test_grants_are_for_postgresql(given: Installation) -> None:
    ended = await relay("migrate", "--grants", "--config", str(given.toml))

    assert ended.status == 2
    assert "--grants is for PostgreSQL" in ended.err


@pytest.mark.slow
async def test_files_are_listed_and_written_once(tmp_path: Path) -> None:
    listed = await relay("files")
    first = await relay("files", str(tmp_path / "out"))
    second = await relay("files", str(tmp_path / "out"))

    assert "relay.service" in listed.out
    assert (first.status, second.status) == (0, 1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {line.split()[0] for line in listed.out.splitlines()}


@pytest.mark.parametrize("command", [("relay",), ("eas_watcher",)])
async def test_every_program_shows_its_version(command: tuple[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command, "--version"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()

    assert process.returncode == 0
    assert out.decode().strip() == f"{command[0]} 0.1.0"
