"""Test how values become columns."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.machine.seen import NONE_SEEN, SeenIds
from eas_watcher.names import ServerId
from relay.store.rows import write_seen


@pytest.mark.parametrize(
    "ids", [["5:1"], ["5:1", "5:2", "5:33"], [""], ["", ""], ['5"1'], ["5\\1"], ["5\t1"], ["é", "\x7f"]]
)
def test_ids_are_written_as_json(ids: list[str]) -> None:
    assert write_seen(SeenIds.of(map(ServerId, ids))) == json.dumps(ids)


def test_no_ids_are_an_empty_list() -> None:
    assert write_seen(NONE_SEEN) == "[]"


@given(st.lists(st.text(st.characters(exclude_characters="\0"))))
def test_any_ids_are_read_as_they_were(ids: list[str]) -> None:
    assert json.loads(write_seen(SeenIds.of(map(ServerId, ids)))) == ids
