"""The commands of the program `relay`.

Each command imports what it needs when it runs: `relay --help` loads neither the roles nor the sandbox, and a process
loads only the libraries of its own role.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, TypeVar

import typer

from relay.cli.acting import RoleOption, refuse_no_database, who
from relay.cli.backups import backup, move, restore, ringing_again
from relay.cli.configuration import DEFAULT, Config, default_config
from relay.cli.doctor import doctor
from relay.cli.init import init, write_shipped
from relay.cli.invitations import invitations
from relay.cli.keys import keys
from relay.cli.mailboxes import mailboxes, maintenance
from relay.cli.output import FAILED, FAULTY, describe, fail, failing, note, say, show_faults, show_warnings
from relay.cli.phone import phone
from relay.cli.registrations import registrations
from relay.cli.running import complete, run
from relay.cli.sandbox import deliver, sandbox
from relay.cli.status import check_health, status
from relay.domain.counted import counted
from relay.domain.errors import KeyLost, RelayError, SettingsInvalid
from relay.domain.model import Role
from relay.process import core_dumps

if TYPE_CHECKING:
    from relay.settings.values import KeyMaking, Settings

T = TypeVar("T")

cli = typer.Typer(
    name="relay",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # else a paragraph keeps the line ends that its docstring has
)
audits = typer.Typer(help="Check what left the company, and what administrators did.", no_args_is_help=True)
cli.add_typer(audits, name="audit")
wipes = typer.Typer(
    help="Let users come back whose device an administrator wiped.", no_args_is_help=True, rich_markup_mode=None
)
cli.add_typer(wipes, name="wipes")
cli.add_typer(invitations, name="invitations")
cli.add_typer(keys, name="keys")
cli.add_typer(sandbox, name="sandbox")
cli.add_typer(mailboxes, name="mailboxes")
cli.add_typer(registrations, name="registrations")
cli.command()(maintenance)
cli.command()(deliver)
cli.command()(doctor)
cli.command()(phone)
cli.command()(status)
cli.command("check-health")(check_health)
cli.command()(init)
cli.command()(backup)
cli.command()(restore)
cli.command()(move)
cli.command("files")(write_shipped)

ServedRole = Annotated[Role, typer.Option("--role", help="What this process does; all: everything.")]
MANY: Final = 10  # registrations that one note names


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"relay {version('push-relay')}")
        raise typer.Exit


@cli.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """On-prem push notification relay: ActiveSync Pings inside, content-free pushes outside."""
    del version  # its callback has answered


@cli.command()
def serve(config: Config = DEFAULT, role: ServedRole = Role.ALL) -> None:
    """Run the relay until SIGTERM or Ctrl-C."""
    from relay import app
    from relay.process import log, service_manager
    from relay.settings import load

    sockets = service_manager.passed_sockets(os.environ, os.getpid())
    manager = service_manager.ServiceManager.of(os.environ, os.getpid())
    settings = _load(config, role, first=role is Role.ALL)
    if settings.sealing.private is None and role is Role.ALL:
        _make_first_keys(config, sockets)
        settings = _load(config, role)
    log.configure(settings.log.level, settings.log.format, sys.stderr)
    _prepare(settings, serves=True, ports=sockets)
    around = app.Surroundings(manager, sockets, config, partial(load, config, os.environ, role))
    for key, wrong, remedy in settings.warnings:
        logging.getLogger(__name__).warning("setting noted", extra={"key": key, "wrong": wrong, "remedy": remedy})
    with failing("cannot listen or reach the database"):
        run(app.serve(settings, around))


@cli.command()
def check(config: Config = DEFAULT, role: ServedRole = Role.ALL) -> None:
    """Check the configuration of a role and name every fault at once."""
    settings = _load(config, role, first=role is Role.ALL)
    _prepare(settings, serves=False)
    if settings.sealing.private is None and role is Role.ALL:
        _refuse_lost_keys(_key_making(config))
        say("the first start makes the sealing keys")
    say(f"{config}: good for role {role.value}.", green=True)
    show_warnings(settings.warnings)
    for name, server in settings.servers.items():
        say(f"  server {name}: {server.url}")
    for platform, apps in settings.apps.items():
        if apps:
            say(f"  {platform.value}: {', '.join(sorted(apps))}")


@cli.command()
def keygen(
    config: Config = DEFAULT,
    *,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Destroy the stored credentials, whose key is lost: users must log in again."),
    ] = False,
) -> None:
    """Make the sealing keys: the private one for the watch role, the public one for the api role."""
    from relay import app
    from relay.cli.keygen import KeysExist, refuse_existing, write_sealing_keys
    from relay.process import log

    making = _key_making(config)
    log.configure("error", "text", sys.stderr)
    try:
        refuse_existing(making.private_key_file, making.public_key_file)
        if forget:
            with failing("cannot reach the database"):
                number = complete(app.forget_credentials(making.database, making.audit_key_file, who()))
            note(f"{counted(number, 'credential')} destroyed")
        else:
            _refuse_lost_keys(making)
        write_sealing_keys(making.private_key_file, making.public_key_file)
    except KeysExist as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"the sealing keys cannot be written: {describe(error)}", FAILED)
    say(f"{making.private_key_file}: for the watch role alone; keep a copy in a safe place")
    say(f"{making.public_key_file}: for the api role")


@cli.command()
def vapid(
    config: Config = DEFAULT,
    *,
    new: Annotated[bool, typer.Option("--new", help="Make the key first; one that is there stays.")] = False,
) -> None:
    """Print the public key that apps subscribe with by WebPush; nothing else, so that scripts can read it."""
    from relay.cli.keygen import KeysExist, write_vapid_key
    from relay.push.webpush.vapid import public_key
    from relay.settings import vapid_key_file

    try:
        file = vapid_key_file(config, os.environ)
    except SettingsInvalid as error:
        show_faults(error)
    try:
        if new:
            write_vapid_key(file)
            note(f"{file}: for the push role alone; keep a copy in a safe place")
        say(public_key(file.read_bytes()))
    except KeysExist as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"the VAPID key cannot be read or written: {describe(error)}", FAILED)
    except ValueError as error:
        fail(f"{file} {error}", FAULTY)


@cli.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def probe(context: typer.Context) -> None:
    """Look at a mail server before the relay does, without settings: `relay probe --url HOST --user USER`."""
    from eas_watcher.tools.probe.arguments import main as run_probe

    raise typer.Exit(run_probe(["probe", *context.args], program="relay"))


@cli.command()
def migrate(
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    *,
    grants: Annotated[
        bool,
        typer.Option("--grants", help="On PostgreSQL: also give the user of each role its rights, and no others."),
    ] = False,
) -> None:
    """Bring the database to the schema of this version; `serve` does it by itself on an embedded database.

    It reads the table [database] alone, so any role will do.
    """
    from relay import app
    from relay.process import log
    from relay.settings import database_of

    try:
        database = database_of(config, os.environ, role)
    except SettingsInvalid as error:
        show_faults(error)
    log.configure("warning", "text", sys.stderr)
    if grants and database.file is not None:
        fail("--grants is for PostgreSQL: this database is embedded, and has no users", FAULTY)
    with failing("cannot reach the database"):
        complete(app.migrate(database, grants=grants))
    say(f"the database has the schema of this version{', and each role has its rights' if grants else ''}")


@audits.command()
def verify(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders or files of egress logs; none: the folder that relay.toml names."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="The keys of the chain; else egress.key in the folder above.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="The folder with egress.anchor; else the folder above.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A relay.toml, to look registrations up in its database.", readable=False),
    ] = None,
    role: RoleOption = Role.ALL,
    *,
    acts: Annotated[bool, typer.Option("--acts", help="Check the log of administrative acts in the database.")] = False,
) -> None:
    """Prove that nothing but templates left: find any line that was changed, removed, moved, or is no template.

    With --acts, check the log of what administrators did instead.
    """
    from relay.push.egress.auditing import audit, files_of

    if acts:
        _verify_acts(_load_database(config or default_config(), role))
        return
    if not logs and config is None:
        config = default_config()
    settings = None if config is None else _load(config, role)
    if settings is not None:
        key, state = key or settings.egress.key_file, state or settings.state_dir
    try:
        found = audit(files_of(logs or ([] if settings is None else [settings.egress.folder])), key, state)
    except OSError as error:
        fail(f"cannot be read: {describe(error)}", FAULTY)
    except ValueError as error:
        fail(f"cannot be read: {error}", FAULTY)
    for fault in found.faults:
        note(f"{fault.where}: {fault.text}")
    for text in found.notes:
        note(text)
    if settings is not None:
        _note_unknown(settings, found.seen.registrations)
    if found.faults:
        fail(f"{counted(len(found.faults), 'fault')} in {counted(found.seen.lines, 'line')}", FAILED)
    say(f"{counted(found.seen.lines, 'line')}, unbroken, and every body is one of the templates")


@audits.command("acts")
def list_acts(
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Entries at most, the newest ones.")] = 100,
    user: Annotated[str | None, typer.Option("--user", help="Only acts about this user, in any spelling.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """List what administrators did, the newest first: number, when, who, how, what, server, user's hash; by tabs."""
    from relay import app
    from relay.admin.documents import act
    from relay.process import log

    settings = _load_database(config, role)
    log.configure("error", "text", sys.stderr)
    with failing("cannot read the audit log"):
        found = [act(each) for each in complete(app.acts_of(settings, user, limit))]
    if as_json:
        say(json.dumps(found, indent=2))
        return
    for each in found:
        typer.echo("\t".join(str(each[name]) for name in ("number", "at", "who", "via", "what", "server", "subject")))


@audits.command()
def new_key(config: Config = DEFAULT, role: RoleOption = Role.ALL) -> None:
    """Add a new key for the chain of the egress log; the push role uses it from its next start on."""
    from relay.push.egress.keeping import add_key

    file = _load(config, role).egress.key_file
    try:
        key = add_key(file)
    except (OSError, ValueError) as error:
        fail(f"the key cannot be added: {error}", FAILED)
    say(f"{file}: new key {key.id}; keep a copy, older lines need the older keys. Restart the push role.")


@cli.command()
def explain(
    name: Annotated[str, typer.Argument(help="Id of a registration or mailbox, or a user, or a part of one.")],
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    *,
    at: Annotated[
        str | None, typer.Option("--at", help="Explain this moment: 14:05, the last one, or 2026-11-29T14:05; local.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """Explain a mailbox: its last Ping, change and push, what the provider said, what happened, and what to do now."""
    from relay import app
    from relay.ops.explain import document, strangers, text
    from relay.ops.timeline import AROUND, read_moment
    from relay.process import log
    from relay.process.clock import now

    settings, moment = _load_database(config, role), None
    if at is not None:
        try:
            moment = read_moment(at, now())
        except ValueError as error:
            fail(f"--at: {error}", FAULTY)
    log.configure("error", "text", sys.stderr)
    with failing("cannot reach the database"):
        before = None if moment is None else moment + AROUND
        found = complete(app.explain(settings, name, settings.retention.events_of_one, before))
    if as_json:
        say(json.dumps(document(found, now(), moment), indent=2))
    else:
        typer.echo("\n".join(text(mailbox, now(), at=moment) for mailbox in found.mailboxes), nl=False)
        typer.echo(strangers(found, name, now(), at=moment), nl=False)
    if len(found.similar) > 1:
        fail(f"{len(found.similar)} mailboxes have {name!r} in their user: name one of them", FAILED)
    if not found.mailboxes and not found.events:
        fail(f"no mailbox, registration or user {name!r} is known", FAILED)


@cli.command()
def restored(config: Config = DEFAULT, role: RoleOption = Role.ALL) -> None:
    """Say that the database was restored from a backup: no phone rings before its app has sent its device token again.

    Run it after the restore and `relay migrate`, before any role starts: what was removed since the backup is in the
    database again.
    """
    from relay import app
    from relay.process import log

    settings = _load_database(config, role)
    log.configure("warning", "text", sys.stderr)
    with failing("cannot reach the database"):
        number = complete(app.distrust(settings, who()))
    say(ringing_again(number))


@wipes.command("list")
def list_wipes(config: Config = DEFAULT, role: RoleOption = Role.ALL) -> None:
    """List the accounts that nobody may register for, since their device was wiped: user, server, when; by tabs."""
    from relay import app
    from relay.process import log

    settings = _load_database(config, role)
    log.configure("error", "text", sys.stderr)
    with failing("cannot reach the database"):
        accounts = complete(app.wiped_accounts(settings))
        if not accounts:
            note("no wiped account waits to be allowed")
        for each in accounts:
            typer.echo(f"{each.user}\t{each.server}\t{each.wiped_at:%Y-%m-%dT%H:%M:%SZ}")


@wipes.command()
def allow(
    user: Annotated[str, typer.Argument(help="The user whose mailbox was wiped, in any spelling.")],
    server: Annotated[str | None, typer.Option(help="Name of the server in relay.toml; else at all of them.")] = None,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
) -> None:
    """Let a user register again whose device was wiped; allow the relay's device at the mail server, too."""
    from relay import app
    from relay.process import log

    settings = _load_database(config, role)
    log.configure("warning", "text", sys.stderr)
    with failing("cannot reach the database"):
        allowed = complete(app.allow_wiped(settings, user, server, who()))
    for each in allowed:
        say(f"{each.user} at {each.server} may register again")
    if not allowed:
        fail(f"no wiped account of {user!r} is known: `relay wipes list` lists them", FAILED)


@cli.command()
def demo(once: Annotated[bool, typer.Option("--once", help="End after the show, with status 0 or 1.")] = False) -> None:
    """Show the main job: sandbox and relay start, two phones register, mails come, and what left is shown."""
    from rich.console import Console

    from relay.process import log
    from relay.sandbox.demo import run_demo

    log.configure("error", "text", sys.stderr)
    if not run(run_demo(Console(highlight=False), once=once)):
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the program `relay`."""
    core_dumps.forbid()
    try:
        cli()
    except Exception as error:  # noqa: BLE001 -- the last catch: a traceback would show values
        _fail_unforeseen(error)


def _fail_unforeseen(error: Exception) -> NoReturn:
    """Log where a command broke, without values, and end it."""
    from relay.process import log

    log.configure("error", "json", sys.stderr)
    frames = "".join(traceback.format_tb(error.__traceback__))
    logging.getLogger(__name__).error("command broke", extra={"error": type(error).__name__, "frames": frames})
    note("the relay broke by a fault of its own: report the line above, which holds none of your settings")
    sys.exit(FAILED)


def _load(config: Path, role: Role, *, first: bool = False) -> "Settings":
    from relay.settings import load

    try:
        return load(config, os.environ, role, first=first)
    except SettingsInvalid as error:
        show_faults(error, role)


def _load_database(config: Path, role: Role) -> "Settings":
    """Load the settings of a command that needs the database; end it if there is none yet."""
    settings = _load(config, role)
    refuse_no_database(settings)
    return settings


def _prepare(settings: "Settings", *, serves: bool, ports: Collection[int] = ()) -> None:
    """Check what serving needs of this host, in the same way for `check` and `serve`."""
    from relay import app

    try:
        with failing("this host cannot be looked at"):
            app.look_at_host(settings, serves=serves, ports=ports)
    except SettingsInvalid as error:
        show_faults(error, settings.role)


def _verify_acts(settings: "Settings") -> None:
    """Check the log of administrative acts; end the command with a status that says how it is."""
    from relay import app

    with failing("cannot read the audit log"):
        found = complete(app.verify_acts(settings))
    for fault in found.faults:
        note(fault)
    if found.faults:
        fail(f"{counted(len(found.faults), 'fault')} in {counted(found.entries, 'act')}", FAILED)
    say(f"{counted(found.entries, 'act')}, unbroken; the last one is {found.end}")


def _note_unknown(settings: "Settings", registrations: set[str]) -> None:
    """Name the registrations of an egress log that the database does not have."""
    from relay import app

    with failing("cannot reach the database"):
        unknown = sorted(complete(app.unknown_registrations(settings, registrations)))
    if unknown:
        shown = ", ".join(unknown[:MANY])
        note(
            f"{len(unknown)} of {len(registrations)} registrations are not in the database, as they were removed since "
            f"or never existed: {shown}{', ...' if len(unknown) > MANY else ''}"
        )


def _key_making(config: Path) -> "KeyMaking":
    from relay.settings import key_making

    try:
        return key_making(config, os.environ)
    except SettingsInvalid as error:
        show_faults(error)


def _refuse_lost_keys(making: "KeyMaking") -> None:
    """End the command if the database holds credentials that only a key opens which is not here.

    A database that does not answer does not stop it: the watch role looks again when it starts.
    """
    from relay import app

    try:
        lost = complete(app.sealed_for_others(making.database, making.former))
    except (RelayError, OSError) as error:
        note(f"not asked whether the database holds credentials of another key: {error}")
        return
    if lost is not None:
        fail(str(KeyLost(lost.number, making.private_key_file, lost.keys)), FAILED)


def _make_first_keys(config: Path, ports: Collection[int]) -> None:
    """Make the sealing keys of a new installation, which has neither.

    If they cannot be written, the command ends as it does for any other fault of the host; sockets on `ports` listen
    already.
    """
    from relay.cli.keygen import write_sealing_keys

    making = _key_making(config)
    private, public = making.private_key_file, making.public_key_file
    try:
        _refuse_lost_keys(making)
        write_sealing_keys(private, public)
        note(f"new sealing keys in {private.parent}: keep a copy, stored credentials open with them alone")
    except OSError as error:
        _prepare(_load(config, Role.ALL, first=True), serves=True, ports=ports)
        fail(f"the sealing keys cannot be written: {describe(error)}", FAILED)
