"""The commands that copy the database: backups, their restore, and the move to another database."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from relay.cli.acting import Yes, who
from relay.cli.configuration import DEFAULT, Config
from relay.cli.output import FAILED, FAULTY, fail, failing, note, say, show_faults
from relay.cli.running import complete
from relay.domain.counted import counted
from relay.domain.errors import SettingsInvalid

if TYPE_CHECKING:
    from relay.admin.audit import Stamp
    from relay.settings.values import DatabaseSettings, KeyMaking
    from relay.store.restoring import Filled

MANY: Final = 50_000  # rows of a table after which progress is told again
KEYS: Final = "without the sealing keys: keep a copy of {private} and {public} apart from it"


def backup(
    target: Annotated[Path, typer.Argument(help="The file to write, or a folder: then its name has the time.")],
    config: Config = DEFAULT,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file if it is there.")] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave rows out that cannot be read, and name them.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the file, and what is left out.")] = False,
) -> None:
    """Write all that the relay knows into one file, for `relay restore`; the relay may run meanwhile.

    The file has no private sealing key, and no other key: keep those apart from it.
    """
    from importlib.metadata import version

    from relay.backup import transfer

    making = _making(config)
    _refuse_missing(making.database)
    with failing("the backup cannot be written"):
        work = transfer.back_up(
            making.database,
            target,
            _stamp(making),
            version("push-relay"),
            replace=replace,
            leave_out=leave_out,
            tell=_tell_nothing if quiet else _tell,
        )
        made = complete(work, "there is no backup")
    for each in made.left_out:
        note(f"left out: {each}")
    say(f"{made.path}: {made.rows} rows, schema {made.header.schema}")
    if not quiet:
        note(KEYS.format(private=making.private_key_file, public=making.public_key_file))
        note(f"also apart from it: relay.toml and the keys that it names, and {making.audit_key_file}")


def restore(
    source: Annotated[Path, typer.Argument(help="The file that `relay backup` wrote.")],
    config: Config = DEFAULT,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Destroy what the database holds; asks first.")] = False,
    unchanged: Annotated[
        bool,
        typer.Option(
            "--unchanged", help="The relay has not run since the backup, so nobody has left: let registrations ring."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Fill the database with a backup, all of it or nothing; no role may run.

    What was removed since the backup is in the database again. So no phone rings before its app has sent its device
    token again, which apps do by themselves; --unchanged lets them ring at once.
    """
    from relay.backup import transfer

    making = _making(config)
    _confirm(making.database, replace=replace, yes=yes)
    with failing("the backup cannot be read"):
        work = transfer.restore(making.database, source, _stamp(making), replace=replace, keep=unchanged, tell=_tell)
        done = complete(work, "the database is as it was, unless all was written already")
    made_at = f"{done.header.made_at:%Y-%m-%d %H:%M:%S} UTC"
    say(f"restored: the backup of {made_at}, schema {done.header.schema}, relay {done.header.relay}")
    if not unchanged:
        say(ringing_again(done.filled.silent))
        note(f"wipe again at the mail server what was wiped since {made_at}, and forget again who was forgotten since")
    _advise(making.database, done.filled)


def ringing_again(registrations: int) -> str:
    """Return what becomes of registrations after a restore."""
    verb = "is" if registrations == 1 else "are"
    return f"{counted(registrations, 'registration')} {verb} silent until the app has sent its device token again"


def move(
    to: Annotated[
        str | None,
        typer.Option("--to", help="The other database: postgresql://USER@HOST/NAME, sqlite:///FILE, or a relay.toml."),
    ] = None,
    config: Config = DEFAULT,
    password_file: Annotated[
        str | None, typer.Option("--password-file", help="File whose first line is the password of the other database.")
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option("--ca-file", help="PEM file of CAs that verify the host of the other database.")
    ] = None,
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Destroy what the other database holds; asks first.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Use the database of relay.toml again that was moved; asks first.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Move all that the relay knows into another database, from SQLite to PostgreSQL or back; no role may run.

    No phone registers again. The relay does not start on the database before any more.
    """
    from importlib.metadata import version

    from relay.backup import transfer

    making = _making(config)
    _refuse_missing(making.database)
    if undo:
        _undo(making.database, yes=yes)
        return
    if to is None:
        fail("name the other database: --to postgresql://USER@HOST/NAME, --to sqlite:///FILE or --to FILE.toml", FAULTY)
    target = _target(to, password_file, ca_file)
    if target.url == making.database.url:
        fail("--to names the database that the relay uses already", FAULTY)
    _confirm(target, replace=replace, yes=yes)
    with failing("the database cannot be moved"):
        work = transfer.move(
            making.database, target, _stamp(making), version("push-relay"), replace=replace, tell=_tell
        )
        filled = complete(work, "the relay may use the database of relay.toml as before")
    rows = sum(each.rows for each in filled.sums.values())
    say(f"moved: {rows} rows of {len(filled.sums)} tables, each table read back and compared")
    _say_next(to, target, password_file, ca_file)
    _advise(target, filled)
    note("to go back, move back in the same way, with the new relay.toml and --replace: nothing is lost then")


def _say_next(to: str, target: "DatabaseSettings", password_file: str | None, ca_file: str | None) -> None:
    """Print what to change in relay.toml."""
    if "://" not in to:
        say(f"start the relay with the table [database] of {to}")
        return
    say("write into relay.toml, then start the relay:")
    say("[database]")
    say(f'url = "{to if target.file is None else target.url}"')
    files = (("password_file", password_file), ("ca_file", ca_file))
    for name, value in files:
        if value is not None and target.file is None:
            say(f'{name} = "{Path(value).absolute()}"')


def _undo(database: "DatabaseSettings", *, yes: bool) -> None:
    """Let the relay use a database again that was moved."""
    from relay.backup import transfer

    question = "If the relay has run on the other database since, phones ring that should not. Use this one again?"
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)
    with failing("the database cannot be used"):
        moved = complete(transfer.undo_move(database), "nothing has changed")
    say("the relay may use this database again" if moved else "this database was not moved")


def _tell(doing: str, rows: int, *, whole: bool) -> None:
    if rows and (whole or rows % MANY == 0):
        note(f"  {doing}: {rows}{'' if whole else ' ...'}")


def _tell_nothing(doing: str, rows: int, *, whole: bool) -> None:
    """Hear of progress, and say nothing."""


def _advise(database: "DatabaseSettings", filled: "Filled") -> None:
    """Say what else the relay needs before it starts."""
    if filled.credentials:
        kept = counted(filled.credentials, "credential")
        note(f"{kept}: each opens only with the key that it was sealed for, and `relay keys list` names the keys")
    if database.file is None and not filled.granted:
        note("where roles have users of their own: run `relay migrate --grants` as the owner of the database")


def _confirm(database: "DatabaseSettings", *, replace: bool, yes: bool) -> None:
    """Ask before a database loses what it holds."""
    if replace and not yes:
        name = database.file or database.url.partition("@")[2]
        if not typer.confirm(f"Destroy what the database {name} holds?", err=True):
            raise typer.Exit(FAILED)


def _making(config: Path) -> "KeyMaking":
    from relay.process import log
    from relay.settings import key_making

    try:
        making = key_making(config, os.environ)
    except SettingsInvalid as error:
        show_faults(error)
    log.configure("warning", "text", sys.stderr)
    return making


def _target(to: str, password_file: str | None, ca_file: str | None) -> "DatabaseSettings":
    """Return the settings of the other database; end the command if they are faulty."""
    from relay.domain.model import Role
    from relay.settings import database_named, database_of

    if "://" not in to and (password_file or ca_file):
        fail("--password-file and --ca-file go with a URL: a relay.toml names such files itself", FAULTY)
    try:
        if "://" in to:
            return database_named(to, password_file, ca_file, os.environ)
        return database_of(Path(to), os.environ, Role.ALL)
    except SettingsInvalid as error:
        show_faults(error)


def _refuse_missing(database: "DatabaseSettings") -> None:
    """End the command if an embedded database is not there."""
    from relay.settings.contents import missing

    if database.file is not None and missing(database.file):
        fail(f"there is no database {database.file}", FAILED)


def _stamp(making: "KeyMaking") -> "Stamp":
    """Return the stamp of the act; raises OSError."""
    from relay.admin.audit import Stamp
    from relay.admin.keeping import open_keys
    from relay.app import CLI
    from relay.process.clock import now

    return Stamp(who(), CLI, now(), open_keys(making.audit_key_file))
