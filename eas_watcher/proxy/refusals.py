"""The pace at which a credential is shown to a proxy that refuses it.

A proxy may ask a directory that locks accounts, as Active Directory does, and every connection of every mailbox would
show the same wrong password. So one connection at a time shows a credential that the proxy has not accepted yet, and
within half an hour at most three of them may be refused. Once it was accepted, connections do not wait for one another:
should it be refused later, the breaker of what is behind the proxy has one of them probe.
"""

from collections.abc import Callable
from typing import Final

WAITS: Final = (60.0, 300.0, 1800.0)
"""Seconds until the credential is shown again after the first, second and third refusal within WINDOW."""
WINDOW: Final = 1800.0  # seconds in which directories count failed logins [Windows: lockout observation window]


class Refusals:
    """What one proxy said of one credential; moments are those of a clock that counts seconds."""

    __slots__ = ("_accepted", "_refused", "_trying", "_waiting")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._refused: list[float] = []
        self._accepted = False
        self._trying = False
        self._waiting: list[Callable[[], None]] = []

    def wait(self, now: float) -> float:
        """Return the seconds for which the credential is not shown; 0: it may be shown."""
        self._refused = [moment for moment in self._refused if now - moment < WINDOW]
        if not self._refused:
            return 0.0
        waits = WAITS[min(len(self._refused), len(WAITS)) - 1]
        return max(0.0, self._refused[-1] + waits - now)

    def begin(self) -> bool:
        """Return True if a connection may show the credential now; it must call `end`.

        False: another one is finding out whether the credential is good; `when_known` tells when it has.
        """
        if self._trying and not self._accepted:
            return False
        self._trying = True
        return True

    def when_known(self, call: Callable[[], None]) -> None:
        """Call once when the connection that tries the credential has ended."""
        self._waiting.append(call)

    def end(self, now: float, *, accepted: bool | None) -> None:
        """Note what became of a connection that showed the credential; None: the proxy did not judge it."""
        if accepted:
            self._accepted = True
            self._refused.clear()
        elif accepted is not None:
            self._accepted = False
            self._refused.append(now)
        self._trying = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
