"""Own the document that tells what becomes of every status: written from rehearsals, never by hand."""

from collections.abc import Iterator
from itertools import groupby
from re import compile as pattern
from typing import Final

from eas_watcher import backoff
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.remedies import HOPELESS
from eas_watcher.machine.state import Pause
from eas_watcher.tools.statuses import cases
from eas_watcher.tools.statuses.rehearsal import ROUNDS, Case, Conduct, rehearse, span

INTRODUCTION: Final = f"""\
# What becomes of every answer

Written by `make docs` from the code itself: each answer was given to a watch up to {ROUNDS} times while the server
answered everything else well. Do not edit; `make test` fails when this file and the code differ.

* **at first**: what the watch does until the same command is sent again, or until it holds a Ping.
* **if it goes on**: how long it waits each time at last, and what it does then. A backoff is {span(backoff.FIRST)},
  doubled every time up to {span(backoff.CEILING)}, {backoff.SPREAD:.0%} more or less; other waits have up to 10% more.
* **operators see**: state and reason of the mailbox while it waits at last; the words are the detail.

After every wait comes a Sync with the stored keys, never a Ping. "From key 0" loses no mail: what arrived since the
newest mail seen is announced, the rest is not.

A mailbox that Autodiscover found is looked for once more, at most hourly, before what stands here: at once when its
server has it no longer (HTTP 404, 451 without a place, status 127 and 128), after a Provision for HTTP 403, after the
last try for 401, and after {HOPELESS} failures in a row when there is no answer or only that of a broken server.
"""

NUMBER: Final = pattern(r" \((HTTP|[A-Z][A-Za-z]+ status|policy status) [0-9]+\)$")  # at the end of a detail

TABLES: Final = (
    ("HTTP", "Unless another command is named, the answer to a Sync.", cases.http),
    ("Network", "", cases.network),
    ("Ping", "", cases.ping),
    ("Sync, of the whole request", "", cases.sync),
    ("Sync, of one folder", "The other folder's news are committed before anything else.", cases.sync_of_one),
    ("FolderSync", "", cases.folder_sync),
    ("Provision", "", cases.provision),
    ("Provision, of the policy", "", cases.policy),
    ("Settings", "", cases.settings),
    ("Common to all commands", "As the status of a Sync; other commands alike.", cases.common),
)


def write() -> str:
    """Write the whole document, Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    for title, remark, table in TABLES:
        yield f"## {title}"
        if remark:
            yield remark
            yield ""
        yield "| answer | in words | at first | if it goes on | operators see |"
        yield "| --- | --- | --- | --- | --- |"
        yield from _rows(table())
        yield ""


def _rows(table: dict[str, Case]) -> Iterator[str]:
    """Write one row for all answers in a row that differ in nothing but their number."""
    rows = [(name, *_cells(case)) for name, case in table.items()]
    for cells, alike in groupby(rows, key=lambda row: row[1:]):
        names = [name for name, *_ in alike]
        yield f"| {' | '.join((', '.join(names), *cells))} |"


def _cells(case: Case) -> tuple[str, ...]:
    conduct = rehearse(case)
    return NUMBER.sub("", conduct.meaning), ", ".join(conduct.remedy) or "go on", at_last(conduct), _shown(conduct)


def at_last(conduct: Conduct) -> str:
    """Tell how a rehearsal ended: the last wait, or that the watch ended, or that there was no need to wait."""
    if conduct.ended:
        waits = "".join(f"wait {_length(pause)}, " for pause in conduct.waits)
        return f"{waits}end until there is a new credential or registration"
    if not conduct.waits:
        return "never wait"
    return f"wait {_length(conduct.waits[-1])}, {', '.join(conduct.at_last)}"


def _length(pause: Pause) -> str:
    if pause.seconds is not None:
        return span(pause.seconds)
    return span(min(backoff.CEILING, backoff.FIRST * 2.0 ** (pause.failures - 1)))


def _shown(conduct: Conduct) -> str:
    condition = conduct.condition
    if condition is None:
        return f"`{WatchState.WATCHING}`"
    return f"`{condition.state}`, `{condition.reason}`"
