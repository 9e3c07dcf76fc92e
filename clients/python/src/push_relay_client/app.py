"""One mailbox in one app on one phone, from the first start to the logout."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from push_relay_client.advice import Step, advise, advise_refusal, wait
from push_relay_client.api import RelayApi
from push_relay_client.problem import Refused, Unreachable
from push_relay_client.push import Push, read_push
from push_relay_client.registration import Identity, Registration
from push_relay_client.wish import Credential, Device, Wish

ATTEMPTS = 5
"""How often a request is sent before the app gives up for now, and waits for its next start or its background job."""

ENDED = (Step.NOT_REGISTERED, Step.REGISTER_AGAIN, Step.WIPE)
"""Steps after which id and secret are of no more use."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What an app keeps between its starts."""

    identity: Identity
    device: Device
    """The device as the relay last took it: a start sends nothing unless the system gave out another token."""


class Store(Protocol):
    """Where an app keeps what it must not lose and must not show.

    On a phone: the Keychain, this device only, or a file that the Keystore encrypts, in no backup. A registration
    that a backup carries to another phone is two phones with one secret.
    """

    def load(self) -> Kept | None:
        """Return what was saved."""

    def save(self, kept: Kept) -> None:
        """Keep it, in place of what was saved before, before this returns."""

    def erase(self) -> None:
        """Forget it."""


class MemoryStore:
    """A store for tests and trials: it forgets when the program ends."""

    def __init__(self) -> None:
        """Set up empty."""
        self._kept: Kept | None = None

    def load(self) -> Kept | None:
        """Return what was saved."""
        return self._kept

    def save(self, kept: Kept) -> None:
        """Keep it."""
        self._kept = kept

    def erase(self) -> None:
        """Forget it."""
        self._kept = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the app does next, and the registration if the relay showed it."""

    step: Step
    registration: Registration | None = None
    detail: str = ""
    """For logs and an administrator, in English."""


class App:
    """Drives a registration: call it at the events of the app, and do what it returns."""

    def __init__(
        self,
        api: RelayApi,
        store: Store,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Set up with the relay and a store; `sleep` and `chance` (0 to 1) are for tests."""
        self._api = api
        self._store = store
        self._sleep = sleep
        self._chance = chance

    @property
    def identity(self) -> Identity | None:
        """Id and secret, if the app is registered."""
        kept = self._store.load()
        return None if kept is None else kept.identity

    async def register(self, wish: Wish) -> Told:
        """Register, after the user gave a credential."""
        try:
            registration, identity = await self._api.post(wish)
        except Refused as refused:
            return self._refused(refused)
        except Unreachable as lost:
            return Told(Step.REPEAT, detail=str(lost))
        self._store.save(Kept(identity, wish.device))
        return Told(advise(registration), registration)

    # region opened
    async def opened(self, device: Device) -> Told:
        """Look at the registration: at each start, when the app comes to the foreground, after `attention`.

        `device` is what the system gives the app now; a changed token is sent first.
        """
        kept = self._store.load()
        if kept is None:
            return Told(Step.NOT_REGISTERED)
        if device != kept.device:
            return await self.token_changed(device)
        return await self._repeated(lambda: self._api.get(kept.identity))

    # endregion

    async def token_changed(self, device: Device) -> Told:
        """Send the device as the system gives it now; a registration in state `token-gone` becomes active again."""
        kept = self._store.load()
        if kept is None:
            return Told(Step.NOT_REGISTERED)
        told = await self._repeated(lambda: self._api.patch(kept.identity, device=device))
        if told.registration is not None:
            self._store.save(Kept(kept.identity, device))
        return told

    async def credential_changed(self, credential: Credential) -> Told:
        """Send the credential that the user just typed. It is tried once: a refused one is never repeated."""
        kept = self._store.load()
        if kept is None:
            return Told(Step.NOT_REGISTERED)
        return await self._repeated(lambda: self._api.patch(kept.identity, credential=credential))

    async def received(self, data: Mapping[str, Any]) -> Push | None:
        """Return what a push says; None: it is not for this registration, so show nothing."""
        push, kept = read_push(data), self._store.load()
        if push is None or kept is None or push.registration != kept.identity.id:
            return None
        return push

    async def test_push(self) -> Told:
        """Ask for a test push. It is not repeated: a lost answer may stand for a push that is on its way."""
        kept = self._store.load()
        if kept is None:
            return Told(Step.NOT_REGISTERED)
        try:
            await self._api.test_push(kept.identity)
        except Refused as refused:
            return self._refused(refused)
        except Unreachable as lost:
            return Told(Step.REPEAT, detail=str(lost))
        return Told(Step.NOTHING)

    async def logout(self) -> Told:
        """Remove the registration. Without an answer it is kept, so that the next start can try again."""
        kept = self._store.load()
        if kept is None:
            return Told(Step.NOTHING)
        told = await self._repeated(lambda: self._api.delete(kept.identity))
        if told.step in (Step.NOTHING, *ENDED):
            self._store.erase()
            return Told(Step.NOTHING)
        return told

    async def _repeated(self, request: Callable[[], Awaitable[Registration | None]]) -> Told:
        """Send a request that may be repeated, and say what to do about its answer."""
        attempt = 0
        while True:
            attempt += 1
            try:
                registration = await request()
                return Told(Step.NOTHING if registration is None else advise(registration), registration)
            except Refused as refused:
                told, retry_after = self._refused(refused), refused.problem.retry_after
            except Unreachable as lost:
                told, retry_after = Told(Step.REPEAT, detail=str(lost)), None
            if told.step is not Step.REPEAT or attempt == ATTEMPTS:
                return told
            await self._sleep(wait(attempt, retry_after, self._chance()))

    def _refused(self, refused: Refused) -> Told:
        """Return what a refusal asks for; a registration that ended is forgotten."""
        step = advise_refusal(refused.problem)
        if step in ENDED:
            self._store.erase()
        return Told(step, detail=str(refused))
