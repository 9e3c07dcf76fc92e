"""Sessions of PostgreSQL: how one is set up, and whether each connection has a session of its own.

A pooler may stand between: PgBouncer in session mode is as good as PostgreSQL itself. In transaction or statement mode
a connection gets another session every time; prepared statements fail or not, as chance has it, and notifications are
lost in silence, so that pushes come late. What is set up here is set by statements: PgBouncer refuses connections that
ask for settings at their start.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import asyncpg

from relay.domain.errors import NotificationsLost, SessionsShared

log = logging.getLogger(__name__)

MARK: Final = "push_relay.session"
"""A setting that only one session has: PostgreSQL lets everybody make settings with a dot in their names."""
ROUNDS: Final = 3  # a pooler may by chance give a connection the same session again
ANSWER: Final = 10.0  # seconds a statement may take
HEARD: Final = 10.0  # seconds a notification may take
DRIVER_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when a server is away or refuses; the last one between a server's word that it ends a session and
the end of the connection."""


async def open_session(arguments: Mapping[str, Any], settings: Mapping[str, str]) -> Any:
    """Return a connection of asyncpg whose session has these settings; raises OSError and what asyncpg raises."""
    connection = await asyncpg.connect(**arguments)
    try:
        # Constants of the relay: no value comes from outside. One simple query: nothing is prepared, no name looked up.
        parts = ", ".join(f"pg_catalog.set_config('{name}', '{value}', false)" for name, value in settings.items())
        await connection.execute(f"SELECT {parts}", timeout=ANSWER)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def check_sessions(arguments: Mapping[str, Any]) -> None:
    """Look whether connections have sessions of their own, and hear notifications.

    Raises SessionsShared or NotificationsLost. That the database is away, or refuses, is left to the first transaction
    to say, in its words; the log notes that nothing was looked at.
    """
    async with AsyncExitStack() as stack:
        try:
            one, other = [await _open(arguments, stack) for _ in range(2)]
            await tell_apart(one, other)
            await hear(one, other)
        except DRIVER_ERRORS as error:
            detail = f"{type(error).__name__}: {error}"
            log.warning("not looked whether a pooler shares database sessions", extra={"detail": detail})


async def _open(arguments: Mapping[str, Any], stack: AsyncExitStack) -> Any:
    connection = await asyncpg.connect(**arguments)
    stack.callback(connection.terminate)
    return connection


async def tell_apart(one: Any, other: Any) -> None:
    """Mark one session; raise SessionsShared if it is not always there, or is where it should not be."""
    mark = secrets.token_hex(8)
    there = (
        f"coalesce(pg_catalog.current_setting('{MARK}', true) OPERATOR(pg_catalog.=) '{mark}', false)::pg_catalog.int4"
    )
    await one.execute(f"SELECT pg_catalog.set_config('{MARK}', '{mark}', false)", timeout=ANSWER)
    # A simple query shows no rows, and a prepared one may fail by itself in a shared session: a division answers.
    marked = f"SELECT 1 OPERATOR(pg_catalog./) {there}"
    unmarked = f"SELECT 1 OPERATOR(pg_catalog./) (1 OPERATOR(pg_catalog.-) {there})"
    try:
        for _ in range(ROUNDS):
            await one.execute(marked, timeout=ANSWER)
            await other.execute(unmarked, timeout=ANSWER)
    except asyncpg.DivisionByZeroError as error:
        raise SessionsShared from error


async def hear(one: Any, other: Any, within: float = HEARD) -> None:
    """Send a notification from one session to another; raise NotificationsLost if it does not come in some seconds."""
    channel, heard = f"push_relay_{secrets.token_hex(8)}", asyncio.Event()
    try:
        await one.add_listener(channel, lambda *_: heard.set())
        await other.execute(f"NOTIFY {channel}", timeout=ANSWER)
        async with asyncio.timeout(within):
            await heard.wait()
    except (TimeoutError, asyncpg.FeatureNotSupportedError) as error:
        raise NotificationsLost from error
