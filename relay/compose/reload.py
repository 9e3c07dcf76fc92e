"""The reload: a running process goes over to the configuration on disk, whole or not at all.

Each part of a process registers a taker. A taker first prepares all that can fail, for settings that are good by
themselves, and returns what puts them in use. So a fault found by the last taker leaves the process as it was.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from relay.compose.prepare import prepare
from relay.compose.running import Running, Take
from relay.domain.errors import SettingsInvalid
from relay.ops.configuration import Configuration
from relay.process import log as process_log
from relay.process.file_watch import FileWatch, Stamp, stamps
from relay.settings import Settings
from relay.settings.changes import Changes, compare

log = logging.getLogger(__name__)

PERIOD: Final = 10.0
"""Seconds between two looks at the files: a renewed certificate need not be in use sooner."""
SETTLE: Final = 1.0
"""Seconds in which changed files must not change again, since a key may follow its certificate."""
Load: TypeAlias = Callable[[], Settings]
"""Reads the settings again, in a thread; raises SettingsInvalid."""
Announce: TypeAlias = Callable[[], None]


class Reloader:
    """Reads the configuration again when its files have changed, or when it is asked to."""

    def __init__(
        self,
        running: Running,
        path: Path,
        load: Load,
        *,
        begins: Announce,
        ends: Announce,
        period: float = PERIOD,
        settle: float = SETTLE,
    ) -> None:
        """Reload what `running` runs with; `path` is the relay.toml that `load` reads.

        `begins` and `ends` are called around each reload.
        """
        self._running = running
        self._path = path
        self._load = load
        self._begins = begins
        self._ends = ends
        self._period = period
        self._settle = settle
        self._started = self._present = running.settings.origin
        self._asked = asyncio.Event()
        self._files = FileWatch(stamps(self._paths(running.settings)))

    def ask(self) -> None:
        """Reload soon, whether files have changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Look at the files from time to time, and reload, until cancelled."""
        while True:
            asked = await self._wait(self._settle if self._files.unsettled else self._period)
            found = await asyncio.to_thread(self._look)
            # What is missing or wrong may be corrected in a file that was never read.
            if self._files.look(found) or asked:
                self._begins()
                try:
                    await self.reload()
                finally:
                    self._ends()
            elif self._running.configuration.faults and not self._files.unsettled:
                await self.reload()

    async def reload(self) -> None:
        """Go over to the configuration on disk, or say what is wrong with it and stay."""
        before = await asyncio.to_thread(self._look)
        try:
            settings = await asyncio.to_thread(self._read)
            changes = compare(self._started, self._present, settings.origin)
            takes = [await taker(settings, changes) for taker in self._running.takers] if changes.live else []
        except SettingsInvalid as error:
            self._files.read(before)
            self._refuse(self._running.configuration, error.faults)
            return
        for take in takes:
            if take is not None:
                await take()
        paths = self._paths(settings)
        found: Mapping[Path, Stamp] = await asyncio.to_thread(stamps, paths - before.keys())
        self._files.read({**found, **{path: before[path] for path in paths & before.keys()}})
        self._present = settings.origin
        self._running.settings = settings
        self._note(changes, settings)

    def _read(self) -> Settings:
        settings = self._load()
        prepare(settings, running=True)
        return settings

    def _look(self) -> Mapping[Path, Stamp]:
        """Return the stamps of the files that were read, and of others that would be read now."""
        patterns = self._running.settings.origin.patterns
        return stamps({*self._files.paths, *(path for folder, name in patterns for path in folder.glob(name))})

    def _paths(self, settings: Settings) -> set[Path]:
        return {self._path, *(path for contents in settings.origin.contents.values() for path in contents)}

    def _refuse(self, state: Configuration, faults: list[tuple[str, str, str]]) -> None:
        if list(state.faults) == faults:
            return
        since = state.taken_at.isoformat(timespec="seconds")
        for key, wrong, remedy in faults:
            fields = {"key": key, "wrong": wrong, "remedy": remedy}
            log.error("configuration on disk is faulty", extra=fields | {"runs_with_that_of": since})
        state.refused(faults)

    def _note(self, changes: Changes, settings: Settings) -> None:
        state = self._running.configuration
        mended, before = bool(state.faults), tuple(state.waiting)
        state.taken(self._running.now(), changes.fixed, changed=bool(changes.live))
        if changes.live:
            log.info("configuration reloaded", extra={"changed": list(changes.live)})
            for key, wrong, remedy in settings.warnings:
                log.warning("setting noted", extra={"key": key, "wrong": wrong, "remedy": remedy})
        elif mended:
            log.info("configuration on disk is good again", extra={"changed": []})
        if changes.fixed and changes.fixed != before:
            log.warning("restart needed", extra={"settings": list(changes.fixed)})

    async def _wait(self, seconds: float) -> bool:
        """Wait for some seconds, or until a reload is asked for; return True if it is."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True


async def take_log(settings: Settings, changes: Changes) -> Take | None:
    """Return what makes the log as [log] says."""
    if not changes.touch("log"):
        return None

    async def take() -> None:
        process_log.configure(settings.log.level, settings.log.format, sys.stderr)

    return take
