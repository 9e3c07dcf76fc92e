from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.memory import Collection, Partnership
from eas_watcher.machine.seen import SeenIds
from eas_watcher.machine.sharing import MOST, Sharing
from eas_watcher.machine.state import Policy, Watch
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId
from tests.unit.eas_watcher.watching import INBOX, watch_of

URL: Final = "https://mail.example.com/eas"


def fresh(text: str) -> str:
    """Return an equal text that is another object."""
    return "".join(list(text))


def a_watch(number: int = 0, *seen: str) -> Watch:
    """Return a watch whose values are objects of its own."""
    inbox = replace(INBOX, id=CollectionId(fresh("the inbox")), seen=SeenIds.of(map(ServerId, seen)))
    return watch_of(
        partnership=Partnership(ProtocolVersion.V14_1, url=fresh(URL)),
        collections=(inbox, Collection(CollectionId(fresh("the calendar")), CollectionClass.CALENDAR)),
        classes=frozenset([CollectionClass.EMAIL]),
        subfolders=frozenset(set[CollectionClass]()),
        heartbeat=Heartbeat(600 + number),
        unsynced=frozenset(set[CollectionId]()),
        parked=frozenset(set[CollectionId]()),
        shown_detail=f"a detail of heartbeat {600 + number}",
        capacity=fresh("all are held"),
        hierarchy_fault=fresh("a fault"),
    )


SHARED: list[Callable[[Watch], Any]] = [
    lambda watch: watch.classes,
    lambda watch: watch.subfolders,
    lambda watch: watch.heartbeat,
    lambda watch: watch.unsynced,
    lambda watch: watch.parked,
    lambda watch: watch.capacity,
    lambda watch: watch.hierarchy_fault,
    lambda watch: watch.shown_detail,
    lambda watch: watch.partnership.url,
    lambda watch: watch.collections[0].id,
    lambda watch: watch.collections[1],
]


@pytest.mark.parametrize("part", SHARED)
def test_equal_values_of_two_watches_are_one_object(part: Callable[[Watch], Any]) -> None:
    sharing, one, other = Sharing(), a_watch(), a_watch()

    assert part(one) is not part(other)
    assert part(sharing.rest(one)) is part(sharing.rest(other))


def test_a_watch_at_rest_keeps_what_differs() -> None:
    sharing, one, other = Sharing(), a_watch(1, "5:1"), a_watch(2, "5:2")

    assert [sharing.rest(watch) for watch in (one, other)] == [one, other]


def test_what_is_due_is_kept() -> None:
    due = replace(
        a_watch(), unsynced=frozenset({INBOX.id}), parked=frozenset({CollectionId("9")}), partnership=Partnership()
    )

    assert Sharing().rest(due) == due


def test_a_watch_that_rests_again_keeps_its_values() -> None:
    sharing = Sharing()
    rested = sharing.rest(a_watch(1, "5:1"))

    assert all(part(sharing.rest(rested)) is part(rested) for part in SHARED)
    assert all(
        ours is before for ours, before in zip(sharing.rest(rested).collections, rested.collections, strict=True)
    )


def test_values_that_few_watches_have_do_not_fill_the_memory() -> None:
    sharing = Sharing()
    for number in range(2 * MOST + 1):
        sharing.rest(a_watch(number))

    assert len(sharing._heartbeats._known) <= MOST


def test_a_policy_is_shared_by_the_mailboxes_that_start_with_one_heartbeat() -> None:
    sharing, policy = Sharing(), Policy()

    assert sharing.policy(policy, Heartbeat()) is policy
    assert sharing.policy(policy, Heartbeat(900)) is sharing.policy(policy, Heartbeat(900))
    assert sharing.policy(policy, Heartbeat(900)).heartbeat == Heartbeat(900)


def test_jitters_are_few() -> None:
    sharing = Sharing()

    assert sharing.jitter(0.01234) is sharing.jitter(0.01199)
    assert sharing.jitter(0.01234) == 0.012
    assert sharing.seconds(630.0) is sharing.seconds(float("630"))
    assert sharing.classes(frozenset({CollectionClass.TASKS})) is sharing.classes(frozenset({CollectionClass.TASKS}))
