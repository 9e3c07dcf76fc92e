"""A stand-in for the search for mailboxes that moved."""

from dataclasses import dataclass, field

from eas_watcher.errors import EasError
from eas_watcher.runtime.account import Account


@dataclass
class Seeker:
    """Gives one answer, and notes whether the credential was to be shown."""

    answer: str | EasError
    shown: list[bool] = field(default_factory=list)

    async def seek(self, _: Account, *, show: bool) -> str:
        self.shown.append(show)
        if isinstance(self.answer, EasError):
            raise self.answer
        return self.answer
