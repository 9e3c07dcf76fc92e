"""Wake-ups between roles: events within a process, LISTEN/NOTIFY between processes."""

import asyncio
import logging
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any, Final
from weakref import WeakSet

from eas_watcher import backoff
from relay.domain.ports.wakeups import Topic
from relay.store.engine import connect_arguments
from relay.store.postgresql import SEARCH_PATH
from relay.store.sessions import DRIVER_ERRORS, open_session

log = logging.getLogger(__name__)

CHANNEL: Final = "push_relay"
ALIVE: Final = 30.0  # seconds between two checks whether the listening connection still answers
ANSWER: Final = 10.0  # seconds it may take to do so


class LocalWaiter:
    """Waits for one topic; one task at a time."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        self._woken.set()

    @property
    def woken(self) -> bool:
        """True if the next wait returns at once."""
        return self._woken.is_set()

    async def wait(self, timeout_s: float) -> None:
        """Return when the topic was woken since the last return, or after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


class LocalWakeups:
    """The wake-ups of one process; a waiter that is referred to nowhere else is forgotten."""

    def __init__(self) -> None:
        self._waiters: dict[Topic, WeakSet[LocalWaiter]] = defaultdict(WeakSet)

    def wake(self, topic: Topic) -> None:
        """Wake the waiters of this process."""
        for waiter in self._waiters[topic]:
            waiter.wake()

    def waiter(self, topic: Topic) -> LocalWaiter:
        """Start to wait for one topic."""
        waiter = LocalWaiter()
        self._waiters[topic].add(waiter)
        return waiter


class PostgresWakeups:
    """Wakes waiters of this process at once, and those of all others through PostgreSQL while `run` runs."""

    def __init__(self, url: str, random: Random, ca_file: Path | None = None) -> None:
        """Connect to a database like the engine, by its URL and a file of CAs.

        The connection is a separate one, since a pool's connections cannot listen.
        """
        self._arguments = connect_arguments(url, ca_file)
        self._random = random
        self._local = LocalWakeups()
        self._unsent: set[Topic] = set()
        self._wanted = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while wake-ups of other processes arrive."""

    def wake(self, topic: Topic) -> None:
        """Wake the waiters of this process now and those of others soon; many calls may become one notification."""
        self._local.wake(topic)
        self._unsent.add(topic)
        self._wanted.set()

    def waiter(self, topic: Topic) -> LocalWaiter:
        """Start to wait for one topic."""
        return self._local.waiter(topic)

    async def run(self) -> None:
        """Listen and notify until cancelled, connecting again whenever the connection is lost."""
        failures = 0
        while True:
            try:
                connection = await open_session(self._arguments, {"search_path": SEARCH_PATH})
            except DRIVER_ERRORS as error:
                failures += 1
                if failures == 1:
                    log.warning("other processes are not heard: the database is away", extra={"detail": str(error)})
                await asyncio.sleep(backoff.delay(failures, self._random))
                continue
            failures = 0
            try:
                await self._serve(connection)
            except DRIVER_ERRORS as error:
                log.info("wake-up connection lost", extra={"detail": str(error)})
            finally:
                self.listening.clear()
                connection.terminate()
            await asyncio.sleep(backoff.delay(1, self._random))

    async def _serve(self, connection: Any) -> None:
        """Notify other processes until the connection is lost; raises what asyncpg raises."""
        connection.add_termination_listener(lambda _: self._wanted.set())
        await connection.add_listener(CHANNEL, self._heard)
        for topic in Topic:  # any may have been woken while there was no connection
            self._local.wake(topic)
        self.listening.set()
        self._wanted.set()
        while True:
            try:
                async with asyncio.timeout(ALIVE):
                    await self._wanted.wait()
            except TimeoutError:
                pass  # the empty notification below shows whether the connection is alive
            self._wanted.clear()
            await self._notify(connection)

    async def _notify(self, connection: Any) -> None:
        topics, self._unsent = self._unsent, set()
        try:
            query = "SELECT pg_catalog.pg_notify($1, topic) FROM pg_catalog.unnest($2::pg_catalog.text[]) AS topic"
            await connection.execute(query, CHANNEL, sorted(topics), timeout=ANSWER)
        except DRIVER_ERRORS:
            self._unsent |= topics
            raise

    def _heard(self, connection: Any, sender: int, _channel: str, payload: str) -> None:
        """Wake the waiters of this process for another one; its own wake-ups have woken them already."""
        if sender == connection.get_server_pid() or payload not in set(Topic):
            return
        self._local.wake(Topic(payload))
