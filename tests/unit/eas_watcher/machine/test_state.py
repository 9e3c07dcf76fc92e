from dataclasses import replace

import pytest

from eas_watcher.machine.memory import Collection
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass, CollectionId
from tests.unit.eas_watcher.watching import CALENDAR, EMAIL, INBOX, NOW, PARTNERSHIP, watch_of

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


def test_a_parked_collection_is_wanted_but_not_watched() -> None:
    watch = watch_of(*ALL, parked=frozenset({NOTES.id}))

    assert watch.wanted == (INBOX, NOTES, CALENDAR)
    assert watch.watched == (INBOX, CALENDAR)


def test_resync_all_makes_every_collection_due_for_a_sync() -> None:
    assert watch_of(*ALL).resync_all() == watch_of(*ALL, unsynced=frozenset(c.id for c in ALL))


def test_a_policy_has_defaults() -> None:
    assert (Policy().heartbeat.interval, Policy().acknowledgement) == (600, 4)


@pytest.mark.parametrize(
    ("url", "discovered", "redirected"), [(None, False, False), ("x", False, True), ("x", True, False)]
)
def test_a_mailbox_is_redirected_once_a_server_sent_it_away_from_its_configured_url(
    url: str | None, discovered: bool, redirected: bool
) -> None:
    watch = watch_of(partnership=replace(PARTNERSHIP, url=url), policy=Policy(discovered=discovered))

    assert watch.redirected is redirected


def test_mail_in_folders_that_were_parked_was_not_announced() -> None:
    parked = watch_of(*ALL, parked=frozenset({NOTES.id}), sync_failures=(NOTES.id,), announced_until=NOW)

    assert parked.unparked() == watch_of(*ALL, sync_failures=(NOTES.id,)), "its next failure parks it at once"
    assert watch_of(*ALL, announced_until=NOW).unparked() == watch_of(*ALL, announced_until=NOW)
