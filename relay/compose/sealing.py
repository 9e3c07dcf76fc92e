"""Builds what all roles with sealing keys share: what they tell one another about them, and how they take others."""

from contextlib import AsyncExitStack

from relay.compose.running import Running, Take, required
from relay.domain.model import Role
from relay.security.key_presence import KeyPresence
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.store.key_holders import SqlKeyHolderStore


async def open_sealing(running: Running, stack: AsyncExitStack) -> None:
    """Open the sealing keys of a role that has some."""
    settings = running.settings
    store = SqlKeyHolderStore(running.database)
    present = required(settings.sealing.public)
    keys = KeyPresence(running.node, settings.role, store, running.now, _opens(settings), present)
    stack.push_async_callback(keys.leave)
    running.keys = keys
    running.jobs.append(("sealing keys", keys.run))

    async def prepare(found: Settings, changes: Changes) -> Take | None:
        if not changes.touch("sealing"):
            return None
        opens, seals = _opens(found), required(found.sealing.public)

        async def take() -> None:
            keys.change(opens, seals)

        return take

    running.takers.append(prepare)


def _opens(settings: Settings) -> frozenset[str]:
    """Return the ids of the keys that the process opens; none for the api role."""
    private = settings.sealing.private
    return frozenset() if private is None or settings.role is Role.API else private.names
