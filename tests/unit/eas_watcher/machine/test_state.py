import pytest

from eas_watcher.machine.memory import Collection
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, CollectionId
from tests.unit.eas_watcher.watching import CALENDAR, EMAIL, INBOX, watch_of

NOTES = Collection(CollectionId("1"), CollectionClass.NOTES)
ALL = (NOTES, CALENDAR, INBOX)


def test_watches_the_classes_that_registrations_ask_for() -> None:
    assert watch_of(*ALL, classes=EMAIL).watched == (INBOX,)
    assert watch_of(*ALL, classes=frozenset()).watched == ()


@pytest.mark.parametrize(("limit", "watched"), [(None, (INBOX, NOTES, CALENDAR)), (2, (INBOX, NOTES)), (1, (INBOX,))])
def test_the_inbox_comes_first_when_the_server_takes_only_some(
    limit: int | None, watched: tuple[Collection, ...]
) -> None:
    assert watch_of(*ALL, max_folders=limit).watched == watched


def test_resync_all_makes_every_collection_due_for_a_sync() -> None:
    assert watch_of(*ALL).resync_all() == watch_of(*ALL, unsynced=frozenset(c.id for c in ALL))


def test_a_policy_has_defaults() -> None:
    assert (Policy().heartbeat.interval, Policy().acknowledgement) == (600, 4)
