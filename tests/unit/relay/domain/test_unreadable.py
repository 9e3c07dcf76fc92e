import logging

import pytest

from relay.domain.unreadable import Unreadable, UnreadableRows


def test_a_row_is_logged_when_it_is_met_when_its_fault_changes_and_when_it_is_readable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = UnreadableRows()
    with caplog.at_level(logging.INFO, "relay"):
        for fault in ("state", "state", "mode"):
            rows.looked("registration", "mb-ann", {"reg-1": fault})
        rows.looked("registration", "mb-ann")
        rows.looked("registration", "mb-ann")

    assert [(r.message, getattr(r, "reason", "")) for r in caplog.records] == [
        ("row set aside", "state"),
        ("row set aside", "mode"),
        ("row taken up again", ""),
    ]


def test_rows_are_known_by_table_owner_and_key() -> None:
    rows = UnreadableRows()
    rows.looked("registration", "mb-ben", {"reg-3": "c"})
    rows.looked("registration", "mb-ann", {"reg-2": "b", "reg-1": "a"})
    rows.looked("mailbox", "mb-ann", {"mb-ann": "d"})

    assert rows.owners("registration") == ["mb-ann", "mb-ben"]
    assert [row.key for row in rows.rows()] == ["mb-ann", "reg-1", "reg-2", "reg-3"]
    assert [row.key for row in rows.of("mb-ann")] == ["mb-ann", "reg-1", "reg-2"]
    assert rows.of("mb-ben") == [Unreadable("registration", "reg-3", "c")]
    assert rows.of("mb-cas") == []
