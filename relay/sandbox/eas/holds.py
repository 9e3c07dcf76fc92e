"""The Pings that the simulated EAS server holds: a future and a timer each, no task."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from eas_watcher.commands.ping import PingStatus
from eas_watcher.ports import Now
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.ping import PingAnswer, answer_ping, write_limit, write_ping
from relay.sandbox.eas.records import EasRecords
from relay.sandbox.eas.refusals import Refused
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.workers import Workers


@dataclass(frozen=True, slots=True, eq=False)
class HeldPing:
    """One held Ping; the result of its future is the answer, or None if the server closes."""

    parameters: PingParameters
    session: Session
    answer: "asyncio.Future[PingAnswer | None]"


class HeldPings:
    """The held Pings, one per user and device."""

    __slots__ = ("_abandoned", "_count", "_held", "_now", "_records", "_workers")

    def __init__(self, records: EasRecords, now: Now, workers: Workers) -> None:
        """Count overlaps in `records`; `now` is the time for filters by age, `workers` are those that Pings occupy."""
        self._workers = workers
        self._records = records
        self._now = now
        self._held: dict[str, dict[str, HeldPing]] = {}
        self._count = 0
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

    def supersede(self, user: str, device_id: str) -> None:
        """End an older Ping of the device with status 1 [observed: Z-Push 2.7.1, 2026-11], and count the overlap."""
        self._end_abandoned((user, device_id))
        older = self._held.get(user, {}).get(device_id)
        if older is not None and not older.answer.done():
            self._records.overlaps[user] += 1
            older.answer.set_result(write_ping(PingStatus.EXPIRED))

    async def hold(self, device_id: str, parameters: PingParameters, session: Session) -> PingAnswer | None:
        """Return the answer when there is one, at the latest after the heartbeat; None if the server closes."""
        loop = asyncio.get_running_loop()
        held = HeldPing(parameters, session, loop.create_future())
        of_user = self._held.setdefault(session.mailbox.user, {})
        of_user[device_id] = held
        self._count += 1
        self._records.max_held = max(self._records.max_held, self._count)
        seconds = parameters.heartbeat if parameters.limit is None else parameters.limit
        timer = loop.call_later(seconds * session.rules.personality.overhold, _expire, held)
        try:
            return await held.answer
        except asyncio.CancelledError:
            if not session.rules.personality.notices_hang_up:
                key = session.mailbox.user, device_id
                self._end_abandoned(key)
                remaining = max(0.0, timer.when() - loop.time())
                self._workers.keep()
                self._abandoned[key] = loop.call_later(remaining, self._end_abandoned, key)
            raise
        finally:
            timer.cancel()
            self._count -= 1
            if of_user.get(device_id) is held:
                del of_user[device_id]
            if not of_user and self._held.get(session.mailbox.user) is of_user:
                del self._held[session.mailbox.user]

    def wake(self, user: str) -> None:
        """Check the held Pings of a user again, after a change."""
        for held in self._held.get(user, {}).values():
            if held.answer.done():
                continue
            try:
                answer = answer_ping(held.parameters, replace(held.session, now=self._now()))
            except Refused as refusal:
                held.answer.set_exception(refusal)
            else:
                if answer is not None:
                    held.answer.set_result(answer)

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
        for of_user in self._held.values():
            for held in of_user.values():
                if not held.answer.done():
                    held.answer.set_result(answer(held))

    def _end_abandoned(self, key: tuple[str, str]) -> None:
        timer = self._abandoned.pop(key, None)
        if timer is not None:
            timer.cancel()
            self._workers.release()


def _expire(held: HeldPing) -> None:
    """Answer status 1 at the end of the heartbeat, or status 5 at the end of `limit`."""
    if not held.answer.done():
        limit = held.parameters.limit
        held.answer.set_result(write_ping(PingStatus.EXPIRED) if limit is None else write_limit(limit))
