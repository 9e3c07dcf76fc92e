"""The commands of an operator who invites users; they need neither relay.toml nor the host of the relay."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from relay.cli.output import FAILED, FAULTY, fail, say

PRIVATE: Final = "invitation-private.pem"
PUBLIC: Final = "invitation-public.pem"
LONGEST: Final = 90  # days

invitations = typer.Typer(
    help="Invite users, where a registration needs an invitation.", no_args_is_help=True, rich_markup_mode=None
)


@invitations.command()
def keygen(folder: Annotated[Path, typer.Option(help="Where the two keys are written.")] = Path()) -> None:
    """Make the keys of invitations: the private one stays with those who invite, the relay gets the public one."""
    from relay.cli.keygen import KeysExist, write_key_pair
    from relay.security.invitations import generate

    private, public = folder / PRIVATE, folder / PUBLIC
    try:
        write_key_pair(private, public, generate, "a new key makes void every invitation that it signed.")
    except KeysExist as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"the keys cannot be written: {error}", FAILED)
    say(f"{private}: for those who invite; the relay's hosts need it not")
    say(f"{public}: for api.invitation_key_file, or servers.NAME.kerberos_invitation_key_file")


@invitations.command()
def issue(
    users: Annotated[list[str], typer.Argument(help="Login names, as the apps will send them.")],
    server: Annotated[str, typer.Option(help="Name of the server in relay.toml.")],
    key: Annotated[Path, typer.Option(help="The private key.")] = Path(PRIVATE),
    days: Annotated[int, typer.Option(min=1, max=LONGEST, help="For how long the user may register.")] = 7,
) -> None:
    """Write one line per user: user, invitation, until when it is good; separated by tabs, for an MDM to distribute."""
    from relay.process.clock import now
    from relay.registration.identity import normalise
    from relay.security.invitations import invite, load_private

    try:
        signing = load_private(key.read_bytes())
    except OSError as error:
        fail(f"{key} cannot be read: {error.strerror}", FAULTY)
    except ValueError:
        fail(f"{key} holds no Ed25519 private key: make one with `relay invitations keygen`", FAULTY)
    until = now() + timedelta(days=days)
    for user in users:
        try:
            name = normalise(user)
        except ValueError as error:
            fail(f"a user {error}", FAULTY)
        # Not printed with rich, which turns tabs into blanks.
        typer.echo(f"{name}\t{invite(signing, server, name, until)}\t{until:%Y-%m-%dT%H:%M:%SZ}")
