"""A KeyHolderStore in memory."""

from collections.abc import Sequence
from datetime import datetime

from relay.domain.errors import StoreUnavailable
from relay.domain.sealing_keys import KeyHolder


class MemoryKeyHolders:
    """Keeps holders until they leave."""

    def __init__(self, *holders: KeyHolder) -> None:
        self.known = {each.node: each for each in holders}
        self.away = False

    async def note(self, holder: KeyHolder, now: datetime) -> None:
        del now
        self._answer()
        self.known[holder.node] = holder

    async def leave(self, node: str) -> None:
        self._answer()
        self.known.pop(node, None)

    async def holders(self, now: datetime) -> Sequence[KeyHolder]:
        del now
        self._answer()
        return list(self.known.values())

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable
