"""The part of health of the sealing keys."""

import pytest

from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder
from relay.ops.health import OK, PartState
from relay.ops.sealing_keys import sealing_keys
from relay.security.key_presence import KeyPresence
from relay.security.sealing import SealingPublicKey, generate
from relay.watch.turnover import TurnoverProgress
from tests.fakes.key_holders import MemoryKeyHolders
from tests.fakes.ops import NOON

KEY = SealingPublicKey.read(generate()[1])


def keys(*others: KeyHolder) -> KeyPresence:
    return KeyPresence("api-1", Role.API, MemoryKeyHolders(*others), lambda: NOON, frozenset(), KEY)


async def test_a_key_that_a_watch_process_cannot_open_is_named_with_the_process() -> None:
    presence = keys(KeyHolder("watch-2", Role.WATCH, frozenset(), ""))
    part = sealing_keys(presence, None)
    assert part.check() == OK

    await presence.look()

    found = part.check()
    assert found.state is PartState.DEGRADED
    assert found.reason == f"the key {KEY.name} waits: watch-2 cannot open what is sealed for it"
    assert "beside sealing.private_key_file" in found.remedy


async def test_a_process_that_seals_with_another_key_is_named() -> None:
    presence = keys(KeyHolder("watch-2", Role.WATCH, frozenset({KEY.name}), "aa"))

    await presence.look()

    found = sealing_keys(presence, None).check()
    assert found.reason == f"watch-2 seals with another key than the one here, {KEY.name}"
    assert "`relay keys rotate`" in found.remedy


@pytest.mark.parametrize("opens", [frozenset(), frozenset({KEY.name})])
async def test_no_key_is_asked_for_a_process_that_was_killed(opens: frozenset[str]) -> None:
    presence = keys(KeyHolder("watch-2", Role.WATCH, opens, "aa", leased=False))

    await presence.look()

    found = sealing_keys(presence, None).check()
    assert found.reason == f"the key {KEY.name} waits: watch-2 starts, or has ended without a word"
    assert found.remedy.startswith("Nothing now")


def test_credentials_that_open_with_no_key_are_counted() -> None:
    progress = TurnoverProgress()
    part = sealing_keys(keys(), progress)
    assert part.check() == OK

    progress.closed = 3

    assert part.check().reason == "3 stored credentials open with no key of this process"
