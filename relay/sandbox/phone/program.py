"""`relay phone`: a session over the files of a sandbox, driven by a script or by lines that a person types."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import aiohttp

from eas_watcher.transport.tls import client_context
from relay.domain.clock import Clock
from relay.sandbox.phone.api import PhoneApi
from relay.sandbox.phone.script import COMMANDS, Command, ScriptFault, read_line
from relay.sandbox.phone.session import Plan, Session, Unfulfilled
from relay.sandbox.phone.simctl import Simulator
from relay.sandbox.remote import SandboxRefused

HELP = "\n".join(f"  {name} {usage}" for name, (_, _, usage) in COMMANDS.items())


@dataclass(frozen=True, slots=True)
class Site:
    """Where relay and sandbox are."""

    api: str
    control: str
    ca_file: Path

    @classmethod
    def of(cls, folder: Path, api: str | None, control: str | None, ca_file: Path | None) -> "Site":
        """Return the site that `relay sandbox` wrote into its folder, except for what is given.

        Raises OSError, ValueError.
        """
        written: dict[str, str] = {}
        if api is None or control is None:
            written = json.loads((folder / "sandbox.json").read_text(encoding="utf-8"))
        try:
            return cls(api or written["api"], control or written["control"], ca_file or folder / "ca.pem")
        except (KeyError, TypeError) as error:
            raise ValueError("sandbox.json is not one that `relay sandbox` writes") from error


async def run_phone(
    plan: Plan,
    site: Site,
    script: Sequence[Command] | None,
    write: Callable[[str], None],
    clock: Clock,
    *,
    simulator: Simulator | None = None,
    as_json: bool = False,
) -> None:
    """Run a script, or without one obey the lines of standard input until its end.

    Raises Unfulfilled, SandboxRefused and ScriptFault of a script; faults of typed lines are shown.
    """

    def tell(name: str, what: str, text: str, at: float) -> None:
        if as_json:
            write(json.dumps({"phone": name, "at": round(at, 3), "what": what, "text": text}))
        else:
            write(f"{timedelta(seconds=int(at))!s:>16}  {name:<12} {what:<12} {text}")

    connector = aiohttp.TCPConnector(ssl=client_context(site.ca_file))
    async with aiohttp.ClientSession(site.api, connector=connector) as http:
        session = Session(plan, PhoneApi(http), site.control, tell, clock, simulator)
        await session.begin()
        job = obey_typed_lines(session, write) if script is None else _run_script(session, script)
        await _until_first(job, session.listen(), session.tick())


async def _until_first(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run jobs until one of them ends, and raise what it raises."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_script(session: Session, script: Sequence[Command]) -> None:
    for command in script:
        await session.execute(command)


async def obey_typed_lines(session: Session, write: Callable[[str], None]) -> None:
    """Obey what a person types, until the end of the input."""
    write(f"Commands, one a line; Ctrl-D ends:\n{HELP}")
    async for line in _lines(sys.stdin):
        try:
            command = read_line(line)
            if command is not None:
                await session.execute(command)
        except (ScriptFault, SandboxRefused, Unfulfilled, ValueError) as error:
            write(f"  {error}")


async def _lines(file: TextIO) -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    while line := await reader.readline():
        yield line.decode(errors="replace")
