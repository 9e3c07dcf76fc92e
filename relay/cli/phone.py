"""The command `relay phone`: an emulated phone on a sandbox."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from eas_watcher.names import CollectionClass
from relay.cli.output import FAILED, FAULTY, describe, fail, say
from relay.cli.running import complete, run
from relay.domain.model import Environment, Platform


def phone(
    platform: Annotated[Platform, typer.Argument(help="apns: an iPhone; fcm, webpush: an Android phone.")] = (
        Platform.APNS
    ),
    folder: Annotated[Path, typer.Option(help="The folder of `relay sandbox`.")] = Path("sandbox"),
    user: Annotated[str, typer.Option(help="Mailbox of the sandbox.")] = "ann@example.com",
    password: Annotated[str, typer.Option(help="Its password.")] = "sandbox",  # noqa: S107 -- that of every sandbox
    environment: Annotated[
        Environment, typer.Option(help="The environment of APNs that issues the device tokens.")
    ] = Environment.PRODUCTION,
    fid: Annotated[
        bool, typer.Option("--fid", help="FCM: register by Firebase installation id, not by token.")
    ] = False,
    cls: Annotated[
        list[CollectionClass] | None, typer.Option("--class", help="A class that the app asks for; repeatable.")
    ] = None,
    keeps_one: Annotated[
        bool,
        typer.Option("--keeps-one", help="APNs keeps one push of the app for a phone that is off, not one of each."),
    ] = False,
    script: Annotated[
        Path | None, typer.Option(help="A file of commands, one a line, or - for standard input; else type them.")
    ] = None,
    simctl: Annotated[
        str | None, typer.Option(help="Give each push to this simulator of Xcode, too: booted, a name or a UDID.")
    ] = None,
    api: Annotated[str | None, typer.Option(help="URL of the relay; else that of the folder.")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the CA of the relay; else that of the folder.")] = None,
    control: Annotated[
        str | None, typer.Option(help="The sandbox's control listener; else that of the folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, one object a line, for programs.")] = False,
) -> None:
    """Be a phone: register at the relay, get the pushes from the sandbox, and show what a phone would show."""
    from relay.process.clock import now
    from relay.sandbox.installation import APP
    from relay.sandbox.phone.program import Site, run_phone
    from relay.sandbox.phone.script import ScriptFault, read_script
    from relay.sandbox.phone.session import Plan, Unfulfilled
    from relay.sandbox.phone.simctl import Simulator
    from relay.sandbox.remote import SandboxRefused

    try:
        site = Site.of(folder, api, control, ca)
        commands = None if script is None else read_script(_read(script))
    except OSError as error:
        fail(f"cannot be read: {describe(error)}; start `relay sandbox` with this --folder first", FAULTY)
    except (ScriptFault, ValueError) as error:
        fail(str(error), FAULTY)
    plan = Plan(platform, user, password, environment, tuple(cls or ()), keeps_one=keeps_one, fid=fid)
    simulator = None if simctl is None else Simulator(simctl, APP, folder / "pushes")
    session = run_phone(plan, site, commands, say, now, simulator=simulator, as_json=as_json)
    try:
        if commands is None:
            run(session)
        else:
            complete(session)
    except (SandboxRefused, Unfulfilled) as error:
        fail(str(error), FAILED)


def _read(script: Path) -> str:
    return sys.stdin.read() if str(script) == "-" else script.read_text(encoding="utf-8")
