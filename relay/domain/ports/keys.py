"""What processes tell one another about the sealing keys that they have."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from relay.domain.sealing_keys import KeyHolder


class KeyHolderStore(Protocol):
    """Which processes have which sealing keys."""

    async def note(self, holder: KeyHolder, now: datetime) -> None:
        """Note what a process has, now."""

    async def leave(self, node: str) -> None:
        """Forget a process that ends."""

    async def holders(self, now: datetime) -> Sequence[KeyHolder]:
        """Return the processes that run.

        Those that hold mailboxes and have noted nothing, e.g. of an older version, open no key.
        """
