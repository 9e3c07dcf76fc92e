"""What commands print, and the exit status if they cannot go on.

Exit statuses: 0 all is well, 1 it failed, 2 the configuration or the arguments are faulty.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from relay.domain.counted import counted
from relay.domain.errors import (
    BackupInvalid,
    DatabaseBusy,
    DatabaseFilled,
    DatabaseInUse,
    DatabaseMoved,
    DatabaseNewer,
    DatabaseRefuses,
    KeyLost,
    MigrationsPending,
    NotificationsLost,
    PortTaken,
    RelayBroke,
    RowsForbidden,
    RowsUnreadable,
    SchemaNewer,
    SessionsShared,
    SettingsInvalid,
    StoreUnavailable,
)
from relay.domain.model import Role

FAILED: Final = 1
FAULTY: Final = 2
FULL: Final = re.compile(r"is full|No space left")
"""What SQLite and PostgreSQL say when their disk has no room."""

ENDS: Final = (
    *(BackupInvalid, DatabaseBusy, DatabaseFilled, DatabaseInUse, DatabaseMoved, DatabaseNewer, DatabaseRefuses),
    *(KeyLost, MigrationsPending, NotificationsLost, PortTaken, RelayBroke),
    *(RowsForbidden, RowsUnreadable, SchemaNewer, SessionsShared),
)
"""The errors that end a command; each says what to do."""


def say(text: str, *, green: bool = False) -> None:
    """Print a result, for people and scripts; only a terminal shows the colour."""
    typer.secho(text, fg=typer.colors.GREEN if green else None)


def note(text: str) -> None:
    """Print a hint or a finding to standard error: everything that is not the result."""
    typer.echo(text, err=True)


def show_faults(error: SettingsInvalid, role: Role | None = None) -> NoReturn:
    """Print every fault of the configuration and end the command; the role, if any, for which it was read."""
    faults = error.faults
    read = "" if role is None else f" for role {role.value}"
    heading = f"{counted(len(faults), 'fault')} in the configuration{read}:"
    typer.secho(heading, fg=typer.colors.RED, bold=True, err=True)
    for key, wrong, remedy in faults:
        note(f"  {typer.style(key, bold=True)} {wrong}. {remedy}")
    raise typer.Exit(FAULTY)


def show_warnings(warnings: Iterable[tuple[str, str, str]]) -> None:
    """Print what works but should change; the command goes on."""
    for key, wrong, remedy in warnings:
        note(f"  warning: {typer.style(key, bold=True)} {wrong}. {remedy}")


def fail(text: str, status: int) -> NoReturn:
    """Print why a command cannot go on and end it."""
    typer.secho(text, fg=typer.colors.RED, err=True)
    raise typer.Exit(status)


@contextmanager
def failing(cannot: str) -> Iterator[None]:
    """Print the errors that an operator can remedy, and end the command; `cannot` begins the text of an OSError."""
    try:
        yield
    except ENDS as error:
        fail(str(error), FAILED)
    except StoreUnavailable as error:
        fail(f"the database does not answer: {error}. {_remedy(error)}", FAILED)
    except OSError as error:
        fail(f"{cannot}: {describe(error)}", FAILED)


def _remedy(error: StoreUnavailable) -> str:
    if FULL.search(str(error)):
        return "Make room on the disk of the database."
    return "Check database.url, and that the database runs."


def describe(error: OSError) -> str:
    """Return the text of an OSError with its file, if it names one."""
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
