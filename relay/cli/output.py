"""Own what commands say on the terminal when they cannot go on, and the status they end with.

Exit statuses: 0 all is well, 1 it failed, 2 the configuration or the arguments are faulty.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from relay.domain.errors import (
    DatabaseInUse,
    DatabaseRefuses,
    MigrationsPending,
    RelayBroke,
    SchemaNewer,
    SettingsInvalid,
    StoreUnavailable,
)

FAILED: Final = 1
FAULTY: Final = 2

out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


def show_faults(error: SettingsInvalid) -> NoReturn:
    """Name every fault of the configuration, and end the command."""
    faults = error.faults
    err.print(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in the configuration:", style="bold red")
    for key, wrong, remedy in faults:
        # Remedies name tables as [apns], which must not be taken for markup.
        err.print(f"  [bold]{escape(key)}[/bold] {escape(f'{wrong}. {remedy}')}", soft_wrap=True)
    raise typer.Exit(FAULTY)


def fail(text: str, status: int) -> NoReturn:
    """Say why a command cannot go on, and end it."""
    err.print(text, style="red", soft_wrap=True, markup=False)
    raise typer.Exit(status)


@contextmanager
def failing(cannot: str) -> Iterator[None]:
    """Say in words what keeps a command from its work; `cannot` begins the sentence about what the system refuses."""
    try:
        yield
    except (DatabaseInUse, DatabaseRefuses, MigrationsPending, RelayBroke, SchemaNewer) as error:
        fail(str(error), FAILED)
    except StoreUnavailable as error:
        fail(f"the database does not answer: {error}. Check database.url, and that the database runs.", FAILED)
    except OSError as error:
        fail(f"{cannot}: {describe(error)}", FAILED)


def describe(error: OSError) -> str:
    """Say what went wrong, and with which file if it was one."""
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
