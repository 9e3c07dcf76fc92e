"""The commands `relay keys`: see the sealing keys, make one, make it the present one, and take one out of use."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.acting import Json, RoleOption, settings_of, show_table, who
from relay.cli.configuration import DEFAULT, Config
from relay.cli.output import FAILED, FAULTY, describe, fail, failing, note, say
from relay.cli.running import complete
from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder, KeyOrigin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.admin.audit import What
    from relay.admin.keys import ShownKey
    from relay.settings import Settings

keys = typer.Typer(
    help="See the keys of stored credentials, replace them while the relay runs, take them out of use.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Key = Annotated[str, typer.Argument(help="Id of the key, 16 hex digits, as `relay keys list` shows it.")]
NewKey = Annotated[str | None, typer.Argument(help="Id of the key; none: the one that is newer than the present one.")]
Folder = Annotated[
    Path | None, typer.Option("--folder", help="Where to write the pair; else beside the present private key.")
]


@keys.command("list")
def list_keys(config: Config = DEFAULT, role: RoleOption = Role.ALL, *, as_json: Json = False) -> None:
    """List all keys; what is left to do follows on standard error.

    Id, state, origin, where, when made, credentials and candidates that are sealed for it, who opens, who seals.
    """
    from relay.admin.keys import document, left_to_do

    settings = _settings(config, role)
    found, holders = _survey(settings)
    documents = [document(each) for each in found]
    if as_json:
        say(json.dumps({"keys": documents, "left_to_do": left_to_do(found, holders)}, indent=2))
        return
    rows = [
        {name: " ".join(cell) if isinstance(cell, list) else cell for name, cell in each.items()} for each in documents
    ]
    show_table(rows, tuple(rows[0]))
    for text in left_to_do(found, holders):
        note(text)


@keys.command("new")
def new(config: Config = DEFAULT, role: RoleOption = Role.ALL, folder: Folder = None) -> None:
    """Make a key pair beside the present one; it is used when it is made the present one."""
    from relay.admin.audit import What
    from relay.cli.keygen import KeysExist, write_beside

    settings = _settings(config, role)
    sealing = settings.sealing
    if role is Role.API:
        fail("the api role has no private key: make the pair on the host of the watch role", FAULTY)
    if folder is None and not _is_file(settings):
        fail("the present key is in no file that a command may write beside: name a folder by --folder", FAULTY)
    try:
        name, private, public = write_beside(
            sealing.private_key_file, sealing.public_key_file, folder, partial(_audit, settings, What.KEY_NEW)
        )
    except KeysExist as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"the keys cannot be written: {describe(error)}", FAILED)
    say(f"new key {name}, not in use yet; keep a copy of its private half apart from the backups of the database")
    say(f"  {private}: for the watch role alone")
    say(f"  {public}: for the api role")
    if folder is not None:
        say("Give it to the watch role as sealing.private_key_file, the present one in former_private_key_files.")
    elif settings.database.file is None:
        say(f"1. Copy {private.name} beside sealing.private_key_file on all other hosts of the watch role.")
        say(f"2. Run `relay keys rotate {name}` on each host of the watch role.")
        say("3. Then put the public key, which `rotate` names, in the place of that on each host of the api role.")
    else:
        say(f"Make it the present one with `relay keys rotate {name}`.")


@keys.command("rotate")
def rotate(key: NewKey = None, config: Config = DEFAULT, role: RoleOption = Role.ALL) -> None:
    """Make a key the present one: the running relay takes it, and seals what is stored for it, while Pings are held."""
    settings = _settings(config, role)
    if role is Role.API:
        _rotate_public(settings, key)
        return
    from relay.admin.audit import What
    from relay.admin.keys import KeyState, rotatable
    from relay.cli.keygen import put_in_place, put_public
    from relay.security.sealing import SealingPrivateKey
    from relay.settings.sealing import name_beside

    found, holders = _survey(settings)
    sealing, present = settings.sealing, found[0].id
    chosen = rotatable(found, key)
    finishes = isinstance(chosen, str) and key is None and _unfinished(settings)
    if isinstance(chosen, str) and not finishes:
        fail(chosen, FAILED)
    name = present if isinstance(chosen, str) else chosen.id
    private = name_beside(sealing.private_key_file, name)
    if not isinstance(chosen, str) and chosen.state is not KeyState.PRESENT:
        if not _is_file(settings) or not private.exists():
            fail(
                f"the present key or {name} is in no file that a command may change: give {name} as "
                f"sealing.private_key_file, and {present} in sealing.former_private_key_files; the relay takes it",
                FAULTY,
            )
        _audit(settings, What.KEY_ROTATE, name)
        try:
            kept = put_in_place(private, sealing.private_key_file, present)
        except OSError as error:
            fail(f"the key cannot be put in place: {describe(error)}", FAILED)
        say(f"{name} is the present key; {present} stays in {kept} and opens what is sealed for it")
    try:
        if _is_file(settings) and sealing.public_key_file.exists():
            present_key = SealingPrivateKey.load(sealing.private_key_file)
            put_public(present_key.public_key().pem, sealing.public_key_file)
            name_beside(sealing.public_key_file, name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        fail(f"{sealing.public_key_file} cannot be written, run the command again: {error}", FAILED)
    _say_next(settings, name, present, holders)


@keys.command("retire")
def retire(key: Key, config: Config = DEFAULT, role: RoleOption = Role.ALL) -> None:
    """Take a key out of use, once nothing is sealed for it any more."""
    from relay.admin.audit import What
    from relay.admin.keys import in_use
    from relay.cli.keygen import put_away
    from relay.settings.sealing import name_beside

    settings = _settings(config, role)
    found, _ = _survey(settings)
    if (obstacle := in_use(found, key)) is not None:
        fail(obstacle, FAILED)
    _audit(settings, What.KEY_RETIRE, key)
    source = next(each for each in settings.sealing.sources if each.id == key)
    if source.where != str(name_beside(settings.sealing.private_key_file, key)):
        say(f"nothing is sealed for {key}: remove {source.where} from sealing.former_private_key_files")
        return
    try:
        away = put_away(Path(source.where))
    except OSError as error:
        fail(f"the key cannot be put away: {describe(error)}", FAILED)
    say(f"{key} is out of use: it is in {away}, which no process reads")
    say("Destroy it once no backup of the database is left that is sealed for it. Do the same on other watch hosts.")


def _settings(config: Path, role: Role) -> "Settings":
    if role is Role.PUSH:
        fail("the push role has no sealing key", FAULTY)
    return settings_of(config, role)


def _survey(settings: "Settings") -> "tuple[tuple[ShownKey, ...], Sequence[KeyHolder]]":
    from relay import app

    with failing("cannot read the database"):
        return complete(app.sealing_keys(settings))


def _audit(settings: "Settings", what: "What", key: str) -> None:
    from relay import app

    with failing("cannot write the audit log"):
        complete(app.note_key(settings, who(), what, key))


def _is_file(settings: "Settings") -> bool:
    """Return True if the present private key is a file of the administrator."""
    sources = settings.sealing.sources
    return bool(sources) and sources[0].origin is KeyOrigin.FILE


def _unfinished(settings: "Settings") -> bool:
    """Return True if the public key beside the private one is not its own: a rotation was cut off."""
    from relay.security.sealing import SealingPublicKey

    file, public = settings.sealing.public_key_file, settings.sealing.public
    return public is not None and file.exists() and SealingPublicKey.load(file).id != public.id


def _rotate_public(settings: "Settings", key: str | None) -> None:
    """Put a public key in the place of the present one, on a host of the api role."""
    from relay.admin.audit import What
    from relay.cli.keygen import put_public
    from relay.security.sealing import SealingPublicKey
    from relay.settings.sealing import neighbours

    present = settings.sealing.public_key_file
    found = {}
    for path in neighbours(present):
        try:
            found[SealingPublicKey.load(path).name] = path
        except (OSError, ValueError) as error:
            fail(f"{path} holds no public sealing key: {error}", FAULTY)
    wanted = [name for name in found if key in {None, name}]
    if len(wanted) != 1:
        fail(f"put the public key beside {present} and name it: there are {', '.join(found) or 'none'}", FAILED)
    name = wanted[0]
    _audit(settings, What.KEY_ROTATE, name)
    try:
        put_public(found[name].read_bytes(), present)
        found[name].unlink()
    except OSError as error:
        fail(f"the key cannot be put in place: {describe(error)}", FAILED)
    say(f"{present} is {name}: the api role seals with it once every watch process opens it")


def _say_next(settings: "Settings", name: str, former: str, holders: "Sequence[KeyHolder]") -> None:
    """Say what happens now, and what is left to do."""
    from relay.domain.sealing_keys import without
    from relay.settings.sealing import name_beside

    file = settings.sealing.public_key_file
    public = file if file.exists() else name_beside(file, name)
    if not holders:
        say("no process of the relay runs: the next one that starts seals everything for it")
        return
    if settings.database.file is None and (lacking := without(holders, name)):
        names = ", ".join(each.node for each in lacking)
        note(f"not seen with the key yet: {names}. Nothing is sealed for it until all of them open it")
    if any(each.role is not Role.ALL for each in holders):
        say(f"On each host of the api role, put {public} in the place of its public key")
    if former != name:
        say(f"`relay keys list` shows how far it is; then take the former key out of use: `relay keys retire {former}`")
