"""What the API needs from the store."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from relay.domain.model import (
    Ending,
    Mailbox,
    Mark,
    NewMailbox,
    PushTest,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationView,
    Tombstone,
)
from relay.domain.tries import Load


class RegistrationStore(Protocol):
    """Registrations, for the API; never returns a credential."""

    async def mailbox_of(self, server: str, user: str, keys: Collection[str] = ()) -> Mailbox | None:
        """Find a mailbox by its exact server name and user, else one that has any of some keys of the user."""

    async def load_of(self, server: str, account: str) -> Load:
        """Return the tries of an account that are spent, and how many candidates wait for theirs, in all spellings.

        `server` is where tries are counted, which may be a directory; the candidates of all servers count.
        """

    async def create(self, mailbox: NewMailbox, registration: Registration, sealed_candidate: bytes) -> None:
        """Insert the mailbox if its id is new, the registration and its candidate; mark the mailbox dirty.

        It replaces an earlier registration of the same app on the same device whose credential was never checked: an
        app that gets no answer registers again. Raises MailboxExists when (server, user) or the key of the user has
        another id already, RegistrationExists when the registration's id is taken, and MailboxFull when
        MOST_REGISTRATIONS of other devices are left after those whose check came to nothing are gone.
        """

    async def view(self, registration_id: RegistrationId) -> RegistrationView | None:
        """Read one registration with its mailbox."""

    async def look_at(
        self, ids: Collection[RegistrationId], seen: Collection[RegistrationId]
    ) -> Mapping[RegistrationId, RegistrationView | None]:
        """Read some registrations; None for one that was `seen` and whose candidate still waits.

        Those that are gone or cannot be read are not among them.
        """

    async def change(self, registration_id: RegistrationId, change: RegistrationChange, now: datetime) -> None:
        """Apply a change and mark the mailbox dirty.

        A new device token counts from `now` and makes a `token-gone` registration active again; a new sealed candidate
        replaces one that still waits. A wiped registration stays as it is. If the registration is active then, the
        mailbox's other ones of the same app on the same device are deleted.
        """

    async def remove(self, registration_id: RegistrationId, now: datetime) -> None:
        """Delete the registration, its marks and its candidate, and leave a tombstone; mark the mailbox dirty.

        A wiped registration stays as it is: its phone still hears of the wipe.
        """

    async def withdraw(self, registration_id: RegistrationId) -> None:
        """Delete a registration whose secret nobody was given, without a tombstone; mark the mailbox dirty."""

    async def tombstone(self, registration_id: RegistrationId) -> Tombstone | None:
        """Return what is left of a registration that ended; None: nothing, or it did not end."""

    async def saw(self, registration_id: RegistrationId, now: datetime) -> None:
        """Note that the app of a registration showed its secret."""

    async def may_test(self, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
        """Note a test push and return True, unless one was noted within `pause`."""

    async def sweep(self, now: datetime) -> Mapping[Ending, int]:
        """End what is kept no longer: registrations that are of no use for too long, and those of wiped mailboxes.

        Returns how many registrations ended, and how. Tombstones whose time is over go too. Mailboxes without any
        registration are marked dirty, so that the watch role forgets them.
        """

    async def mark(self, registration_id: RegistrationId, mark: Mark, now: datetime, test: str = "") -> None:
        """Set a dirty mark for a test push, and note the test under an id; one that waits is superseded."""

    async def prove(self, registration_id: RegistrationId, nonce: str, now: datetime) -> bool:
        """Make a proving registration active if the nonce is that of its challenge; return whether it is.

        A nonce is good once, and for an hour.
        """

    async def push_test(self, registration_id: RegistrationId, test: str) -> PushTest | None:
        """Read a test push of a registration; the last few of each are kept."""
