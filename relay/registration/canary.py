"""Registers the canary's mailbox with the relay's own device, as an app registers: through the same use case.

A password that the mail server refused is not shown again before its file was written again.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from relay.domain.canary import APP, NOT_REGISTERED, CanaryMailbox, Shown, may_show
from relay.domain.clock import Clock
from relay.domain.errors import RelayError, StoreUnavailable
from relay.domain.model import Platform, RegistrationState, RegistrationView
from relay.domain.ports.canary import CanaryRegistration, CanaryRegistrations, CanaryShown
from relay.domain.ports.registration import RegistrationStore
from relay.domain.receipts import Receipt
from relay.registration.errors import CredentialRefused, TooManyRefusals
from relay.registration.registrations import Registrations
from relay.registration.requests import BasicLogin, Device, RegistrationRequest

log = logging.getLogger(__name__)

LOOK: Final = 30.0
"""Seconds between two looks whether the mailbox is registered."""
PAUSE: Final = timedelta(seconds=60)
"""Between two tries of all processes to register."""


class CanaryRegistrar:
    """Keeps the canary's mailbox registered."""

    def __init__(
        self,
        canaries: CanaryRegistrations,
        store: RegistrationStore,
        service: Registrations,
        mailbox: CanaryMailbox,
        make_device: Callable[[], tuple[bytes, str]],
        clock: Clock,
    ) -> None:
        """Register through `service`, whose rules know the app and the service of the relay's own device.

        `make_device` returns the key of a new device, and its device token.
        """
        self.mailbox = mailbox
        """What holds from the next look on."""
        self._canaries = canaries
        self._store = store
        self._service = service
        self._make_device = make_device
        self._clock = clock

    async def run(self) -> None:
        """Look after the registration until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable:
                log.debug("canary not looked after: the database is away")
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Register the mailbox if it is not, and if its password may be shown; raises StoreUnavailable."""
        mailbox, now = self.mailbox, self._clock()
        if mailbox.password is None or mailbox.written_at is None:
            return
        known = await self._canaries.registration()
        view = None if known.id is None else await self._store.view(known.id)
        if view is not None and mailbox.owns(view) and not _ended(view):
            return
        refused_at = _refused_at(known, view)
        if not may_show(mailbox.written_at, refused_at, now) or not await self._canaries.may_try(now, PAUSE):
            return
        await self._register(mailbox, mailbox.password, known)

    async def _register(self, mailbox: CanaryMailbox, password: str, known: CanaryRegistration) -> None:
        key, token = self._make_device()
        device = Device(Platform.WEBPUSH, APP, token)
        request = RegistrationRequest(mailbox.user, BasicLogin(password, mailbox.user), device, mailbox.server)
        try:
            made = await self._service.register(request)
        except CredentialRefused:
            log.warning("canary not registered: the mail server refused user or password")
            await self._canaries.refused("credential-refused", self._clock())
        except TooManyRefusals:
            await self._canaries.refused("too-many-refusals", None)
        except StoreUnavailable:
            raise
        except RelayError as error:
            log.warning("canary not registered", extra={"reason": type(error).__name__})
            await self._canaries.refused(NOT_REGISTERED, None)
        else:
            await self._canaries.registered(made.view.registration.id, key)
            log.info("canary registered", extra={"registration": made.view.registration.id})
            if known.id is not None:
                await self._store.remove(known.id, self._clock())


class CanaryReceipts:
    """Notes what phones of the canary's mailbox have shown."""

    def __init__(self, store: CanaryShown, mailbox: CanaryMailbox | None) -> None:
        """Note for a mailbox; None: there is no canary."""
        self.mailbox = mailbox
        """What holds for the next receipt."""
        self._store = store

    async def take(self, view: RegistrationView, receipt: Receipt) -> None:
        """Note a receipt if it is one of the canary's mailbox; raises StoreUnavailable."""
        if self.mailbox is not None and self.mailbox.owns(view):
            shown = Shown(receipt.push.noticed_at, receipt.shown_at)
            await self._store.shown(view.registration.platform, shown)


def _ended(view: RegistrationView) -> bool:
    """Return True if a registration gets no push before the password is shown again."""
    refused = view.mailbox.state is WatchState.CREDENTIAL_REFUSED
    return refused or view.registration.state not in {RegistrationState.ACTIVE, RegistrationState.VERIFYING}


def _refused_at(known: CanaryRegistration, view: RegistrationView | None) -> datetime | None:
    """Return when the password was refused last: to the use case, or to the watch later."""
    moments = [known.refused_at]
    if view is not None and view.mailbox.state is WatchState.CREDENTIAL_REFUSED:
        moments.append(view.mailbox.since)
    return max((moment for moment in moments if moment is not None), default=None)
