"""What the commands of administrators share: options, who acts, and how results are printed."""

import json
import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from relay.cli.output import FAILED, FAULTY, fail, failing, note, say, show_faults
from relay.cli.running import complete
from relay.domain.errors import SettingsInvalid
from relay.domain.model import RegistrationId, Role

if TYPE_CHECKING:
    from relay.admin.administration import Administration
    from relay.admin.values import Done, MailboxFilter, NotDone, Order, Page
    from relay.settings.values import Settings

T = TypeVar("T")

RoleOption = Annotated[Role, typer.Option("--role", help="Whose settings and database user are used.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="Rows at most; --cursor shows what follows.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")]
Server = Annotated[str | None, typer.Option("--server", help="Name of the mail server in relay.toml.")]
UserPart = Annotated[str, typer.Option("--user", help="A part of the user's name.")]
State = Annotated[WatchState | None, typer.Option("--state", help="State of the mailbox.")]
Names = Annotated[
    list[str] | None, typer.Argument(help="Ids of mailboxes or registrations, or users; else all that the options say.")
]
Given = Annotated[list[str], typer.Argument(help="Ids of mailboxes or registrations, or users.")]
Ids = Annotated[list[str], typer.Argument(help="Ids of registrations.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def who() -> str:
    """Return who acts, for the audit log: the user of the operating system who called, through sudo or not."""
    if called := os.environ.get("SUDO_USER"):
        return called
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may have users without names
        return str(os.getuid())


def settings_of(config: Path, role: Role) -> "Settings":
    """Return the settings of a command that needs the database; end it if there is none."""
    from relay.process import log
    from relay.settings import load

    try:
        settings = load(config, os.environ, role)
    except SettingsInvalid as error:
        show_faults(error, role)
    log.configure("warning", "text", sys.stderr)
    refuse_no_database(settings)
    return settings


def refuse_no_database(settings: "Settings") -> None:
    """End a command that needs the database if the embedded one was not made yet."""
    from relay.settings.contents import missing

    file = settings.database.file
    if file is not None and missing(file):
        fail(
            f"there is no database {file}: the relay has not started with these settings yet, or uses others; name its "
            "relay.toml with --config",
            FAILED,
        )


def administer(config: Path, role: Role, work: "Callable[[Administration], Awaitable[T]]") -> T:
    """Do some work of an administrator with the database of a relay.toml; end the command if it cannot be done."""
    return run_with(settings_of(config, role), work)


def run_with(settings: "Settings", work: "Callable[[Administration], Awaitable[T]]") -> T:
    """Do some work of an administrator; end the command if it cannot be done."""
    from relay import app
    from relay.admin.values import BadCursor, Unknown

    async def working() -> T:
        async with app.administration(settings) as admin:
            return await work(admin)

    try:
        with failing("cannot read or write"):
            return complete(working())
    except Unknown as error:
        lists = "`relay mailboxes list` and `relay registrations list` show servers, users and ids"
        fail(f"nothing of the name {str(error)!r} is known: {lists}", FAILED)
    except BadCursor:
        fail("the row at which this page begins is gone: list from the beginning", FAILED)


def filter_of(server: str | None, state: WatchState | None, user: str) -> "MailboxFilter | None":
    """Return the filter that options make; None: there are none."""
    from relay.admin.values import MailboxFilter

    return MailboxFilter(server, state, user) if server or state or user else None


async def chosen(
    admin: "Administration", names: Iterable[str] | None, wanted: "MailboxFilter | None"
) -> list[MailboxId]:
    """Return the mailboxes that names mean, those of them that a filter lets through, or all that it does."""
    from relay.admin.values import MOST, Unknown

    if names:
        named = {id_: None for name in names for id_ in await admin.named(name)}
        if wanted is None:
            return list(named)
    passed: list[MailboxId] = []
    cursor: str | None = None
    while wanted is not None:
        page = await admin.mailboxes(wanted, MOST, cursor)
        passed += [each.mailbox.id for each in page.rows]
        cursor = page.cursor
        if cursor is None:
            break
    if not names:
        return passed
    both = [id_ for id_ in named if id_ in set(passed)]
    if not both:
        raise Unknown(", ".join(names))
    return both


def order_all(
    order: "Order",
    names: list[str] | None,
    config: Path,
    role: Role,
    wanted: "MailboxFilter | None",
    *,
    as_json: bool,
) -> None:
    """Do what is ordered about mailboxes, and print what became of it."""
    if not names and wanted is None:
        fail("name mailboxes or users, or say which ones by --server, --state or --user", FAULTY)

    async def ordering(admin: "Administration") -> "list[tuple[str, Done | NotDone]]":
        ids = await chosen(admin, names, wanted)
        return [(id_, await admin.order(id_, order, who())) for id_ in ids]

    report(administer(config, role, ordering), as_json=as_json)


def each_of(
    ids: Sequence[str],
    config: Path,
    role: Role,
    act: "Callable[[Administration, RegistrationId], Awaitable[Done | NotDone]]",
    *,
    as_json: bool,
) -> None:
    """Do an act for each of some registrations, and print what became of it; do none if one of them is unknown."""

    async def acting(admin: "Administration") -> "list[tuple[str, Done | NotDone]]":
        await look_up(admin, ids)
        return [(id_, await act(admin, RegistrationId(id_))) for id_ in ids]

    report(administer(config, role, acting), as_json=as_json)


async def look_up(admin: "Administration", registrations: Sequence[str]) -> None:
    """Raise Unknown if one of some registrations does not exist; call it before the first act."""
    for id_ in registrations:
        await admin.registration(RegistrationId(id_))


def confirm(question: str) -> None:
    """Ask whether to go on; end the command if not. Call it outside of `run_with`: in there Ctrl-C would not end it."""
    if not typer.confirm(question, err=True):
        fail("nothing was forgotten", FAILED)


def report(results: "Sequence[tuple[str, Done | NotDone]]", *, as_json: bool) -> None:
    """Print what became of acts; the status is 1 if none of them was done."""
    from relay.admin import documents
    from relay.admin.values import Done

    shown = [documents.outcome(name, result) for name, result in results]
    if as_json:
        say(json.dumps(shown, indent=2))
    else:
        for each, (_, result) in zip(shown, results, strict=True):
            (say if isinstance(result, Done) else note)(f"{each['id']}: {each['text']}")
    if not any(isinstance(result, Done) for _, result in results):
        if not results:
            note("there is no such mailbox")
        raise typer.Exit(FAILED)


def show_page(
    page: "Page[T]",
    document: Callable[[T], dict[str, object]],
    columns: Sequence[str],
    name: str,
    *,
    as_json: bool,
) -> None:
    """Print a page of a list: as columns, or as JSON."""
    rows = [document(each) for each in page.rows]
    if as_json:
        say(json.dumps({name: rows, "cursor": page.cursor}, indent=2))
        return
    if not rows:
        note(f"there are no {name}, or none that the options let through")
        return
    show_table(rows, columns)
    if page.cursor is not None:
        note(f"more with --cursor {page.cursor}")


def show_table(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> None:
    """Print some fields of rows as columns with their names."""
    table = [columns, *([plain(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    for line in table:
        say("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


def plain(value: object) -> str:
    """Return a JSON value for people."""
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
