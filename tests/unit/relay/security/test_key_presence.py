"""A key is sealed with once every watch process opens it."""

import asyncio
from dataclasses import replace

import pytest

from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder
from relay.security.key_presence import PERIOD, SOON, KeyPresence
from relay.security.sealing import SealingPublicKey, generate
from tests.fakes.key_holders import MemoryKeyHolders
from tests.fakes.ops import NOON

BEFORE, AFTER = (SealingPublicKey.read(generate()[1]) for _ in range(2))


def watch(*keys: SealingPublicKey) -> KeyHolder:
    return KeyHolder("watch-1", Role.WATCH, frozenset(key.name for key in keys), BEFORE.name)


def api(store: MemoryKeyHolders) -> tuple[KeyPresence, list[SealingPublicKey]]:
    used: list[SealingPublicKey] = []
    presence = KeyPresence("api-1", Role.API, store, lambda: NOON, frozenset(), BEFORE)
    presence.listen(used.append)
    return presence, used


async def test_a_new_key_waits_until_every_watch_process_opens_it() -> None:
    store = MemoryKeyHolders(watch(BEFORE))
    presence, used = api(store)
    await presence.look()
    assert presence.agreed

    presence.change(frozenset(), AFTER)
    assert not presence.agreed
    await presence.look()
    assert (presence.without, presence.present, used) == ((watch(BEFORE),), BEFORE, [])
    assert store.known["api-1"].seals == BEFORE.name

    store.known["watch-1"] = watch(BEFORE, AFTER)
    await presence.look()
    assert (presence.without, presence.present, used) == ((), AFTER, [AFTER])
    assert store.known["api-1"].seals == AFTER.name
    assert (presence.agreed, presence.settled, presence.behind) == (True, False, (watch(BEFORE, AFTER),))

    store.known["watch-1"] = replace(watch(BEFORE, AFTER), seals=AFTER.name)
    await presence.look()
    assert (presence.settled, presence.behind) == (True, ())


async def test_keys_that_are_taken_during_a_look_are_looked_at_anew() -> None:
    class Slow(MemoryKeyHolders):
        async def leave(self, node: str) -> None:
            raise AssertionError(node)

        async def holders(self, now: object) -> list[KeyHolder]:
            del now
            presence.change(frozenset({AFTER.name}), AFTER)
            return list(self.known.values())

    store = Slow()
    presence = KeyPresence("all-1", Role.ALL, store, lambda: NOON, frozenset({BEFORE.name}), BEFORE)

    await presence.look()

    assert (presence.present, presence.agreed) == (BEFORE, False)


@pytest.mark.looptime
async def test_it_looks_at_once_when_keys_change_and_goes_on_when_the_database_was_away() -> None:
    store = MemoryKeyHolders(watch(BEFORE))
    presence, used = api(store)
    job = asyncio.get_running_loop().create_task(presence.run())
    try:
        await asyncio.sleep(1)
        presence.change(frozenset(), AFTER)
        await asyncio.sleep(0.1)
        assert [each.node for each in presence.without] == ["watch-1"]
        store.known["watch-1"] = watch(AFTER)
        store.away = True
        await asyncio.sleep(SOON)
        assert used == []
        store.away = False
        await asyncio.sleep(SOON)
        assert used == [AFTER]
        del store.known["api-1"]
        await asyncio.sleep(PERIOD)
        assert "api-1" in store.known, "it notes itself again from time to time"
    finally:
        job.cancel()


@pytest.mark.parametrize("away", [False, True])
async def test_a_process_that_ends_says_so_if_it_can(away: bool) -> None:
    store = MemoryKeyHolders(watch(BEFORE))
    presence, _ = api(store)
    await presence.look()

    store.away = away
    await presence.leave()

    assert ("api-1" in store.known) == away
