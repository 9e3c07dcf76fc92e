from dataclasses import replace

import pytest

from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.condition import DISCOVERY_TAKES, SILENT, healthy
from eas_watcher.machine.memory import Collection, Condition, WatchState
from eas_watcher.machine.seen import SeenIds
from eas_watcher.machine.sync_reply import EPOCH
from eas_watcher.names import CollectionClass, CollectionId, ServerId
from eas_watcher.reasons import Reason
from tests.unit.eas_watcher.watching import CALENDAR, INBOX, PARTNERSHIP, altered, watch_of

EMPTY_INBOX = replace(INBOX, newest=EPOCH)
EMPTY_CALENDAR = replace(CALENDAR, newest=EPOCH)


def test_a_watch_that_works_has_no_reason_and_no_detail() -> None:
    assert healthy(watch_of(silent_for=10 * SILENT)) == Condition(WatchState.WATCHING)


@pytest.mark.parametrize(
    ("used", "words"),
    [
        (Acknowledgement.APPLIED, "1 (applied)"),
        (Acknowledgement.PARTIAL, "2 (applied in part)"),
        (Acknowledgement.NOT_APPLIED, "3 (not applied)"),
        (Acknowledgement.THIRD_PARTY, "4 (managed by others)"),
    ],
)
def test_what_was_acknowledged_to_the_server_is_in_the_detail(used: Acknowledgement, words: str) -> None:
    condition = healthy(watch_of(partnership=replace(PARTNERSHIP, acknowledged=used)))

    assert (condition.state, condition.reason) == (WatchState.WATCHING, None)
    assert words in condition.detail


def test_a_mailbox_in_which_nothing_was_ever_found_may_be_quarantined() -> None:
    watch = watch_of(EMPTY_INBOX, EMPTY_CALENDAR, silent_for=SILENT)

    condition = healthy(watch)

    assert (condition.state, condition.reason) == (WatchState.WATCHING, Reason.PERHAPS_QUARANTINED)
    assert "quarantines" in condition.detail
    assert healthy(altered(watch, silent_for=SILENT - 1.0)) == Condition(WatchState.WATCHING)


@pytest.mark.parametrize(
    "collections",
    [
        (INBOX, EMPTY_CALENDAR),
        (replace(EMPTY_INBOX, seen=SeenIds.of([ServerId("5:1")])), EMPTY_CALENDAR),
        (EMPTY_INBOX, replace(EMPTY_CALENDAR, seen=SeenIds.of([ServerId("7:1")]))),
        (EMPTY_CALENDAR,),
    ],
)
def test_a_mailbox_with_items_or_without_mail_is_not_suspected(collections: tuple[Collection, ...]) -> None:
    assert healthy(watch_of(*collections, silent_for=SILENT)).reason is None


def test_the_servers_own_hold_is_in_the_detail() -> None:
    condition = healthy(watch_of(heartbeat=Heartbeat(hold=60.4)))

    assert condition == Condition(
        WatchState.WATCHING, detail="the server ends every Ping after 60 s, whatever it is asked for"
    )


def test_how_many_pings_the_server_holds_is_in_the_detail() -> None:
    text = "mail.example.com holds about 5 Pings at once"

    assert healthy(watch_of(capacity=text)) == Condition(WatchState.WATCHING, detail=text)


def test_why_the_folders_could_not_be_read_is_in_the_detail() -> None:
    assert healthy(watch_of(hierarchy_fault="x")).detail == "the folders could not be read again: x"


def test_folders_that_the_server_does_not_take_are_named() -> None:
    condition = healthy(watch_of(INBOX, CALENDAR, max_folders=1))

    assert condition.reason is None
    assert condition.detail == "no more than 1 folders fit into one Ping; not watched: calendar"


def test_folders_for_which_nobody_asks_are_not_named() -> None:
    watch = watch_of(INBOX, CALENDAR, classes=frozenset({CollectionClass.EMAIL}), max_folders=1)

    assert healthy(watch) == Condition(WatchState.WATCHING)


def test_subfolders_that_are_not_watched_are_counted_for_their_names_are_content() -> None:
    subs = tuple(replace(INBOX, id=CollectionId(f"2{n}"), sub=True) for n in range(4))
    calendar = replace(CALENDAR, id=CollectionId("30"), sub=True)
    both = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})
    watch = watch_of(INBOX, CALENDAR, *subs, calendar, subfolders=both, max_folders=3, parked=frozenset({"21"}))

    assert [c.id for c in watch.watched] == ["5", "7", "20"]
    assert healthy(watch).detail == (
        "the server does not sync 1 sub-folder of email; no more than 3 folders fit into one Ping; not watched: "
        "2 sub-folders of email, 1 sub-folder of calendar"
    )


def test_a_new_device_that_is_shown_nothing_may_be_in_discovery_for_a_while() -> None:
    watch = watch_of(EMPTY_INBOX, new=True)

    condition = healthy(watch)

    assert (condition.state, condition.reason) == (WatchState.WATCHING, Reason.PERHAPS_IN_DISCOVERY)
    assert "a quarter of an hour" in condition.detail
    for other in (
        replace(watch, new=False),
        altered(watch, silent_for=DISCOVERY_TAKES),
        replace(watch, collections=(INBOX,)),
    ):
        assert healthy(other) == Condition(WatchState.WATCHING)
    assert healthy(altered(watch, silent_for=SILENT)).reason is Reason.PERHAPS_QUARANTINED
