"""What the roles need from the store for the canary."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from relay.domain.canary import Reading, Shown, Turn
from relay.domain.model import Platform, RegistrationId


@dataclass(frozen=True, slots=True)
class CanaryRegistration:
    """How the canary's mailbox is registered."""

    id: RegistrationId | None = None
    """That of the relay's own device; None: it has none yet."""
    refused_at: datetime | None = None
    """When the mail server refused the password; None: it did not."""


class CanaryRegistrations(Protocol):
    """What the api role needs."""

    async def registration(self) -> CanaryRegistration:
        """Return how the canary's mailbox is registered."""

    async def may_try(self, now: datetime, pause: timedelta) -> bool:
        """Note that a process is about to register; return False if one did so within `pause`."""

    async def registered(self, registration_id: RegistrationId, device: bytes) -> None:
        """Note the registration of the relay's own device, with the key of the device."""

    async def refused(self, why: str, at: datetime | None) -> None:
        """Note why the mailbox is not registered, and when the mail server refused the password; None: it did not."""


class CanaryShown(Protocol):
    """What the api role, for phones, and the push role, for the relay's own device, need."""

    async def shown(self, platform: Platform, shown: Shown) -> None:
        """Note that a device of the canary's mailbox showed a push; the first word counts."""


class CanaryDevice(CanaryShown, Protocol):
    """What the push role needs."""

    async def device(self) -> tuple[RegistrationId, bytes] | None:
        """Return the registration of the relay's own device and its key; None: there is none."""


class CanaryMails(Protocol):
    """What the watch role needs."""

    async def claim(self, node: str, now: datetime, interval: timedelta) -> Turn:
        """Note that a process sends a mail now, if it is its turn.

        A mail is sent once in an interval, by the process that sent the one before; by another one after two intervals
        without any. What devices showed before is deleted.
        """

    async def mail_refused_at(self) -> datetime | None:
        """Return when the mail server refused the credential for sending; None: it did not."""

    async def mail_refused(self, at: datetime | None) -> None:
        """Note that the mail server refused the credential for sending; None: that it took it."""

    async def reading(self, server: str, user: str, keys: Collection[str], since: datetime) -> Reading:
        """Return how the mailbox of a user is, and what its devices showed of changes since a moment."""
