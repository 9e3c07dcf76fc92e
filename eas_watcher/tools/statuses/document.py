"""The document of all statuses: what the relay does after each, written from rehearsals, never by hand."""

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
# What the relay does after every answer

`make docs` writes this page from the code: each answer was given to a watch up to {ROUNDS} times while the server
answered everything else well. Do not edit it; `make test` fails when this page and the code differ.

* **at first**: what the watch does until it sends the same command again, or until it holds a Ping.
* **if it goes on**: how long the last of its waits is, and what it does after that. A backoff is {span(backoff.FIRST)},
  doubled every time up to {span(backoff.CEILING)}, {backoff.SPREAD:.0%} more or less; other waits are up to 10% longer.
* **operators see**: state and reason of the mailbox during the last wait; the column **in words** is the detail.

After every wait the watch sends a Sync with the stored keys, never a Ping. "From key 0" loses no mail: mail that
arrived after the newest mail seen is announced, older mail is not.

For a mailbox that Autodiscover found, the relay asks Autodiscover again, at most hourly, before it does what this page
says: at once when the server no longer has the mailbox (HTTP 404, 451 without a URL, statuses 127 and 128), after a
Provision for HTTP 403, after the last try for 401, and after {HOPELESS} failures in a row without an answer or with a
server error.
"""

NUMBER: Final = pattern(r" \((HTTP|[A-Z][A-Za-z]+ status|policy status) [0-9]+\)$")  # at the end of a detail

TABLES: Final = (
    ("HTTP", "Unless another command is named, the answer to a Sync.", cases.http),
    ("Network", "", cases.network),
    ("Ping", "", cases.ping),
    ("Sync, of the whole request", "", cases.sync),
    ("Sync, of one folder", "The new items of the other folder are committed first.", cases.sync_of_one),
    ("FolderSync", "", cases.folder_sync),
    ("Provision", "", cases.provision),
    ("Provision, of the policy", "", cases.policy),
    ("Settings", "", cases.settings),
    ("Common to all commands", "As the status of a Sync; the same holds for other commands.", cases.common),
)


def write() -> str:
    """Return the whole document in Markdown."""
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
    """Yield one row for each group of neighbouring answers that differ in their number only."""
    rows = [(name, *_cells(case)) for name, case in table.items()]
    for cells, alike in groupby(rows, key=lambda row: row[1:]):
        names = [name for name, *_ in alike]
        yield f"| {' | '.join((', '.join(names), *cells))} |"


def _cells(case: Case) -> tuple[str, ...]:
    conduct = rehearse(case)
    return NUMBER.sub("", conduct.meaning), ", ".join(conduct.remedy) or "go on", at_last(conduct), _shown(conduct)


def at_last(conduct: Conduct) -> str:
    """Return how a rehearsal ended: the last wait, the end of the watch, or no wait at all."""
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
