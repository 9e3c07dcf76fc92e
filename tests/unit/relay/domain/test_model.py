from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.machine.memory import Memory
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.model import SHARDS, Candidate, Mark, Quarantine, RegistrationId, WatchRecord, shard_of
from tests.fakes import records


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


def test_a_record_has_the_seals_of_its_credential_and_its_candidates_and_takes_new_ones() -> None:
    ann = records.mailbox()
    candidates = tuple(Candidate(RegistrationId(name), ann.id, name.encode()) for name in ("first", "second"))
    record = WatchRecord(ann, b"own", Memory(), candidates, 2)
    fresh = WatchRecord(ann, None, Memory(), (), 0)

    assert record.seals == [b"own", b"first", b"second"]
    assert record.resealed({b"own": b"own anew", b"second": b"second anew"}).seals == [
        b"own anew",
        b"first",
        b"second anew",
    ]
    assert fresh.seals == []
    assert fresh.resealed({b"own": b"own anew"}) == fresh


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("recheck_at", "refused_at", "due_at"),
    [
        (NOW - HOUR, NOW - 2 * HOUR, NOW - HOUR),
        (NOW + HOUR, NOW, NOW + HOUR),
        (NOW + 31 * HOUR, None, NOW + 31 * HOUR),
        (NOW + 37 * HOUR, None, NOW),
        (NOW + 25 * HOUR, NOW + 24 * HOUR, NOW),
        (NOW + HOUR, NOW + timedelta(minutes=4), NOW + HOUR),
        (NOW - HOUR, NOW + 24 * HOUR, NOW - HOUR),
    ],
)
def test_a_quarantine_waits_for_its_re_check_unless_a_wrong_clock_set_it(
    recheck_at: datetime, refused_at: datetime | None, due_at: datetime
) -> None:
    assert Quarantine(NOW, "BadDeviceToken", "look", recheck_at, 1, refused_at).due_at(NOW) == due_at
