"""A large answer of a mail server is read while the loop serves other mailboxes."""

import asyncio
from datetime import UTC, datetime
from random import Random

import pytest

from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import ProtocolViolation
from eas_watcher.machine.state import RATE
from eas_watcher.names import SyncKey
from eas_watcher.runtime.client import LARGE_ANSWER, EasClient
from eas_watcher.server.admissions import Admissions
from eas_watcher.wbxml.decode import MAX_TOKENS
from tests.fakes.eas import ScriptedTransport
from tests.unit.eas_watcher.running import account
from tests.unit.eas_watcher.watching import PARTNERSHIP

HEADER = b"\x03\x01\x6a\x00"
ENDLESS = HttpReply(200, {}, HEADER + b"\x45" + b"\x4b\x03x\x00\x01" * MAX_TOKENS)
NOW = datetime(2026, 11, 29, tzinfo=UTC)


async def turns_while_read(*replies: HttpReply) -> int:
    """Return how many turns of the loop came between the answers and their errors."""
    admissions = Admissions(8, Random(1), lambda: NOW)
    clients = [EasClient(account(), ScriptedTransport(reply), admissions, RATE) for reply in replies]
    turns, reading = (
        0,
        asyncio.gather(
            *(client.send(FolderSync(SyncKey("h1")), PARTNERSHIP) for client in clients), return_exceptions=True
        ),
    )
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert all(isinstance(error, ProtocolViolation) for error in await reading)
    return turns


async def test_the_loop_turns_while_a_large_answer_is_read() -> None:
    assert len(ENDLESS.body) > LARGE_ANSWER

    assert await turns_while_read(ENDLESS, ENDLESS) > 50


@pytest.mark.parametrize("body", [HEADER + b"\x45\x45", HEADER + b"\x45" * LARGE_ANSWER])
async def test_an_unreadable_answer_breaks_the_protocol_however_large(body: bytes) -> None:
    await turns_while_read(HttpReply(200, {}, body))
