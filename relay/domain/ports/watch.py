"""What the watch role needs from the store."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from eas_watcher.names import MailboxId
from eas_watcher.server.idle_timeout import Lesson
from relay.domain.model import Candidate, CommitEntry, SealedMailbox, WatchRecord
from relay.domain.tries import Wait, Withdrawn


class WatchStore(Protocol):
    """The memory of watches, and their progress."""

    async def records(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        """Read all mailboxes of those shards that still have the epoch given, and clear their dirty flags.

        Counts a try on every collection's key, since the process before may have lost an answer.
        """

    async def take_dirty(self, leases: Mapping[int, int], now: datetime) -> list[WatchRecord]:
        """Read the dirty mailboxes of those shards that still have the epoch given, and clear their flags."""

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        """Read one mailbox as it is now, whether dirty or not."""

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        """Commit progress of many mailboxes in one transaction; return those whose lease is no longer ours.

        Changes become marks of the mailbox's active registrations that asked for the class, and for its sub-folders if
        the change is in one. A mark that exists adds up the count, raises its generation, keeps `first_at`, and waits
        for its retry if it has one. `attention` sets that mark for all of them.
        A condition sets state, reason, detail, `since` (only when state or reason differ) and `next_try_at`
        (now + retry_in). WIPED also destroys the sealed credential, the candidates, the collections, the hierarchy
        and every mark. All registrations become `wiped`; those that were active get one `attention` mark.
        Fenced entries change nothing; the others are committed.
        """

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        """Note when each mailbox's last Ping began and its heartbeat in seconds."""

    async def accepted_beside(self, mailbox_id: MailboxId) -> datetime | None:
        """Return when the mail server of a mailbox accepted another one last, which any process watches; None: never.

        A Ping begins only after an answer that accepted the credential, so this is the newest beginning of a Ping that
        was noted of a watched mailbox at the same server and URL.
        """

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        """Make an accepted candidate the mailbox's credential, its registration active, the mailbox dirty.

        `replaces`: the server takes the credential before no longer, so the mailbox's other registrations came with a
        secret that is void: they become `verifying`, and get no push until they show the new credential.

        `succeeded`: the tries of the mailbox's user are forgotten, as by the method of this name.

        `url` is where Autodiscover found the mailbox; None leaves the known URL.
        The mailbox's refusals start from 0; its state becomes `starting` if it
        was `verifying`, `credential-refused` or `wiped`: a wipe leaves no candidate, so this one came after it. A
        registration that is new for a wiped account becomes `wiped` instead, unless an administrator has allowed it.
        Does nothing when the candidate was replaced meanwhile.
        """

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        """Drop a refused candidate.

        A registration that was never active becomes `credential-refused`, and a mailbox without any credential too.
        """

    async def expire(self, candidate: Candidate) -> None:
        """Drop a candidate that could not be checked in time; its app must send the credential again."""

    async def spend(
        self, mailbox_id: MailboxId, now: datetime, candidate: Candidate | None = None
    ) -> Wait | Withdrawn | None:
        """Count a try of a mailbox's account, before a candidate of it is shown to the server.

        Returns Withdrawn for a candidate that is not to be shown any more; then nothing was counted.

        Without a candidate: before the mailbox's own credential is shown again after the server refused it; the first
        refusal, which nobody could foresee, is counted with the commit that records it. Returns how long the try must
        wait if none is left; then nothing was counted. The account is that of the mailbox's row.
        """

    async def succeeded(self, mailbox_id: MailboxId) -> None:
        """Forget the tries of a mailbox's user: the server accepted a credential that was shown, so it forgets them."""

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> bool:
        """Replace one sealed credential by another where the mailbox has it: as its credential, or as a candidate.

        Returns False if the mailbox has it no more.

        For a credential that changed without its user, e.g. a rotated refresh token. If `before` is gone, a newer
        credential replaced it, which stays. Marks nothing dirty.
        """

    async def sealed_anew(self, shards: Collection[int]) -> frozenset[int]:
        """Return those of some shards from which no seals of the old form are taken any more."""

    async def seal_anew(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]], shards: Collection[int]) -> None:
        """Replace many seals as `reseal` does, before -> after.

        Note for good that no seals of the old form are taken from `shards`.
        """

    async def seals(self, mailbox_id: MailboxId) -> list[bytes]:
        """Return every seal of a mailbox: of its credential, and of its candidates."""

    async def sealed_otherwise(
        self, shards: Collection[int], head: bytes, after: MailboxId | None, most: int
    ) -> list[SealedMailbox]:
        """Return mailboxes of some shards with seals that do not begin with `head`, in the order of their ids.

        At most so many, and those behind `after`; of each only these seals.
        """

    async def count_sealed_otherwise(self, shards: Collection[int], head: bytes) -> int:
        """Return how many seals of some shards do not begin with `head`."""

    async def turn_over(
        self, seals: Mapping[MailboxId, Mapping[bytes, bytes]]
    ) -> Mapping[MailboxId, Mapping[bytes, bytes]]:
        """Replace many seals as `reseal` does, before -> after; return those that were still there.

        A mailbox whose candidate has a new seal is dirty: a process that has read it before looks again.
        """

    async def look_at_seals(self, shards: Collection[int], keys: Collection[bytes]) -> None:
        """Mark mailboxes of some shards dirty that are blocked since a seal did not open, or wait with a candidate.

        For keys that were added: of candidates those are meant whose seals name one of them.
        """

    async def forget(self, mailbox_id: MailboxId) -> bool:
        """Delete a mailbox that no registration names any more; return whether it is gone."""


class IdleTimeoutStore(Protocol):
    """What the relay learnt of the paths to mail servers."""

    async def lessons(self, since: datetime) -> Mapping[str, Lesson]:
        """Return the lessons since a moment, by URL."""

    async def keep_lesson(self, url: str, lesson: Lesson, now: datetime) -> None:
        """Keep a lesson, which replaces the one before."""
