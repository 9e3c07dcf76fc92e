"""The OAuth grants in use by this process: one holder of tokens for each, whose rotations are sealed and stored."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Final
from weakref import WeakValueDictionary

from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.names import MailboxId
from eas_watcher.transport.tokens import TokenEndpoint, Tokens
from relay.domain.errors import SealBroken
from relay.domain.model import Mailbox
from relay.domain.ports.watch import WatchStore
from relay.security.credentials import alike
from relay.security.sealing import SealingPrivateKey
from relay.watch.committer import until_durable

log = logging.getLogger(__name__)

FAREWELL: Final = 5.0  # seconds that running renewals have to end when the process stops

Resealed = Callable[[MailboxId, bytes, bytes], None]
"""Called with the mailbox, the seal before, and the seal now, after a credential was sealed again."""


class _Keep:
    """Stores each rotation of one grant in place of the one before."""

    __slots__ = ("_grants", "mailbox", "sealed")

    def __init__(self, grants: "Grants", mailbox: Mailbox, sealed: bytes) -> None:
        self._grants = grants
        self.mailbox = mailbox
        self.sealed = sealed

    async def __call__(self, credential: OAuthCredential) -> None:
        self.sealed = await self._grants.keep(self.mailbox, self.sealed, credential)


class GrantTokens(Tokens):
    """The access token of one grant, and the present seal of its credential."""

    def __init__(self, credential: OAuthCredential, endpoint: TokenEndpoint, kept: _Keep, random: Random) -> None:
        """Ask `endpoint` for tokens of the grant; `kept` stores its rotations."""
        super().__init__(credential, endpoint, kept, random)
        self.kept = kept


class Grants:
    """The tokens of each grant, shared by the watch of a mailbox and its credential checks.

    Two holders of one grant would use one refresh token twice, and servers withdraw the whole grant for that.
    """

    def __init__(self, key: SealingPrivateKey, store: WatchStore, random: Random) -> None:
        """Seal rotated credentials with the keys `key` and keep them in `store`."""
        self.key = key
        """The keys in use; those of a later configuration take their place."""
        self._store = store
        self._random = random
        self._tokens: WeakValueDictionary[tuple[MailboxId, str, str], GrantTokens] = WeakValueDictionary()
        self._listeners: list[Resealed] = []

    def listen(self, resealed: Resealed) -> None:
        """Call `resealed` for each credential that is sealed again."""
        self._listeners.append(resealed)

    def tokens(self, mailbox: Mailbox, sealed: bytes, credential: OAuthCredential, endpoint: TokenEndpoint) -> Tokens:
        """Return the one holder of a grant's tokens, which lives as long as it is in use or renews.

        If `endpoint` is another one than before, since settings have changed, the holder asks that one from now on.
        """
        name = _name(mailbox.id, credential)
        tokens = self._tokens.get(name)
        if tokens is None:
            tokens = GrantTokens(credential, endpoint, _Keep(self, mailbox, sealed), self._random)
            self._tokens[name] = tokens
        elif tokens.endpoint is not endpoint:
            tokens.endpoint = endpoint
            tokens.expire()
        return tokens

    def newest(self, mailbox: MailboxId, credential: OAuthCredential) -> bytes | None:
        """Return the newest seal of a grant in use; None if it is not in use."""
        tokens = self._tokens.get(_name(mailbox, credential))
        return None if tokens is None else tokens.kept.sealed

    def renew(self, mailbox: MailboxId, credential: OAuthCredential) -> None:
        """Have the next request of a grant in use get a new access token first."""
        tokens = self._tokens.get(_name(mailbox, credential))
        if tokens is not None:
            tokens.expire()

    async def settle(self) -> None:
        """Wait for the renewals that run now, before the connections are closed that they use."""
        if running := {task for tokens in self._tokens.values() if (task := tokens.renewing) is not None}:
            await asyncio.wait(running)

    async def stop(self) -> None:
        """Wait a moment for running renewals: a refresh token that was issued and not stored locks the user out."""
        running = {task for tokens in self._tokens.values() if (task := tokens.renewing) is not None}
        if running:
            _, late = await asyncio.wait(running, timeout=FAREWELL)
            for task in late:
                task.cancel()

    async def keep(self, mailbox: Mailbox, sealed: bytes, credential: OAuthCredential) -> bytes:
        """Seal a rotated credential and store it in place of the old seal; return the new seal once it is durable."""
        fresh = self.key.seal_again(mailbox, credential, sealed)

        def warn() -> None:
            log.warning("rotated credential not kept: the database is away", extra={"mailbox": mailbox.id})

        await until_durable(lambda: self._replace(mailbox, sealed, fresh, credential), self._random, warn)
        for listener in self._listeners:
            listener(mailbox.id, sealed, fresh)
        return fresh

    async def _replace(self, mailbox: Mailbox, sealed: bytes, fresh: bytes, credential: OAuthCredential) -> None:
        """Store a rotated grant in place of its seal, which may have been sealed for another key since it was read."""
        while not await self._store.reseal(mailbox.id, sealed, fresh):
            seals = await self._store.seals(mailbox.id)
            same = [seal for seal in seals if seal != fresh and self._is_grant(mailbox, seal, credential)]
            if not same:
                return  # a newer credential took its place
            sealed = same[0]

    def _is_grant(self, mailbox: Mailbox, sealed: bytes, grant: OAuthCredential) -> bool:
        try:
            return alike(self.key.open(mailbox, sealed), grant)
        except SealBroken:
            return False

    def resealed(self, seals: Mapping[MailboxId, Mapping[bytes, bytes]]) -> None:
        """Note that credentials were sealed for another key, before -> after by mailbox."""
        for tokens in list(self._tokens.values()):
            kept = tokens.kept
            kept.sealed = seals.get(kept.mailbox.id, {}).get(kept.sealed, kept.sealed)


def _name(mailbox: MailboxId, credential: OAuthCredential) -> tuple[MailboxId, str, str]:
    return mailbox, credential.client_id, credential.grant
