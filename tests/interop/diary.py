"""The reports of watches: a journal in memory, one diary per mailbox, and a wait for an entry."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

from eas_watcher.machine.memory import Change, Collection, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.names import CollectionClass, CollectionId, MailboxId
from tests.waiting import SOON

PATIENCE = SOON  # seconds; two polls of SOGo, and a backoff or two


class Diary:
    """All commits of one watch."""

    def __init__(self) -> None:
        self.commits: list[Progress] = []
        self.pings = 0
        self._news = asyncio.Event()

    @property
    def changes(self) -> list[Change]:
        """All changes, in order."""
        return [change for progress in self.commits for change in progress.changes]

    @property
    def condition(self) -> Condition | None:
        """The last condition that the watch reported."""
        told = [progress.condition for progress in self.commits if progress.condition is not None]
        return told[-1] if told else None

    @property
    def watching(self) -> bool:
        """True if the watch reports no trouble."""
        return self.condition is not None and self.condition.state is WatchState.WATCHING

    def memory(
        self, classes: frozenset[CollectionClass], subfolders: frozenset[CollectionClass] = frozenset()
    ) -> Memory:
        """Return the stored memory with which a watch would start now."""
        partnership, refusals, hierarchy = Partnership(), 0, None
        collections: dict[CollectionId, Collection] = {}
        for progress in self.commits:
            partnership = progress.partnership or partnership
            refusals = refusals if progress.refusals is None else progress.refusals
            hierarchy = hierarchy if progress.hierarchy is None else progress.hierarchy or None
            for gone in progress.dropped:
                collections.pop(gone, None)
            collections |= {collection.id: collection for collection in progress.collections}
        return Memory(
            partnership,
            tuple(collections.values()),
            classes,
            refusals=refusals,
            subfolders=subfolders,
            hierarchy=hierarchy,
        )

    def write(self, progress: Progress) -> None:
        self.commits.append(progress)
        self._wake()

    def count_ping(self) -> None:
        self.pings += 1
        self._wake()

    async def until(self, holds: Callable[["Diary"], bool], seconds: float = PATIENCE) -> None:
        """Return once a condition holds; raises AssertionError with the last entries if that takes too long."""
        try:
            async with asyncio.timeout(seconds):
                while not holds(self):
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.pings} Pings, {self.condition}, {self.changes} after {seconds} s") from None

    async def until_next_ping(self, after: int) -> None:
        """Return once a Ping is held that came after the first `after` ones: all earlier answers are handled then."""
        await self.until(lambda diary: diary.pings > after)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Diaries:
    """The journal of all watches of a test."""

    def __init__(self) -> None:
        self._diaries: defaultdict[MailboxId, Diary] = defaultdict(Diary)

    def __getitem__(self, mailbox: MailboxId) -> Diary:
        return self._diaries[mailbox]

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        self._diaries[mailbox].write(progress)

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        self._diaries[mailbox].count_ping()
