from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.machine.seen import END, NONE_SEEN, SEEN_KEPT, SeenIds
from eas_watcher.names import ServerId

IDS = st.lists(st.text(st.characters(exclude_characters=END, exclude_categories=["Cs"]), max_size=5).map(ServerId))


def ids(*numbers: int) -> list[ServerId]:
    return [ServerId(f"5:{number}") for number in numbers]


@given(IDS)
def test_ids_come_back_as_they_were(some: list[ServerId]) -> None:
    seen = SeenIds.of(some)

    assert (list(seen), len(seen), bool(seen)) == (some, len(some), bool(some))
    assert all(id_ in seen for id_ in some)


@given(IDS, IDS)
def test_newer_ids_come_last_and_the_oldest_are_forgotten(some: list[ServerId], newer: list[ServerId]) -> None:
    assert list(SeenIds.of(some[-SEEN_KEPT:]).with_newer(newer)) == [*some[-SEEN_KEPT:], *newer][-SEEN_KEPT:]


def test_no_more_are_kept_than_the_limit() -> None:
    seen = SeenIds.of(ids(*range(SEEN_KEPT - 1)))

    assert list(seen.with_newer(ids(100, 101, 102))) == ids(*range(2, SEEN_KEPT - 1), 100, 101, 102)
    assert list(seen.with_newer(ids(*range(1000)))) == ids(*range(1000 - SEEN_KEPT, 1000))


def test_a_part_of_an_id_is_another_id() -> None:
    seen = SeenIds.of(ids(11, 22))

    assert ServerId("5:11") in seen
    assert not any(ServerId(other) in seen for other in ("5:1", "1", "", "5:2"))


def test_equal_ids_are_equal_values() -> None:
    assert SeenIds.of(ids(1)).with_newer(ids(2)) == SeenIds.of(ids(1, 2))
    assert SeenIds.of([]) is NONE_SEEN
    assert SeenIds.of(ids(1)).with_newer([]) == SeenIds.of(ids(1))


def test_ids_are_one_text() -> None:
    assert SeenIds.of(ids(1, 2)).text == "\x005:1\x005:2\x00"
