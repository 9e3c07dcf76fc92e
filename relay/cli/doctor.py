"""`relay doctor`: looks at all that a role needs, inside and outside of this host, and says what to do."""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from relay.cli.configuration import DEFAULT, Config
from relay.cli.output import FAILED, FAULTY, say, show_faults
from relay.cli.running import complete
from relay.domain.errors import SettingsInvalid
from relay.domain.model import Role

if TYPE_CHECKING:
    from relay.doctor.finding import Finding
    from relay.settings.values import Settings


def doctor(
    config: Config = DEFAULT,
    role: Annotated[Role, typer.Option("--role", help="The role to examine; all: everything.")] = Role.ALL,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """Examine servers, providers, database and this host, and say what to do; sends no password and changes nothing.

    One line for each check, within 15 seconds. Exit status: 0 all is well, 1 something must change, 2 the configuration
    is faulty.
    """
    from relay.process import log

    log.configure("error", "text", sys.stderr)
    began = time.monotonic()
    settings = _load(config, role, as_json=as_json)
    findings = complete(_examine(settings, shows=not as_json), "not all was examined")
    from relay.doctor.finding import healthy

    good = healthy(findings)
    if as_json:
        _write(role, findings, time.monotonic() - began)
    else:
        say("\nAll is well." if good else "\nSomething must change: see the lines that begin with `bad`.", green=good)
    _leave(0 if good else FAILED)


async def _examine(settings: "Settings", *, shows: bool) -> list["Finding"]:
    """Return all findings, and show each as soon as it is known."""
    from relay.doctor.plan import Doctor
    from relay.process.clock import now

    findings = []
    async for finding in Doctor(settings, now).examine():
        findings.append(finding)
        if shows:
            say(finding.line())
            sys.stdout.flush()
    return findings


def _load(config: Path, role: Role, *, as_json: bool) -> "Settings":
    """Load the settings; end the command with all their faults."""
    from relay.settings import load

    try:
        return load(config, os.environ, role, first=role is Role.ALL)
    except SettingsInvalid as error:
        if not as_json:
            show_faults(error, role)
        from relay.doctor.finding import Subject

        _write(role, [Subject("setting", key).bad(wrong, remedy) for key, wrong, remedy in error.faults])
        raise typer.Exit(FAULTY) from error


def _write(role: Role, findings: Sequence["Finding"], seconds: float = 0.0) -> None:
    """Print the document for programs."""
    from relay.doctor.finding import healthy

    document = {
        "version": version("push-relay"),
        "role": role.value,
        "good": healthy(findings),
        "seconds": round(seconds, 3),
        "checks": [finding.document() for finding in findings],
    }
    say(json.dumps(document, indent=2))


def _leave(status: int) -> NoReturn:
    """End the command, whatever threads still wait for: a dead name server or KDC holds one for minutes."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise typer.Exit(status)
