"""One object for what many watches have in common, so that a held Ping costs little memory.

Thousands of watches differ in their keys and ids. Their heartbeats, policies, classes and notes are a few values, which
each watch would otherwise keep as objects of its own: a set of one class takes 216 bytes.
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.memory import Collection, Partnership
from eas_watcher.machine.state import Policy, Watch
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId
from eas_watcher.values import replace

MOST: Final = 1024  # values of one kind that are known; with more, they are hardly what watches have in common
SHARES: Final = 1000  # jitters that differ: 0.6 s apart for a heartbeat of ten minutes

H = TypeVar("H", bound=Hashable)


class Common(Generic[H]):
    """The values of one kind that came lately; of one type, because equal values of two types are not alike."""

    __slots__ = ("_ids", "_known")

    def __init__(self) -> None:
        """Know no value."""
        self._known: dict[H, H] = {}
        self._ids: set[int] = set()
        """The `id` of each: to hash a frozen dataclass takes many times as long."""

    def one(self, value: H) -> H:
        """Return the first of the equal values that came."""
        if id(value) in self._ids:
            return value  # as nearly always
        known = self._known.get(value)
        if known is not None:
            return known
        if len(self._known) >= MOST:
            self._known.clear()
            self._ids.clear()
        self._known[value] = value
        self._ids.add(id(value))
        return value


class Sharing:
    """What the watches of a process have in common."""

    __slots__ = ("_classes", "_collections", "_due", "_heartbeats", "_ids", "_numbers", "_policies", "_texts", "_urls")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._collections = Common[Collection]()
        self._due = Common[frozenset[CollectionId]]()
        self._classes = Common[frozenset[CollectionClass]]()
        self._heartbeats = Common[Heartbeat]()
        self._ids = Common[CollectionId]()
        self._numbers = Common[float]()
        self._policies = Common[Policy]()
        self._texts = Common[str]()
        self._urls = Common[str]()

    def policy(self, policy: Policy, heartbeat: Heartbeat) -> Policy:
        """Return a policy with another heartbeat."""
        if heartbeat == policy.heartbeat:
            return policy
        return self._policies.one(replace(policy, heartbeat=self._heartbeats.one(heartbeat)))

    def jitter(self, share: float) -> float:
        """Return a share that is rounded."""
        return self.seconds(round(share * SHARES) / SHARES)

    def seconds(self, number: float) -> float:
        """Return a number of seconds."""
        return self._numbers.one(number)

    def classes(self, classes: frozenset[CollectionClass]) -> frozenset[CollectionClass]:
        """Return what registrations ask for."""
        return self._classes.one(classes)

    def rest(self, watch: Watch) -> Watch:
        """Return an equal watch, as it is kept while its Ping is held."""
        return replace(
            watch,
            classes=self._classes.one(watch.classes),
            subfolders=self._classes.one(watch.subfolders),
            partnership=self._partnership(watch.partnership),
            collections=tuple([self._collection(c) for c in watch.collections]),
            heartbeat=self._heartbeats.one(watch.heartbeat),
            unsynced=self._due.one(watch.unsynced),
            unconfirmed=self._due.one(watch.unconfirmed),
            parked=self._due.one(watch.parked),
            capacity=self._texts.one(watch.capacity),
            hierarchy_fault=self._texts.one(watch.hierarchy_fault),
            shown_detail=self._texts.one(watch.shown_detail),
        )

    def _partnership(self, partnership: Partnership) -> Partnership:
        url = partnership.url
        return partnership if url is None else replace(partnership, url=self._urls.one(url))

    def _collection(self, collection: Collection) -> Collection:
        if collection.newest is None and collection.sync_key == NO_SYNC_KEY:
            return self._collections.one(collection)  # it was never primed, so it is alike in many watches
        id_ = self._ids.one(collection.id)
        return collection if id_ is collection.id else replace(collection, id=id_)
