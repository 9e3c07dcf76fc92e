"""The commands `relay registrations`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.acting import (
    Cursor,
    Ids,
    Json,
    Limit,
    RoleOption,
    Server,
    UserPart,
    Yes,
    administer,
    confirm,
    each_of,
    look_up,
    plain,
    show_page,
    who,
)
from relay.cli.configuration import DEFAULT, Config
from relay.cli.mailboxes import export_mailboxes
from relay.cli.output import say
from relay.domain.model import Platform, RegistrationId, RegistrationState, Role

if TYPE_CHECKING:
    from relay.admin.administration import Administration

registrations = typer.Typer(
    help="See registrations of phones, test and end them.", no_args_is_help=True, rich_markup_mode=None
)


@registrations.command("list")
def list_registrations(
    config: Config = DEFAULT,
    role: RoleOption = Role.ALL,
    server: Server = None,
    state: Annotated[RegistrationState | None, typer.Option("--state", help="State of the registration.")] = None,
    user: UserPart = "",
    platform: Annotated[Platform | None, typer.Option("--platform", help="apns, fcm or webpush.")] = None,
    app: Annotated[str | None, typer.Option("--app", help="Name of the app.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    *,
    as_json: Json = False,
) -> None:
    """List registrations by server and user: id, user, app, platform, state, last push, what the provider said."""
    from relay.admin import documents
    from relay.admin.values import RegistrationFilter

    wanted = RegistrationFilter(server, state, user, platform, app)
    page = administer(config, role, lambda admin: admin.registrations(wanted, limit, cursor))
    columns = ("id", "server", "user", "app", "platform", "state", "last_push_at", "last_outcome")
    show_page(page, documents.registration, columns, "registrations", as_json=as_json)


@registrations.command("show")
def show_registrations(
    ids: Ids, config: Config = DEFAULT, role: RoleOption = Role.ALL, *, as_json: Json = False
) -> None:
    """Show registrations."""
    from relay.admin import documents

    async def showing(admin: "Administration") -> list[dict[str, object]]:
        return [documents.registration(await admin.registration(RegistrationId(id_))) for id_ in ids]

    found = administer(config, role, showing)
    if as_json:
        say(json.dumps(found, indent=2))
        return
    for each in found:
        for name, value in each.items():
            say(f"{name:14} {plain(value)}")


@registrations.command("retry")
def retry_registrations(
    ids: Ids, config: Config = DEFAULT, role: RoleOption = Role.ALL, *, as_json: Json = False
) -> None:
    """Try at once what waits for phones, also where the provider refused their device token."""
    each_of(ids, config, role, lambda admin, id_: admin.retry_pushes(id_, who()), as_json=as_json)


@registrations.command("test-push")
def send_test(ids: Ids, config: Config = DEFAULT, role: RoleOption = Role.ALL, *, as_json: Json = False) -> None:
    """Send a test push."""
    each_of(ids, config, role, lambda admin, id_: admin.test_push(id_, who()), as_json=as_json)


@registrations.command("forget")
def forget_registrations(
    ids: Ids, config: Config = DEFAULT, role: RoleOption = Role.ALL, *, yes: Yes = False, as_json: Json = False
) -> None:
    """End registrations, e.g. of a lost phone; with the last one of a mailbox its credential goes, too."""
    if not yes:
        administer(config, role, lambda admin: look_up(admin, ids))
        confirm(f"End for good: {', '.join(ids)}?")
    each_of(ids, config, role, lambda admin, id_: admin.forget_registration(id_, who()), as_json=as_json)


@registrations.command("export")
def export_registrations(ids: Ids, config: Config = DEFAULT, role: RoleOption = Role.ALL) -> None:
    """Write as JSON all that the relay keeps of the users of registrations, without secrets."""
    export_mailboxes(ids, config, role)
