from dataclasses import replace

from eas_watcher.machine.memory import Collection, Drain, Memory, Partnership, Progress, WatchState, restart
from eas_watcher.machine.seen import SeenIds
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ServerId
from tests.unit.eas_watcher.watching import CALENDAR, INBOX, NEWEST


def test_progress_of_nothing_changes_nothing() -> None:
    progress = Progress()

    assert (progress.partnership, progress.condition, progress.refusals) == (None, None, None)
    assert (progress.collections, progress.dropped, progress.changes) == ((), (), ())
    assert not progress.attention


def test_a_new_collection_was_never_primed() -> None:
    collection = Collection(CollectionId("5"), CollectionClass.EMAIL)

    assert (collection.sync_key, collection.newest, collection.drain) == (NO_SYNC_KEY, None, None)


def test_the_inbox_is_the_default_folder_of_mail() -> None:
    assert INBOX.is_inbox
    assert not replace(INBOX, sub=True).is_inbox
    assert not CALENDAR.is_inbox


def test_a_new_mailbox_watches_its_mails_and_agreed_on_nothing() -> None:
    assert Memory().classes == {CollectionClass.EMAIL}
    assert Memory().partnership == Partnership(None, None, NO_SYNC_KEY, informed=False)


def test_only_a_refused_credential_and_a_wipe_end_a_watch_for_good() -> None:
    assert {state for state in WatchState if state.ended} == {WatchState.CREDENTIAL_REFUSED, WatchState.WIPED}


def test_a_collection_that_is_primed_again_remembers_since_when_items_are_new() -> None:
    seen = (ServerId("5:1"), ServerId("5:2"))
    again = restart(replace(INBOX, tries=3, seen=SeenIds.of(seen)))

    assert again == replace(INBOX, sync_key=NO_SYNC_KEY, tries=0, drain=Drain(NEWEST, frozenset(seen)))


def test_a_drain_that_was_interrupted_starts_again_with_nothing_found() -> None:
    drain = Drain(NEWEST, frozenset({ServerId("5:1")}), found=4)

    assert restart(replace(INBOX, drain=drain)).drain == replace(drain, found=0)
