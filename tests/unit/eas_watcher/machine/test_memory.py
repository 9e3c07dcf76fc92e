from eas_watcher.machine.memory import Collection, Memory, Partnership, Progress
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId


def test_progress_of_nothing_changes_nothing() -> None:
    progress = Progress()

    assert (progress.partnership, progress.condition, progress.refusals) == (None, None, None)
    assert (progress.collections, progress.dropped, progress.changes) == ((), (), ())
    assert not progress.attention


def test_a_new_collection_was_never_primed() -> None:
    collection = Collection(CollectionId("5"), CollectionClass.EMAIL)

    assert (collection.sync_key, collection.newest, collection.drain) == (NO_SYNC_KEY, None, None)


def test_a_new_mailbox_watches_its_mails_and_agreed_on_nothing() -> None:
    assert Memory().classes == {CollectionClass.EMAIL}
    assert Memory().partnership == Partnership(None, None, NO_SYNC_KEY, informed=False)
