import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.model import SHARDS, Mark, shard_of


@pytest.mark.parametrize(
    ("mailbox", "shard"),
    # sha256sum of each id, its 8th byte: 256 divides 2**64, so the modulo keeps the last of the 8 bytes.
    [("", 0x14), ("ann", 0x2E), ("ben", 0x0E), ("00112233445566ff", 0xB7), ("zoë", 0xA5)],
)
def test_the_shard_of_a_mailbox_never_changes(mailbox: str, shard: int) -> None:
    assert shard_of(MailboxId(mailbox)) == shard


@given(st.text())
def test_every_mailbox_has_a_shard(mailbox: str) -> None:
    assert 0 <= shard_of(MailboxId(mailbox)) < SHARDS


def test_mailboxes_spread_over_all_shards() -> None:
    assert len({shard_of(MailboxId(f"mailbox-{number}")) for number in range(10_000)}) == SHARDS


@pytest.mark.parametrize("cls", list(CollectionClass))
def test_new_items_of_each_class_set_a_mark_of_its_name(cls: CollectionClass) -> None:
    assert Mark.of(cls).value == cls.value
