"""Where the CPU time of a process goes: samples of py-spy (from PyPI, on the PATH), added up by subject.

A sample counts for the innermost function on its stack that belongs to a subject; what a library does counts for the
subject that called it. py-spy takes samples of threads that run, so waits do not count.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

RATE: Final = 250  # samples per second

SUBJECTS: Final = (
    ("relay/store/", "the database: statements, transactions, rows"),
    ("sqlalchemy/", "the database: statements, transactions, rows"),
    ("aiosqlite/", "the database: statements, transactions, rows"),
    ("relay/push/egress/", "the egress log"),
    ("relay/push/apns/", "APNs"),
    ("aioapns/", "APNs"),
    ("relay/push/", "the dispatcher"),
    ("relay/watch/", "the committer, leases, mailboxes"),
    ("eas_watcher/transport/", "HTTP and TLS to the mail server"),
    ("aiohttp/", "HTTP and TLS to the mail server"),
    ("eas_watcher/", "the watch: commands, WBXML, machine, runner"),
)
REST: Final = "the rest: the loop, the start of callbacks, logging"


async def shares(pid: int, seconds: float, file: Path) -> Counter[str]:
    """Return the samples of each subject while the process runs for so many seconds; keep the stacks in `file`."""
    options = ["--rate", str(RATE), "--format", "raw", "--duration", str(max(1, round(seconds)))]
    command = ["py-spy", "record", "--pid", str(pid), *options, "--output", str(file), "--nonblocking"]
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
        for part, subject in SUBJECTS:
            if part in frame:
                return subject
    return REST
