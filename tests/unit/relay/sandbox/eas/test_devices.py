from random import Random

from eas_watcher.names import CollectionId, SyncKey
from relay.sandbox.eas.devices import Checkpoint, KeyHistory, KeyMint, PingParameters, SimulatedDevice, SyncedCollection
from relay.sandbox.eas.mailboxes import DEFAULT_FOLDERS

FIRST, SECOND, THIRD = SyncKey("k1"), SyncKey("k2"), SyncKey("k3")


def history() -> KeyHistory[str, int]:
    keys: KeyHistory[str, int] = KeyHistory(Checkpoint(FIRST, {}))
    keys.advance(SECOND, {"5:1": 0})
    return keys


def test_the_newest_key_is_valid() -> None:
    assert history().accept(SECOND) == Checkpoint(SECOND, {"5:1": 0})


def test_the_key_before_withdraws_the_newest_one() -> None:
    keys = history()

    assert keys.accept(FIRST) == Checkpoint(FIRST, {})
    assert keys.accept(SECOND) is None
    assert keys.accept(FIRST) == Checkpoint(FIRST, {})


def test_older_and_unknown_keys_are_invalid_and_change_nothing() -> None:
    keys = history()
    keys.advance(THIRD, {})

    assert keys.accept(FIRST) is None
    assert keys.accept("guess") is None
    assert keys.accept(THIRD) == Checkpoint(THIRD, {})


def test_a_device_that_lost_its_state_keeps_only_its_policy_key() -> None:
    mint = KeyMint(Random(1))
    folders = {folder.id: folder for folder in DEFAULT_FOLDERS}
    device = SimulatedDevice(policy_key="7", hierarchy=KeyHistory(Checkpoint(FIRST, folders)))
    device.collections[CollectionId("5")] = SyncedCollection(KeyHistory(Checkpoint(SECOND, {})))
    device.ping = PingParameters(60, ())
    device.lose_state(mint)

    assert device.policy_key == "7"
    assert device.lost
    assert not device.collections
    assert device.ping is None
    assert device.hierarchy is not None
    assert device.hierarchy.accept(FIRST) is None
    assert device.hierarchy.newest.known == folders


def test_a_device_without_a_hierarchy_has_none_to_lose() -> None:
    device = SimulatedDevice()
    device.lose_state(KeyMint(Random(1)))

    assert device.hierarchy is None


def test_sync_keys_are_unique() -> None:
    constant = Random(1)
    constant.getrandbits = lambda k: 7  # type: ignore[method-assign]
    mint = KeyMint(constant)
    keys = {mint.sync_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(len(key) <= 64 for key in keys)


def test_policy_keys_are_unsigned_32_bit_numbers_except_0() -> None:
    mint = KeyMint(Random(1))

    assert all(0 < int(mint.policy_key()) < 1 << 32 for _ in range(100))
