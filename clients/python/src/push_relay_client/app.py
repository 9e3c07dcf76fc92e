"""One mailbox in one app on one phone, from the first start to the logout."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from push_relay_client.advice import Step, advise, advise_refusal, advise_test, wait
from push_relay_client.api import RelayApi
from push_relay_client.problem import Refused, Unreachable
from push_relay_client.push import Challenge, Push, read_push
from push_relay_client.registration import Identity, Registration
from push_relay_client.wish import Credential, Device, Wish

T = TypeVar("T")
ATTEMPTS = 5
"""How often a request is sent before the app gives up for now, and waits for its next start or its background job."""

PATIENCE = 30.0
"""Seconds that a call waits for its next try at most. If the relay asks for more, as for half an hour after passwords
that were refused, the answer goes to the app at once, which says so to the user."""

ENDED = (Step.NOT_REGISTERED, Step.REGISTER_AGAIN, Step.WIPE)
"""Steps after which id and secret are of no more use."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What an app keeps between its starts."""

    identity: Identity
    device: Device | None
    """The device as the relay last took it: a start sends nothing unless the system gave out another token.

    None: no request to register was answered yet.
    """


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
    retry_after: float | None = None
    """With REPEAT: seconds that the relay asks to wait before a later try."""


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

    # region register
    async def register(self, wish: Wish) -> Told:
        """Register, after the user gave a credential; again for the same mailbox at a new log-in.

        Id and secret are kept before the request leaves: if all answers are lost, the next call goes on with them.
        """
        kept = self._store.load()
        told = await self._put(
            kept or Kept(Identity.make(), None), wish, known=kept is not None and kept.device is not None
        )
        if kept is not None and told.step in (Step.NOT_REGISTERED, Step.REGISTER_AGAIN):
            told = await self._put(Kept(Identity.make(), None), wish, known=False)  # what was kept had ended
        return told

    async def _put(self, kept: Kept, wish: Wish, *, known: bool) -> Told:
        self._store.save(kept)
        told = await self._repeated(lambda: self._api.put(kept.identity, wish))
        if told.registration is not None:
            self._store.save(Kept(kept.identity, wish.device))
        elif told.step is not Step.REPEAT and not known:
            self._store.erase()  # the relay kept nothing
        return told

    # endregion

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
        told = await self._repeated(lambda: self._api.get(kept.identity))
        if told.registration is not None and told.registration.state == "proving" and told.step is Step.WAIT:
            await self._asked(self._api.challenge(kept.identity))  # the last challenge push may be lost
        return told

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

    # region received
    async def received(self, data: Mapping[str, Any]) -> Push | None:
        """Return what a push says; None: it is not for this registration, so show nothing.

        A challenge is answered here: until the relay has its nonce back, no other push comes.
        """
        push, kept = read_push(data), self._store.load()
        if push is None or kept is None or push.registration != kept.identity.id:
            return None
        if isinstance(push, Challenge):
            await self._repeated(lambda: self._api.prove(kept.identity, push.nonce))
        return push

    # endregion

    async def test_push(self, looks: int = 5) -> Told:
        """Send a test push and return what became of it, after so many looks at most.

        The request is not repeated: a lost answer may stand for a push that is on its way.
        """
        kept = self._store.load()
        if kept is None:
            return Told(Step.NOT_REGISTERED)
        test = await self._asked(self._api.test_push(kept.identity))
        for look in range(1, looks + 1):
            if isinstance(test, Told) or test.state != "queued":
                break
            await self._sleep(wait(look, None, self._chance()))
            test = await self._asked(self._api.test_result(kept.identity, test))
        return test if isinstance(test, Told) else Told(advise_test(test), detail=test.remedy or test.state)

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

    async def _asked(self, request: Awaitable[T]) -> T | Told:
        """Send a request once; return its answer, or what to do about its refusal."""
        try:
            return await request
        except Refused as refused:
            return self._refused(refused)
        except Unreachable as lost:
            return Told(Step.REPEAT, detail=str(lost))

    async def _repeated(self, request: Callable[[], Awaitable[Registration | None]]) -> Told:
        """Send a request that may be repeated, and say what to do about its answer."""
        attempt = 0
        while True:
            attempt += 1
            answer = await self._asked(request())
            if not isinstance(answer, Told):
                return Told(Step.NOTHING if answer is None else advise(answer), answer)
            if answer.step is not Step.REPEAT or attempt == ATTEMPTS or (answer.retry_after or 0) > PATIENCE:
                return answer
            await self._sleep(wait(attempt, answer.retry_after, self._chance()))

    def _refused(self, refused: Refused) -> Told:
        """Return what a refusal asks for; a registration that ended is forgotten."""
        step = advise_refusal(refused.problem)
        if step in ENDED:
            self._store.erase()
        return Told(step, detail=str(refused), retry_after=refused.problem.retry_after)
