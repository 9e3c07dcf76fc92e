"""The commands that look at running processes: `relay status` for people, `relay check-health` for monitoring."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, Self, TypeAlias

import typer

from relay.cli.configuration import DEFAULT, Config, default_config
from relay.cli.output import FAILED, FAULTY, fail, say, show_faults
from relay.cli.running import complete, run
from relay.domain.errors import RelayError, SettingsInvalid
from relay.domain.model import Role

if TYPE_CHECKING:
    from rich.text import Text

    from relay.ops.plugin import Thresholds
    from relay.ops.readings import Reading
    from relay.ops.status import DatabaseView, Status
    from relay.settings.values import DatabaseSettings

    View: TypeAlias = Callable[[], Awaitable[DatabaseView]]

UNKNOWN: Final = 3
"""Nagios's exit status of a check that could not be made."""
EVERY: Final = 2.0  # seconds between two readings of the live view
COLOURS: Final = {"ok": "green", "degraded": "yellow", "failed": "red"}

Nodes = Annotated[
    list[str] | None,
    typer.Option("--node", help="http://HOST:PORT of a process's ops listener, for each; else ops.host of relay.toml."),
]
Limit = Annotated[float | None, typer.Option(min=0)]


class Probe(StrEnum):
    """What a container asks."""

    ALIVE = "alive"
    READY = "ready"


def status(
    node: Nodes = None,
    config: Config = DEFAULT,
    role: Annotated[Role, typer.Option("--role", help="Whose database user to look with.")] = Role.ALL,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, not as a view that goes on.")] = False,
    seconds: Annotated[
        float, typer.Option(min=0, max=600, help="With --once or --json: what comes per minute is measured so long.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON once, for programs.")] = False,
) -> None:
    """Show what the relay does now: its health with remedies, Pings held, changes and pushes, servers and providers."""
    from relay.ops.readings import is_listener
    from relay.process import log
    from relay.settings import database_of, ops_addresses

    try:
        nodes = [[each.rstrip("/")] for each in node or ()] or [ops_addresses(config, os.environ)]
        database = database_of(config, os.environ, role)
    except SettingsInvalid as error:
        show_faults(error)
    for url in node or ():
        if not is_listener(url):
            fail(f"--node: {url} is no http://HOST:PORT", FAULTY)
    log.configure("critical", "text", sys.stderr)
    if once or as_json or not sys.stdout.isatty():
        seen = complete(_once(nodes, database, seconds))
        _print(seen, as_json=as_json)
        if all(each.trouble for each in seen.processes):
            fail("no process of the relay answers", FAILED)
    else:
        run(_live(nodes, database))


async def _once(nodes: Sequence[Sequence[str]], database: "DatabaseSettings", seconds: float) -> "Status":
    """Return the status after two readings, so many seconds apart; 0: after one."""
    async with _Watcher(nodes, database) as watcher:
        seen = await watcher.look()
        if seconds:
            await asyncio.sleep(seconds)
            seen = await watcher.look()
        return seen


async def _live(nodes: Sequence[Sequence[str]], database: "DatabaseSettings") -> None:
    from rich.live import Live

    async with _Watcher(nodes, database) as watcher:
        with Live(auto_refresh=False, screen=True) as view:
            while True:
                view.update(_coloured(await watcher.look()), refresh=True)
                await asyncio.sleep(EVERY)


def _print(seen: "Status", *, as_json: bool) -> None:
    from relay.ops.status import document, lines
    from relay.process.clock import now

    if as_json:
        say(json.dumps(document(seen, now()), indent=2))
    else:
        typer.echo("\n".join(lines(seen, now())))


def _coloured(seen: "Status") -> "Text":
    from rich.text import Text

    from relay.ops.status import lines
    from relay.process.clock import now

    text = Text("\n".join(lines(seen, now())), overflow="fold")
    for word, colour in COLOURS.items():
        text.highlight_regex(rf"\b{word}\b", colour)
    return text


class _Watcher:
    """Reads processes and database, and remembers the readings before."""

    def __init__(self, nodes: Sequence[Sequence[str]], database: "DatabaseSettings") -> None:
        self._nodes = list(dict.fromkeys(map(tuple, nodes)))
        """Each with the addresses where it may be reached."""
        self._settings = database
        self._stack = AsyncExitStack()
        self._before: dict[str, Reading] = {}
        self._view: View | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def look(self) -> "Status":
        """Return the status now."""
        from relay.ops.readings import ask_any
        from relay.ops.status import combine

        asked = (asyncio.to_thread(ask_any, urls, time.monotonic()) for urls in self._nodes)
        looking = asyncio.gather(*asked)
        found, trouble = await self._look_at_database()
        readings = await looking
        before, self._before = self._before, {each.url: each for each in readings}
        return combine(readings, before, found, trouble)

    async def _look_at_database(self) -> "tuple[DatabaseView | None, str]":
        """Return what the database says, or why it says nothing."""
        from relay import app

        file = self._settings.file
        if file is not None and not await asyncio.to_thread(file.exists):
            return None, f"there is no database {file}"
        try:
            if self._view is None:
                self._view = await self._stack.enter_async_context(app.database_view(self._settings))
            return await self._view(), ""
        except (RelayError, OSError) as error:
            return None, str(error)


def check_health(
    node: Annotated[
        str | None, typer.Option("--node", help="http://HOST:PORT of the ops listener; else that of relay.toml.")
    ] = None,
    config: Annotated[
        Path | None,
        # A file that this user may not read is status 3 as any other fault of it; 2 would be a failed relay.
        typer.Option("--config", "-c", help="The relay.toml that names the ops listener.", readable=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to wait for each answer.")] = 5.0,
    only: Annotated[
        Probe | None,
        typer.Option("--probe", help="Ask only whether it is alive, or ready; status 0 or 1, for containers."),
    ] = None,
    warn_pending: Limit = None,
    crit_pending: Limit = None,
    warn_oldest: Limit = None,
    crit_oldest: Limit = None,
    warn_lag: Limit = None,
    crit_lag: Limit = None,
    warn_watched: Limit = None,
    crit_watched: Limit = None,
) -> None:
    """Check a process for Nagios or Icinga: one line with numbers; status 0 OK, 1 warning, 2 critical, 3 unknown.

    A warning above, or for `watched` below, so many: pushes that wait (`pending`), seconds of the oldest of them
    (`oldest`), seconds that timers are late (`lag`), per cent of the mailboxes (`watched`).
    """
    from relay.ops.plugin import Threshold, Thresholds, unknown
    from relay.ops.readings import is_listener

    status = FAILED if only else UNKNOWN
    if node and not is_listener(node):
        say(unknown(f"--node: {node} is no http://HOST:PORT"))
        raise typer.Exit(status)
    urls = [node.rstrip("/")] if node else _listeners(config, status)
    if only is not None:
        _probe(urls, only, timeout)
    thresholds = Thresholds(
        Threshold(warn_pending, crit_pending),
        Threshold(warn_oldest, crit_oldest),
        Threshold(warn_lag, crit_lag),
        Threshold(warn_watched, crit_watched, low=True),
    )
    _check(urls, thresholds, timeout)


def _check(urls: Sequence[str], thresholds: "Thresholds", timeout: float) -> NoReturn:
    """Print the verdict on the first listener that answers, and end with its status."""
    from relay.ops.plugin import verdict
    from relay.ops.readings import ask_any

    code, line = verdict(ask_any(urls, time.monotonic(), timeout), thresholds)
    say(line)
    raise typer.Exit(code)


def _probe(urls: Sequence[str], what: Probe, timeout: float) -> NoReturn:
    """End with 0 if a listener says what is asked, else with 1, which containers take for ill."""
    from relay.ops.readings import ALIVE, READY, probe

    path = ALIVE if what is Probe.ALIVE else READY
    troubles = []
    for url in urls:
        trouble = probe(url, path, timeout)
        if not trouble:
            say(what.value)
            raise typer.Exit
        troubles.append(f"{url} {trouble}")
    fail("; ".join(troubles), FAILED)


def _listeners(config: Path | None, status: int) -> list[str]:
    """Return where the configured ops listener answers; end with this status if relay.toml does not say it."""
    from relay.ops.plugin import unknown
    from relay.settings import ops_addresses

    try:
        return ops_addresses(config or default_config(), os.environ)
    except SettingsInvalid as error:
        say(unknown("; ".join(f"{key} {wrong}. {remedy}" for key, wrong, remedy in error.faults)))
    except typer.Exit as ended:
        if ended.exit_code != FAULTY:
            raise
        say(unknown("there is no relay.toml: name it with --config, or the listener with --node"))
    raise typer.Exit(status)
