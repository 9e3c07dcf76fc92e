"""Own the Pings that the simulated EAS server holds: a future and a timer each, and no task of their own."""

import asyncio
from dataclasses import dataclass, replace

from eas_watcher.commands.ping import PingStatus
from eas_watcher.ports import Now
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.ping import PingAnswer, judge_ping, write_limit, write_ping
from relay.sandbox.eas.records import EasRecords
from relay.sandbox.eas.refusals import Refused
from relay.sandbox.eas.rules import Session


@dataclass(frozen=True, slots=True, eq=False)
class HeldPing:
    """Hold one Ping; its future takes the answer, or None when the server closes."""

    parameters: PingParameters
    session: Session
    answer: "asyncio.Future[PingAnswer | None]"


class HeldPings:
    """Hold Pings by user and device, one each."""

    __slots__ = ("_count", "_held", "_left", "_now", "_records")

    def __init__(self, records: EasRecords, now: Now) -> None:
        """Take where overlaps are counted, and the clock that ages items."""
        self._records = records
        self._now = now
        self._held: dict[str, dict[str, HeldPing]] = {}
        self._count = 0
        self._left: dict[tuple[str, str], asyncio.TimerHandle] = {}
        """By user and device, the Pings that go on although their clients hung up, each with its end."""

    @property
    def busy(self) -> int:
        """Count the Pings that take a worker, whether anybody still waits for them or not."""
        return self._count + len(self._left)

    def __len__(self) -> int:
        """Count the Pings held now."""
        return self._count

    def of(self, user: str) -> int:
        """Count the Pings held for one user."""
        return len(self._held.get(user, ()))

    def supersede(self, user: str, device_id: str) -> None:
        """End an older Ping of the device, as if it had expired [observed: Z-Push 2.7.1, 2026-11], and count that."""
        self._free((user, device_id))
        older = self._held.get(user, {}).get(device_id)
        if older is not None and not older.answer.done():
            self._records.overlaps[user] += 1
            older.answer.set_result(write_ping(PingStatus.EXPIRED))

    async def hold(self, device_id: str, parameters: PingParameters, session: Session) -> PingAnswer | None:
        """Return the answer once there is one, at the latest after the heartbeat; None when the server closes."""
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
                self._free(key)
                self._left[key] = loop.call_later(max(0.0, timer.when() - loop.time()), self._free, key)
            raise
        finally:
            timer.cancel()
            self._count -= 1
            if of_user.get(device_id) is held:
                del of_user[device_id]
            if not of_user and self._held.get(session.mailbox.user) is of_user:
                del self._held[session.mailbox.user]

    def wake(self, user: str) -> None:
        """Judge a user's Pings anew, for something changed."""
        for held in self._held.get(user, {}).values():
            if held.answer.done():
                continue
            try:
                answer = judge_ping(held.parameters, replace(held.session, now=self._now()))
            except Refused as refusal:
                held.answer.set_exception(refusal)
            else:
                if answer is not None:
                    held.answer.set_result(answer)

    def restart(self) -> None:
        """End every Ping as a server does that starts anew: with an early status 1, or with no answer."""
        for key in list(self._left):
            self._free(key)
        for of_user in self._held.values():
            for held in of_user.values():
                if not held.answer.done():
                    early = held.session.rules.personality.restart_ends_pings
                    held.answer.set_result(write_ping(PingStatus.EXPIRED) if early else None)

    def close(self) -> None:
        """End every Ping without an answer."""
        for key in list(self._left):
            self._free(key)
        for of_user in self._held.values():
            for held in of_user.values():
                if not held.answer.done():
                    held.answer.set_result(None)

    def _free(self, key: tuple[str, str]) -> None:
        """End a Ping that nobody waits for."""
        left = self._left.pop(key, None)
        if left is not None:
            left.cancel()


def _expire(held: HeldPing) -> None:
    """End a hold: it ran to its end, or to a limit of which the client is told only now."""
    if not held.answer.done():
        limit = held.parameters.limit
        held.answer.set_result(write_ping(PingStatus.EXPIRED) if limit is None else write_limit(limit))
