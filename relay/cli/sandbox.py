"""The commands `relay sandbox` and `relay deliver`: to run a sandbox, and to order what happens in a running one."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from eas_watcher.names import CollectionClass
from relay.cli.output import FAILED, FAULTY, describe, fail, say
from relay.cli.running import complete, run
from relay.domain.model import Environment
from relay.sandbox.eas.personality import Family, Http2
from relay.sandbox.place import LOOPBACK, Place
from relay.sandbox.services import Service

sandbox = typer.Typer(
    help="Run a simulated mail server, APNs, FCM and push service; a verb orders what happens in a running one.",
    rich_markup_mode=None,
)

CONTROL: Final = "http://127.0.0.1:8446"
User = Annotated[str, typer.Argument(help="Mailbox of the sandbox, e.g. ann@example.com.")]
Control = Annotated[str, typer.Option(help="The sandbox's control listener.")]
Subject = Annotated[str, typer.Option(help="Subject of the mail.")]
Sender = Annotated[str, typer.Option(help="Sender of the mail.")]
Body = Annotated[str, typer.Option(help="Text of the mail.")]
End = Annotated[bool, typer.Option("--end", help="End it.")]


@sandbox.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where relay.toml, CA and keys for a relay are written.")] = Path(
        "sandbox"
    ),
    host: Annotated[
        str, typer.Option(help="Address of this machine to listen on; 0.0.0.0: all, for phones and other machines.")
    ] = LOOPBACK,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name or address by which phones reach this machine, for certificates; repeatable."),
    ] = None,
    eas: Annotated[int, typer.Option(help="Port of the mail server.")] = 8443,
    apns: Annotated[int, typer.Option(help="Port of APNs, production.")] = 8444,
    apns_sandbox: Annotated[int, typer.Option(help="Port of APNs, sandbox.")] = 8449,
    fcm: Annotated[int, typer.Option(help="Port of FCM.")] = 8445,
    webpush: Annotated[int, typer.Option(help="Port of the push service.")] = 8448,
    control: Annotated[int, typer.Option(help="Port of the control listener.")] = 8446,
    api: Annotated[int, typer.Option(help="Port that the written relay.toml gives the relay's API.")] = 8447,
    ops: Annotated[int, typer.Option(help="Port that the written relay.toml gives the relay's ops listener.")] = 9090,
    web: Annotated[int, typer.Option(help="Port at which browsers on this machine reach the relay's web app.")] = 8450,
    smtp: Annotated[int, typer.Option(help="Port at which the mail server takes mails by SMTP.")] = 8451,
    browsers: Annotated[
        bool, typer.Option("--browsers", help="Let the relay push to real browsers, through their makers' services.")
    ] = False,
    mailboxes: Annotated[int, typer.Option(help="Mailboxes user1, user2, ... to start with, besides ann and ben.")] = 0,
    level: Annotated[str, typer.Option(help="Log level in the written relay.toml.")] = "info",
    personality: Annotated[
        Family, typer.Option(help="The family of servers that the mail server behaves like, oddities included.")
    ] = Family.EXCHANGE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Requests that the mail server serves at once, held Pings included.")
    ] = None,
    queue_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a proxy answers 504 to a request that finds no worker.")
    ] = 60.0,
    http2: Annotated[
        Http2, typer.Option(help="Whether the mail server speaks HTTP/2 too, as Exchange does.")
    ] = Http2.ON,
) -> None:
    """Run a simulated mail server, APNs, FCM and push service, without any account; 0: a free port.

    A verb orders what happens in a sandbox that runs already, e.g. `relay sandbox password ann@example.com new`.
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from relay.process import log
    from relay.sandbox.eas.families import FAMILIES
    from relay.sandbox.installation import Ports
    from relay.sandbox.sandbox import run_sandbox

    log.configure("info", "text", sys.stderr)
    ports = Ports(eas, apns, fcm, webpush, control, api, ops, apns_sandbox, web, smtp)
    try:
        place = Place(host, tuple(name or ()))
    except ValueError as error:
        fail(f"--host and --name: {error}", FAULTY)
    try:
        run(
            run_sandbox(
                folder,
                ports,
                Console(highlight=False, markup=False, soft_wrap=True),
                mailboxes=mailboxes,
                level=level,
                rules=replace(FAMILIES[personality], workers=workers, patience=queue_seconds),
                http2=http2 is Http2.ON,
                place=place,
                browsers=browsers,
            )
        )
    except OSError as error:
        fail(f"cannot listen or write: {describe(error)}", FAILED)


def deliver(
    user: User,
    subject: Subject = "Hello",
    sender: Sender = "ben@example.com",
    body: Body = "See you on Monday.",
    control: Control = CONTROL,
) -> None:
    """Deliver a mail to a mailbox of a running sandbox; short for `relay sandbox deliver`."""
    _order(control, "deliver", {"user": user, "subject": subject, "sender": sender, "body": body})


@sandbox.command("deliver")
def deliver_item(
    user: User,
    cls: Annotated[CollectionClass, typer.Option("--class", help="Class of the item.")] = CollectionClass.EMAIL,
    subject: Subject = "Hello",
    sender: Sender = "ben@example.com",
    body: Body = "See you on Monday.",
    folder: Annotated[str | None, typer.Option(help="Id of a folder; else the default folder of the class.")] = None,
    control: Control = CONTROL,
) -> None:
    """Deliver an item to a mailbox; print its id."""
    item = {"user": user, "class": cls, "subject": subject, "sender": sender, "body": body, "folder": folder}
    _order(control, "deliver", item)


@sandbox.command()
def read(user: User, control: Control = CONTROL) -> None:
    """Mark all items of a mailbox as read, as another client does."""
    _order(control, "read", {"user": user})


@sandbox.command()
def password(
    user: User,
    new: Annotated[str, typer.Argument(help="The new password.")],
    control: Control = CONTROL,
) -> None:
    """Change the password of a mailbox; add the mailbox if there is none."""
    _order(control, "password", {"user": user, "password": new})


@sandbox.command()
def wipe(
    user: User,
    account_only: Annotated[bool, typer.Option("--account-only", help="Wipe only the account.")] = False,
    control: Control = CONTROL,
) -> None:
    """Wipe the devices of a user, as an administrator does."""
    _order(control, "wipe", {"user": user, "account_only": account_only})


@sandbox.command()
def block(user: User, end: End = False, control: Control = CONTROL) -> None:
    """Block the devices of a user, as an administrator does, or end that."""
    _order(control, "block", {"user": user, "end": end})


@sandbox.command()
def folder(
    user: User,
    name: Annotated[str, typer.Argument(help="Name of the folder.")],
    parent: Annotated[str, typer.Option(help="Id of the folder above; 0: the root.")] = "0",
    control: Control = CONTROL,
) -> None:
    """Add a folder for mails; print its id."""
    _order(control, "folder", {"user": user, "name": name, "parent": parent})


@sandbox.command()
def outage(
    of: Annotated[Service, typer.Argument(help="What is away.")] = Service.ALL,
    end: End = False,
    control: Control = CONTROL,
) -> None:
    """Take the mail server's backend or a provider down until the outage ends."""
    _order(control, "outage", {"of": of, "end": end})


@sandbox.command()
def restart(control: Control = CONTROL) -> None:
    """Restart the mail server: all held Pings end."""
    _order(control, "restart", {})


@sandbox.command()
def token(
    environment: Annotated[Environment, typer.Argument(help="The environment of APNs.")] = Environment.PRODUCTION,
    token: Annotated[str, typer.Option(help="A token that exists; else a new one.")] = "",
    control: Control = CONTROL,
) -> None:
    """Issue a device token of APNs that the other environment refuses; print it."""
    _order(control, "token", {"environment": environment, "token": token})


@sandbox.command()
def gone(
    token: Annotated[str, typer.Argument(help="Device token, FID or endpoint.")], control: Control = CONTROL
) -> None:
    """Uninstall the app of a device token, FID or endpoint: the provider answers that it is gone."""
    _order(control, "gone", {"token": token})


def _order(control: str, verb: str, fields: Mapping[str, Any]) -> None:
    """Send a verb to a running sandbox, and print its answer if it has one."""
    from relay.sandbox.remote import SandboxRefused, order

    try:
        answer = complete(order(control, verb, fields))
    except SandboxRefused as error:
        fail(str(error), FAILED)
    if answer:
        say(json.dumps(answer))
