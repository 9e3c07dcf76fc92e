"""What a mailbox costs while its Ping is held: the objects of its watch, without those of the transport."""

import asyncio
import gc
import weakref
from dataclasses import replace
from datetime import timedelta
from sys import getsizeof
from types import FunctionType
from typing import Any, Final

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.errors import Unreachable
from eas_watcher.machine.memory import Memory
from eas_watcher.machine.seen import SEEN_KEPT, SeenIds
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, CollectionId, DeviceId, MailboxId, PolicyKey, ServerId, SyncKey
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.admissions import Admissions
from tests.fakes.eas import HeldPing, HoldingTransport, MemoryJournal
from tests.unit.eas_watcher.running import World, pinged
from tests.unit.eas_watcher.watching import INBOX, NOW, PARTNERSHIP

pytestmark = pytest.mark.looptime

MANY: Final = 100
POLICY: Final = Policy(return_rate=10_000.0)
MOST: Final = 2500
"""Bytes for each mailbox, with the texts that it was started with and the ids of all items that are remembered."""
LEAST: Final = 1000
"""Fewer would mean that most of it was not counted."""


class Forgetful(MemoryJournal):
    """A journal that keeps nothing."""

    async def commit(self, mailbox: MailboxId, progress: object) -> None:
        pass

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        pass


def start(fleet: Fleet, server: HoldingTransport, number: int) -> None:
    """Start a watch with values of its own, as they come from a database."""
    user = f"ann.{number:05}@example.com"
    credential = BasicCredential(user, f"password {number:05}")
    account = Account(
        MailboxId(f"{number:032}"), "https://mail.example.com/eas", user, DeviceId(f"D{number:031}"), credential
    )
    partnership = replace(
        PARTNERSHIP, policy_key=PolicyKey(str(10**9 + number)), hierarchy_key=SyncKey(f"{{{number:036}}}1")
    )
    inbox = replace(
        INBOX,
        id=CollectionId(str(number)[:0] + "5"),
        sync_key=SyncKey(f"{{{number:036}}}2"),
        newest=NOW + timedelta(seconds=number),
        seen=SeenIds.of(ServerId(f"5:{each}") for each in range(number, number + SEEN_KEPT)),
    )
    classes = frozenset([CollectionClass.EMAIL])
    fleet.start(
        account, server, Memory(partnership, (inbox,), classes, subfolders=frozenset(classes - classes)), POLICY
    )


def size_of(roots: list[Any], shared: tuple[type, ...]) -> int:
    """Return the bytes of all objects that hang on some roots, but for those of shared types and what hangs on them."""
    known: set[int] = set()
    rest, size = list(roots), 0
    while rest:
        each = rest.pop()
        if id(each) in known or isinstance(each, shared):
            continue
        known.add(id(each))
        size += getsizeof(each)
        rest += gc.get_referents(each)
    return size


async def test_a_mailbox_costs_little_memory_while_its_ping_is_held() -> None:
    server, world = HoldingTransport(), World(Forgetful())
    fleet = Fleet(world.context, lambda _: None)
    for number in range(MANY):
        start(fleet, server, number)
    await asyncio.sleep(1)
    watches = [ping.done for ping in server.held]
    shared = (type, FunctionType, Fleet, WatchContext, Admissions, ServerAdmission, HoldingTransport, HeldPing, Policy)
    at_first = size_of(watches, shared) / MANY
    for ping in server.held[:]:
        ping.done(pinged(1))
    await asyncio.sleep(1)
    assert len(server.held) == 2 * MANY
    later = size_of(watches, shared) / MANY

    assert LEAST < at_first < MOST
    assert LEAST < later < MOST
    await fleet.stop_all()


async def test_the_failure_of_a_held_ping_does_not_wait_for_the_garbage_collector() -> None:
    """Thousands of Pings are cut at once, and collections are rare."""
    server, world = HoldingTransport(), World(Forgetful())
    fleet = Fleet(world.context, lambda _: None)
    start(fleet, server, 0)
    await asyncio.sleep(1)
    gc.disable()
    try:
        error = Unreachable("connection lost: the server closed it", 300.0)
        known = weakref.ref(error)
        server.held[0].done(error)
        del error
        await asyncio.sleep(1)
        assert len(server.held) == 1
        assert known() is None
    finally:
        gc.enable()
    await fleet.stop_all()
