"""Where the CPU time of a process goes: samples of py-spy (from PyPI, on the PATH), added up by subject.

A sample counts for the innermost function on its stack that belongs to a subject; what a library does counts for the
subject that called it. py-spy takes samples of the thread that has the interpreter's lock, so waits do not count, for
the disk neither, nor does what SQLite does without the lock. It slows the process: figures of the same run are worth
nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

RATE: Final = 500  # samples per second

SUBJECTS: Final = (
    ("relay/store/", "database"),
    ("sqlalchemy/", "database"),
    ("aiosqlite/", "database"),
    ("sqlite3/", "database"),
    ("relay/push/egress/", "egress_log"),
    ("relay/push/apns/", "apns"),
    ("aioapns/", "apns"),
    ("relay/push/", "dispatcher"),
    ("relay/watch/", "committer"),
    ("eas_watcher/transport/", "http_and_tls"),
    ("aiohttp/", "http_and_tls"),
    ("eas_watcher/", "watch"),
)
"""Parts of file names, the first that fits counts, and their subjects."""
REST: Final = "rest"
"""The event loop, with the TLS and the system calls that it makes itself, timers, and what serves operators."""


async def shares(pid: int, seconds: float, file: Path) -> Counter[str]:
    """Return the samples of each subject while the process runs for so many seconds; keep the stacks in `file`."""
    options = ["--rate", str(RATE), "--format", "raw", "--duration", str(max(1, round(seconds)))]
    command = ["py-spy", "record", "--pid", str(pid), *options, "--output", str(file), "--gil", "--nonblocking"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise SystemExit("py-spy failed; has it the right to trace another process?")
    return by_subject(await asyncio.to_thread(_lines, file))


def by_subject(stacks: Iterable[str]) -> Counter[str]:
    """Return the samples of each subject; each line is a stack, outermost first, and its number of samples."""
    found: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        found[_subject(stack.split(";"))] += int(count)
    return found


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _subject(stack: list[str]) -> str:
    for frame in reversed(stack):
        if "eas_watcher/http2/" in frame:
            continue  # the engine of HTTP/2 counts for its caller: APNs, or a mail server
        for part, subject in SUBJECTS:
            if part in frame:
                return subject
    return REST
