"""A WatchStore of which a test implements only the methods that it needs."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from eas_watcher.names import MailboxId
from relay.domain.model import Candidate, CommitEntry, SealedMailbox, WatchRecord
from relay.domain.tries import Wait, Withdrawn


class NoWatches:
    """A WatchStore without methods; a test overrides those that its subject calls."""

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        raise NotImplementedError

    async def take_dirty(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        raise NotImplementedError

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        raise NotImplementedError

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        raise NotImplementedError

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        raise NotImplementedError

    async def accepted_beside(self, mailbox_id: MailboxId) -> datetime | None:
        raise NotImplementedError

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        raise NotImplementedError

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        raise NotImplementedError

    async def expire(self, candidate: Candidate) -> None:
        raise NotImplementedError

    async def spend(
        self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None
    ) -> Wait | Withdrawn | None:
        raise NotImplementedError

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        raise NotImplementedError

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> bool:
        raise NotImplementedError

    async def seals(self, mailbox_id: MailboxId) -> list[bytes]:
        raise NotImplementedError

    async def sealed_otherwise(
        self, shards: Collection[int], head: bytes, after: MailboxId | None, most: int
    ) -> list[SealedMailbox]:
        raise NotImplementedError

    async def count_sealed_otherwise(self, shards: Collection[int], head: bytes) -> int:
        raise NotImplementedError

    async def turn_over(
        self, seals: Mapping[MailboxId, Mapping[bytes, bytes]]
    ) -> Mapping[MailboxId, Mapping[bytes, bytes]]:
        raise NotImplementedError

    async def look_at_seals(self, shards: Collection[int], keys: Collection[bytes]) -> None:
        raise NotImplementedError

    async def sealed_anew(self, shards: Collection[int]) -> frozenset[int]:
        raise NotImplementedError

    async def seal_anew(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Collection[int]) -> None:
        raise NotImplementedError

    async def forget(self, mailbox_id: MailboxId) -> bool:
        raise NotImplementedError
