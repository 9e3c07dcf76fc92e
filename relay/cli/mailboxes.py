"""The commands `relay mailboxes` and `relay maintenance`."""

import asyncio
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from eas_watcher.names import MailboxId
from relay.cli.acting import (
    Cursor,
    Given,
    Json,
    Limit,
    Names,
    RoleOption,
    Server,
    State,
    UserPart,
    Yes,
    administer,
    chosen,
    confirm,
    filter_of,
    order_all,
    report,
    run_with,
    settings_of,
    show_page,
    who,
)
from relay.cli.configuration import DEFAULT, Config
from relay.cli.output import FAILED, FAULTY, fail, failing, note, say
from relay.cli.running import complete
from relay.domain.model import Role

if TYPE_CHECKING:
    from relay.admin.administration import Administration
    from relay.admin.values import Done, NotDone
    from relay.settings.values import Settings

mailboxes = typer.Typer(
    help="See mailboxes, end their waits, pause them, forget their users.", no_args_is_help=True, rich_markup_mode=None
)

GONE: Final = 20.0  # seconds until a running relay has surely looked for what is to be forgotten
LOOK: Final = 0.5  # seconds between two looks whether it is gone


class Switch(StrEnum):
    """Whether a server is in maintenance."""

    ON = "on"
    OFF = "off"


@mailboxes.command("list")
def list_mailboxes(
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    server: Server = None,
    state: State = None,
    user: UserPart = "",
    limit: Limit = 100,
    cursor: Cursor = None,
    *,
    as_json: Json = False,
) -> None:
    """List mailboxes by server and user: id, server, user, state, reason, since when, registrations."""
    from relay.admin import documents
    from relay.admin.values import MailboxFilter

    page = administer(config, role, lambda admin: admin.mailboxes(MailboxFilter(server, state, user), limit, cursor))
    show_page(
        page,
        documents.mailbox,
        ("id", "server", "user", "state", "reason", "since", "registrations"),
        "mailboxes",
        as_json=as_json,
    )


@mailboxes.command("show")
def show_mailbox(
    names: Given,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    *,
    as_json: Json = False,
) -> None:
    """Show mailboxes as `relay explain` does: what they do, why, and what to do now."""
    from relay import app
    from relay.ops.explain import document, text
    from relay.process.clock import now

    settings = settings_of(config, role)
    with failing("cannot reach the database"):
        found = [complete(app.explain(settings, name)) for name in names]
    if as_json:
        say(json.dumps([one for each in found for one in document(each, now())], indent=2))
    else:
        typer.echo("\n".join(text(one, now()) for each in found for one in each.mailboxes), nl=False)
    unknown = [name for name, each in zip(names, found, strict=True) if not each.mailboxes]
    if unknown:
        fail(f"no mailbox, registration or user {', '.join(map(repr, unknown))} is known", FAILED)


@mailboxes.command("retry")
def retry_mailboxes(
    names: Names = None,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    server: Server = None,
    state: State = None,
    user: UserPart = "",
    *,
    as_json: Json = False,
) -> None:
    """End the waits of mailboxes: the relay asks their mail server now, in their turn.

    A refused credential is not tried again: more tries could lock the account.
    """
    from relay.admin.values import Order

    order_all(Order.RETRY, names, config, role, filter_of(server, state, user), as_json=as_json)


@mailboxes.command("pause")
def pause_mailboxes(
    names: Names = None,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    server: Server = None,
    state: State = None,
    user: UserPart = "",
    *,
    as_json: Json = False,
) -> None:
    """Pause mailboxes, over restarts: nobody asks their mail server, and their phones get no pushes."""
    from relay.admin.values import Order

    order_all(Order.PAUSE, names, config, role, filter_of(server, state, user), as_json=as_json)


@mailboxes.command("resume")
def resume_mailboxes(
    names: Names = None,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    server: Server = None,
    state: State = None,
    user: UserPart = "",
    *,
    as_json: Json = False,
) -> None:
    """Let paused mailboxes go on."""
    from relay.admin.values import Order

    order_all(Order.RESUME, names, config, role, filter_of(server, state, user), as_json=as_json)


@mailboxes.command("forget")
def forget_mailboxes(
    names: Given,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    server: Server = None,
    *,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Forget users who leave: mailbox, credential, registrations, counts; only a keyed hash stays in the audit log.

    It cannot be undone. Bar the account at the mail server first: anyone who knows its password could register again.
    """
    from relay.admin import documents
    from relay.admin.values import Done, NotDone
    from relay.domain.counted import counted

    settings, wanted = settings_of(config, role), filter_of(server, None, "")

    async def forgetting(admin: "Administration") -> list[tuple[str, Done | NotDone]]:
        return [(id_, await _forget(admin, id_)) for id_ in ids]

    ids = run_with(settings, lambda admin: chosen(admin, names, wanted))
    if not yes:
        confirm(f"Forget for good: {', '.join(names)} ({counted(len(ids), 'mailbox')})?")

    done = run_with(settings, forgetting)
    left = _finish(settings, [MailboxId(id_) for id_, result in done if isinstance(result, Done)])
    if as_json:
        say(json.dumps([{**documents.outcome(id_, result), "gone": id_ not in left} for id_, result in done], indent=2))
    else:
        for id_, result in done:
            if isinstance(result, NotDone):
                note(f"{id_}: {result.why}")
            else:
                say(f"{id_}: {'the rest goes when a watch process runs again' if id_ in left else 'forgotten'}")
    if left:
        fail(
            f"{len(left)} credentials are still in the database: no watch process has come to delete them. Start one; "
            "they are gone when `relay mailboxes list` shows them no more.",
            FAILED,
        )


@mailboxes.command("export")
def export_mailboxes(
    names: Given,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
) -> None:
    """Write as JSON all that the relay keeps of users, without secrets: for those who ask what is known of them."""
    from relay.admin import documents

    async def exporting(admin: "Administration") -> list[dict[str, object]]:
        ids = await chosen(admin, names, None)
        return [documents.export(await admin.export(id_, who())) for id_ in ids]

    say(json.dumps(administer(config, role, exporting), indent=2))


async def _forget(admin: "Administration", mailbox: MailboxId) -> "Done | NotDone":
    """Order that a mailbox be forgotten; its last registration may have ended while the command asked."""
    from relay.admin.values import NotDone, Order, Unknown

    try:
        return await admin.order(mailbox, Order.FORGET, who())
    except Unknown:
        return NotDone("it is gone already")


def _finish(settings: "Settings", ids: Sequence[MailboxId]) -> list[MailboxId]:
    """Return the forgotten mailboxes that no watch process has deleted in time.

    From an embedded database that no relay uses, they are deleted here.
    """
    from relay import app
    from relay.store.engine import embedded_in_use

    file = settings.database.file
    if file is not None and not embedded_in_use(file):
        with failing("cannot write"):
            complete(app.finish_forgetting(settings, ids))
        return []

    async def waiting(admin: "Administration") -> list[MailboxId]:
        left = list(ids)
        for _ in range(int(GONE / LOOK)):
            left = [id_ for id_ in left if not await admin.gone(id_)]
            if not left:
                break
            await asyncio.sleep(LOOK)
        return left

    return run_with(settings, waiting)


def maintenance(
    server: Annotated[
        str | None, typer.Argument(help="Name of the mail server in relay.toml; none: list them.")
    ] = None,
    switch: Annotated[Switch | None, typer.Argument(help="on or off.")] = None,
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    *,
    as_json: Json = False,
) -> None:
    """Put a mail server into maintenance, when its Pings are let go and nobody asks it, or end that."""
    from relay.admin import documents

    if server is None:
        found = administer(config, role, lambda admin: admin.maintained())
        if as_json:
            say(json.dumps([documents.maintenance(each) for each in found], indent=2))
        else:
            if not found:
                note("no mail server is in maintenance")
            for each in found:
                typer.echo(f"{each.server}\t{each.since:%Y-%m-%dT%H:%M:%SZ}")
        return
    if switch is None:
        fail("say on or off: `relay maintenance NAME on`", FAULTY)
    name = server
    result = administer(config, role, lambda admin: admin.maintain(name, who(), on=switch is Switch.ON))
    report([(name, result)], as_json=as_json)
