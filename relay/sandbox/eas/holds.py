"""The Pings that the simulated EAS server holds: a timer and what to call at the end each, no task."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import TypeAlias

from eas_watcher.commands.ping import PingStatus
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.ping import PingAnswer, answer_ping, write_limit, write_ping
from relay.sandbox.eas.records import EasRecords
from relay.sandbox.eas.refusals import RefusedByStatus
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.workers import Workers

Ended: TypeAlias = Callable[[PingAnswer | RefusedByStatus | None], None]
"""Called with the answer of a Ping, or with None if the server closes."""


class HeldPing:
    """One held Ping."""

    __slots__ = ("device_id", "ended", "parameters", "session", "timer")

    def __init__(self, device_id: str, parameters: PingParameters, session: Session, ended: Ended) -> None:
        self.device_id = device_id
        self.parameters = parameters
        self.session = session
        self.ended: Ended | None = ended
        """None: the Ping is over."""
        self.timer: asyncio.TimerHandle | None = None


class HeldPings:
    """The held Pings, one per user and device."""

    __slots__ = ("_abandoned", "_count", "_held", "_records", "_workers", "forced")

    def __init__(self, records: EasRecords, workers: Workers) -> None:
        """Count overlaps in `records`; `workers` are those that Pings occupy."""
        self._workers = workers
        self._records = records
        self._held: defaultdict[str, dict[str, HeldPing]] = defaultdict(dict)
        self._count = 0
        self.forced: float | None = None
        """Seconds after which every Ping ends with status 1, whatever its heartbeat; None: at its heartbeat."""
        self._abandoned: dict[tuple[str, str], asyncio.TimerHandle] = {}
        """User and device -> the end of a Ping that occupies a worker although its client closed the connection."""

    @property
    def busy(self) -> int:
        """The number of Pings that occupy a worker, including those of clients that closed their connections."""
        return self._count + len(self._abandoned)

    def __len__(self) -> int:
        """Return the number of Pings held now."""
        return self._count

    def of(self, user: str) -> int:
        """Return the number of Pings held for one user."""
        return len(self._held.get(user, ()))

    def supersede(self, user: str, device_id: str, *, counted: bool = True) -> None:
        """End an older Ping of the device with status 1 [observed: Z-Push 2.7.1, 2026-11], and count the overlap.

        One that had queued until its client was gone is not `counted`: the client has sent its next Ping meanwhile.
        """
        self._end_abandoned((user, device_id))
        older = self._held.get(user, {}).get(device_id)
        if older is not None:
            if counted:
                self._records.overlaps[user] += 1
            self._end(older, write_ping(PingStatus.EXPIRED))

    def hold(self, device_id: str, parameters: PingParameters, session: Session, ended: Ended) -> HeldPing:
        """Hold a Ping until there is an answer, at the latest until its heartbeat ends; then call `ended` once.

        A forced hold ends it sooner, as Horde's setting `forcedheartbeat` does: with status 1, and no limit is named.
        """
        held = HeldPing(device_id, parameters, session, ended)
        self._held[session.mailbox.user][device_id] = held
        self._count += 1
        self._records.max_held = max(self._records.max_held, self._count)
        seconds = parameters.heartbeat if parameters.limit is None else parameters.limit
        seconds_held = seconds * session.rules.personality.overhold
        loop = asyncio.get_running_loop()
        if self.forced is not None and self.forced < seconds_held:
            held.timer = loop.call_later(self.forced, self._end, held, write_ping(PingStatus.EXPIRED))
        else:
            held.timer = loop.call_later(seconds_held, self._expire, held)
        return held

    def give_up(self, held: HeldPing) -> None:
        """Take note that the client of a Ping has gone; some servers do not, and its worker stays occupied."""
        if held.ended is None:
            return
        self._records.broken[held.session.mailbox.user] += 1
        if not held.session.rules.personality.notices_hang_up and held.timer is not None:
            loop = asyncio.get_running_loop()
            key = held.session.mailbox.user, held.device_id
            self._end_abandoned(key)
            self._workers.keep()
            remaining = max(0.0, held.timer.when() - loop.time())
            self._abandoned[key] = loop.call_later(remaining, self._end_abandoned, key)
        self._forget(held)

    def wake(self, user: str) -> None:
        """Check the held Pings of a user again, after a change."""
        for held in list(self._held.get(user, {}).values()):
            try:
                answer = answer_ping(held.parameters, held.session)
            except RefusedByStatus as refusal:
                self._end(held, refusal)
            else:
                if answer is not None:
                    self._end(held, answer)

    def restart(self) -> None:
        """End every Ping as a restart does: with an early status 1, or without an answer, by the personality."""

        def early_end(held: HeldPing) -> PingAnswer | None:
            return write_ping(PingStatus.EXPIRED) if held.session.rules.personality.restart_ends_pings else None

        self._end_all(early_end)

    def close(self) -> None:
        """End every Ping without an answer."""
        self._end_all(lambda _: None)

    def _end_all(self, answer: Callable[[HeldPing], PingAnswer | None]) -> None:
        for key in list(self._abandoned):
            self._end_abandoned(key)
        for held in [held for of_user in self._held.values() for held in of_user.values()]:
            self._end(held, answer(held))

    def _end(self, held: HeldPing, answer: PingAnswer | RefusedByStatus | None) -> None:
        ended = held.ended
        if ended is not None:
            self._forget(held)
            ended(answer)

    def _expire(self, held: HeldPing) -> None:
        """Answer status 1 at the end of the heartbeat, or status 5 at the end of `limit`."""
        limit = held.parameters.limit
        self._end(held, write_ping(PingStatus.EXPIRED) if limit is None else write_limit(limit))

    def _forget(self, held: HeldPing) -> None:
        """Count a Ping no more."""
        held.ended = None
        if held.timer is not None:
            held.timer.cancel()
        self._count -= 1
        user = held.session.mailbox.user
        of_user = self._held.get(user, {})
        if of_user.get(held.device_id) is held:
            del of_user[held.device_id]
        if not of_user:
            self._held.pop(user, None)

    def _end_abandoned(self, key: tuple[str, str]) -> None:
        timer = self._abandoned.pop(key, None)
        if timer is not None:
            timer.cancel()
            self._workers.release()
