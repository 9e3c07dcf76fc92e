"""Shadow mode: which pushes leave, and what is held back for good.

An operator who migrates has the relay watch all mailboxes and push nothing, and later push for one app or mail server
after the other. The decision is made for each push when it would leave.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from relay.domain.model import DuePush, Mark
from relay.domain.reasons import Cause

ASKED: Final = frozenset({Mark.TEST, Mark.CHALLENGE})
"""Marks of pushes that an app asks for. They leave in shadow mode, too: without a challenge no registration becomes
active, and a test push shows before the change of mode that the way to the provider is open."""
SLACK: Final = timedelta(seconds=10)
"""A mark that grew so shortly before a change of mode counts as set after it: its moment is noted before its commit,
maybe by another host. A push that another product sends too is better than none."""
FORMER: Final = 32
"""Changes of mode that a process remembers."""


@dataclass(frozen=True, slots=True)
class PushMode:
    """Which pushes leave: all, or in shadow mode those of some apps and mail servers only."""

    shadow: bool = False
    live_apps: frozenset[str] = frozenset()
    live_servers: frozenset[str] = frozenset()

    def holds_back(self, app: str, server: str | None) -> bool:
        """Return True if a push for an app and a mailbox on this server must not leave; None: any other server."""
        return self.shadow and app not in self.live_apps and server not in self.live_servers

    @property
    def words(self) -> str:
        """What it means, for operators; empty if all pushes leave."""
        if not self.shadow:
            return ""
        named = (("apps", self.live_apps), ("mail servers", self.live_servers))
        live = [f"{what} {', '.join(sorted(names))}" for what, names in named if names]
        but = f" but for {' and '.join(live)}" if live else ""
        return f"shadow: no push of new items leaves{but}; the timeline has what would have left"


class Shadow:
    """The mode of a process, and those that it had before: what was set in shadow mode does not leave later."""

    def __init__(self, mode: PushMode) -> None:
        self.mode = mode
        self._former: list[tuple[datetime, PushMode]] = []
        """Earlier modes with the moment at which each ended."""

    def follow(self, mode: PushMode, now: datetime) -> None:
        """Go over to another mode."""
        if mode != self.mode:
            self._former = [*self._former, (now, self.mode)][-FORMER:]
            self.mode = mode

    @property
    def off(self) -> bool:
        """True if no mode held a push back since the start."""
        return not self.mode.shadow and not self._former

    def needs_server(self, push: DuePush) -> bool:
        """Return True if the mail server decides whether a push leaves."""
        strict = [mode for mode in self._modes(push) if mode.holds_back(push.app, None)]
        return bool(strict) and all(mode.live_servers for mode in strict)

    def holds_back(self, push: DuePush, server: str | None = None) -> bool:
        """Return True if a mode holds a push back that was in force at any time since its mark last grew."""
        return any(mode.holds_back(push.app, server) for mode in self._modes(push))

    def _modes(self, push: DuePush) -> list[PushMode]:
        if push.mark in ASKED or push.cause is Cause.WIPED:
            return []  # after a wipe the app must remove its data
        return [self.mode, *[mode for ended_at, mode in self._former if push.last_at < ended_at - SLACK]]
