"""The commands `relay init`, which writes a new installation, and `relay files`, which writes what comes with one."""

import os
import secrets
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from relay.cli.output import FAILED, FAULTY, describe, fail, note, say
from relay.domain.model import Platform, Role

if TYPE_CHECKING:
    from relay.installing.layout import Answers, Keys
    from relay.installing.sample import Value
    from relay.installing.writing import Owner

SYSTEM: Final = Path("/etc/push-relay")
STATES: Final = Path("/var/lib")
SERVICE: Final = "push-relay"
"""The user whom the package makes, and the units name."""
PASSWORD_BYTES, SALT_BYTES = 24, 16
MADE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "relay.1": "the manual page: `man ./relay.1`",
        "relay.bash": "completion of bash: /usr/share/bash-completion/completions/relay",
        "_relay": "completion of zsh: a folder of its fpath",
        "relay.fish": "completion of fish: ~/.config/fish/completions",
    }
)
"""What `relay files` makes of the commands, by name."""
_PEM: Final = "a PEM file to copy; else the place is named where it goes."


def init(
    folder: Annotated[Path, typer.Argument(help="Where relay.toml and keys are written.")] = SYSTEM,
    roles: Annotated[
        str, typer.Option(help="all: one process; or some of api,watch,push: a folder for each, on PostgreSQL.")
    ] = Role.ALL.value,
    server: Annotated[str | None, typer.Option(help="The mail server: https://mail.example.com.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Mail domain of its users; repeatable.")] = None,
    server_ca: Annotated[Path | None, typer.Option(help="CA of the mail server, PEM file to copy.")] = None,
    push: Annotated[
        list[Platform] | None, typer.Option(help="Provider of pushes; repeatable. Default: apns and fcm.")
    ] = None,
    app: Annotated[list[str] | None, typer.Option(help="Bundle id or package name of an app; repeatable.")] = None,
    apns: Annotated[
        Path | None, typer.Option(help="The .p8 key for APNs to copy; AuthKey_KEYID.p8 says its id, too.")
    ] = None,
    apns_key_id: Annotated[str | None, typer.Option(help="Id of the key for APNs.")] = None,
    apns_team: Annotated[str | None, typer.Option(help="Id of the developer team.")] = None,
    fcm: Annotated[Path | None, typer.Option(help="JSON key of the service account for FCM, to copy.")] = None,
    webpush_host: Annotated[list[str] | None, typer.Option(help="Host of a push service; repeatable.")] = None,
    contact: Annotated[
        str | None, typer.Option(help="For operators of push services: mailto:push@example.com.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help=f"The API's certificate, {_PEM}")] = None,
    key: Annotated[Path | None, typer.Option(help=f"The key of the API's certificate, {_PEM}")] = None,
    database: Annotated[
        str, typer.Option(help="PostgreSQL for several roles: HOST/NAME; default: that of docker-compose.yml.")
    ] = "postgres/relay",
    sandbox: Annotated[
        Path | None, typer.Option(help="Folder of a running `relay sandbox`, which answers everything.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="User or number that the relay runs as; default for root: push-relay, if there is one."),
    ] = None,
    non_interactive: Annotated[
        bool, typer.Option("--non-interactive", help="Ask nothing: what is not given becomes a blank.")
    ] = False,
) -> None:
    """Write a new installation: relay.toml for the roles asked for, keys, database users; and say what is left to do.

    It never writes over a file. What it does not know stays a blank in relay.toml, which `relay check` names.
    """
    from relay.installing.layout import Answers, layout
    from relay.installing.shipped import SAMPLE, read
    from relay.installing.writing import FilesExist, write_files

    chosen = _roles(roles)
    user = _owner(owner)
    answers = Answers(database=database, runs_as=user.name if user is not None and user.foreign else "")
    if sandbox is not None:
        answers = _of_sandbox(sandbox, answers)
    else:
        if push is None:
            push = [platform for platform, given in _given(apns, fcm, webpush_host) if given]
        asks = not non_interactive and sys.stdin.isatty()
        said: dict[str, Value] = {}
        _put(said, "servers.url", _url(server or (_ask("URL of the mail server, https://...") if asks else None)))
        _put(said, "servers.domains", domain or (_ask_list("Mail domains of its users") if asks else None))
        providers = [each.value for each in push] or (_ask_providers() if asks else ["apns", "fcm"])
        apps = app or (_ask_list("Bundle ids and package names of your apps") if asks else None)
        for setting in ("apns.topics", "fcm.apps", "webpush.apps"):
            _put(said, setting, apps)
        _put(said, "apns.key_id", apns_key_id or _id_in_name(apns))
        _put(said, "apns.team_id", apns_team)
        _put(said, "webpush.hosts", webpush_host)
        _put(said, "webpush.subject", contact)
        given = {
            "api.certificate_file": certificate,
            "api.key_file": key,
            "apns.key_file": apns,
            "fcm.service_account_file": fcm,
            "servers.ca_file": server_ca,
        }
        copies = {name: (_name(name, path), path) for name, path in given.items() if path is not None}
        answers = replace(answers, values=said, copies=copies, providers=providers)
    folder = folder.absolute()
    made = layout(folder, _state(folder, chosen), chosen, answers, _keys(), read(SAMPLE))
    try:
        write_files(made.files, user)
    except FilesExist as error:
        fail(f"{error}. Move them away, or name another folder: `relay init FOLDER`.", FAILED)
    except OSError as error:
        fail(f"nothing is written: {describe(error)}. Name another folder, or run it as root.", FAILED)
    for file in made.files:
        say(f"wrote {file.path}")
    say("\nLeft to do:")
    for number, step in enumerate(made.steps, 1):
        say(f"{number}. {step.text}")
        for command in step.commands:
            say(f"     {command}")


def write_shipped(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="Where they are written; else they are listed.")] = None,
) -> None:
    """Write what comes with the relay: sample of the settings, service, alerts, grants, manual page, completions."""
    from relay.installing.layout import OPEN, File
    from relay.installing.shipped import ABOUT, read
    from relay.installing.writing import FilesExist, write_files

    about = {**ABOUT, **MADE}
    if folder is None:
        for name, what in about.items():
            say(f"{name:<24} {what}")
        return
    texts = {name: read(name) for name in ABOUT} | _made(context.find_root().command)
    try:
        write_files([File(folder / name, text.encode(), OPEN) for name, text in texts.items()], None)
    except FilesExist as error:
        fail(f"{error}. Name another folder.", FAILED)
    except OSError as error:
        fail(f"nothing is written: {describe(error)}", FAILED)
    for name in about:
        say(str(folder / name))


def _made(program: Any) -> dict[str, str]:
    """Return what is made of the commands of the program, by name."""
    from importlib.metadata import version

    from relay.cli.manual import bash, fish, man_page, tree, zsh

    root = tree(program, "relay")
    return dict(zip(MADE, (man_page(root, version("push-relay")), bash(root), zsh(root), fish(root)), strict=True))


def _roles(text: str) -> list[Role]:
    """Read --roles: all, or different ones of api, watch and push."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = {role.value for role in Role}
    if not names or not set(names) <= known or (Role.ALL.value in names and len(names) > 1):
        fail(f"--roles is {text!r}: write all, or some of api,watch,push", FAULTY)
    return [Role(name) for name in names]


def _owner(name: str | None) -> "Owner | None":
    from relay.installing.writing import NoUser, find_owner

    try:
        if name is not None:
            return find_owner(name)
        if os.geteuid() == 0:
            with suppress(NoUser):  # without the package's user, root runs the relay
                return find_owner(SERVICE)
    except NoUser as error:
        fail(f"--owner: {error}; write one that is there, or a number", FAULTY)
    return None


def _state(folder: Path, roles: Sequence[Role]) -> Path | None:
    """Return where the state is: beside the settings, but for /etc/NAME in /var/lib/NAME, as all commands find it."""
    if folder.parent == Path("/etc"):
        return STATES / folder.name
    return folder / "state" if Role.ALL in roles else None


def _given(*values: object) -> list[tuple[Platform, bool]]:
    return [(platform, bool(value)) for platform, value in zip(Platform, values, strict=True)]


def _put(values: "dict[str, Value]", key: str, value: "Value | None") -> None:
    if value:
        values[key] = value


def _url(server: str | None) -> str | None:
    """Return the URL of a mail server; people name its host alone, too."""
    return server if not server or "://" in server else f"https://{server}"


def _ask(question: str) -> str | None:
    """Ask for a text; nothing leaves it a blank."""
    answer: str = typer.prompt(f"{question} (Enter: later)", default="", show_default=False)
    return answer.strip() or None


def _ask_list(question: str) -> list[str] | None:
    answer = _ask(f"{question}, by commas")
    return None if answer is None else [part.strip() for part in answer.split(",") if part.strip()]


def _ask_providers() -> list[str]:
    known = [platform.value for platform in Platform]
    while True:
        named = _ask_list(f"Providers of pushes out of {', '.join(known)}") or ["apns", "fcm"]
        if set(named) <= set(known):
            return named
        note(f"write some of {', '.join(known)}")


def _id_in_name(path: Path | None) -> str | None:
    """Return the key id in a name like AuthKey_ABCDE12345.p8."""
    return path.stem.partition("_")[2] or None if path is not None and path.stem.startswith("AuthKey_") else None


def _name(setting: str, path: Path) -> str:
    """Return the name of a copy: the usual one of the sample."""
    from relay.installing.layout import NEEDED

    return NEEDED[setting][0] if setting in NEEDED else path.name


def _of_sandbox(folder: Path, answers: "Answers") -> "Answers":
    """Return the answers that the relay.toml of a running sandbox gives; its keys and certificates are copied."""
    try:
        tables: Mapping[str, Any] = tomllib.loads((folder / "relay.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = describe(error) if isinstance(error, OSError) else "its relay.toml is no TOML"
        fail(f"--sandbox: {why}; start `relay sandbox --folder {folder}` first", FAULTY)
    values: dict[str, Value] = {}
    copies: dict[str, tuple[str, Path]] = {}
    (name, server), *_ = tables["servers"].items()
    for table, settings in {**tables, "servers": server}.items():
        for setting, value in settings.items():
            key = f"{table}.{setting}"
            if setting.endswith("_file"):
                copies[key] = (value, folder / value)
            elif table != "relay":
                values[key] = value
    providers = [platform.value for platform in Platform if platform.value in tables]
    return replace(answers, values=values, copies=copies, providers=providers, server=name)


def _keys() -> "Keys":
    from relay.installing.layout import Keys
    from relay.push.webpush.vapid import make_key, public_key
    from relay.security.sealing import generate

    private, public = generate()
    vapid = make_key()
    return Keys(
        private,
        public,
        vapid,
        public_key(vapid),
        lambda: secrets.token_urlsafe(PASSWORD_BYTES),
        lambda: secrets.token_bytes(SALT_BYTES),
    )
