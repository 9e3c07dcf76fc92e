"""Rows of the database that this process cannot read: which, why, and since when the log has them.

A newer version of the relay, another program or a damaged disk may have written them.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

NO_FAULTS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be read."""

    table: str
    key: str
    """Its primary key; of several columns, joined by slashes."""
    fault: str
    """The column and what is wrong with it, without what is secret."""


class UnreadableRows:
    """The rows that the last looks could not read.

    A look reads all rows of one table that belong to an owner: a mailbox, a registration, or the row itself.
    Threads may look at the same time.
    """

    def __init__(self) -> None:
        """Start without rows."""
        self._faults: Mapping[tuple[str, str], Mapping[str, str]] = {}
        """Replaced, never changed, so that it can be read while a thread looks."""
        self._change = threading.Lock()

    def looked(self, table: str, owner: str, faults: Mapping[str, str] = NO_FAULTS) -> None:
        """Note the end of a look: what is wrong with the owner's unreadable rows in a table, by their keys.

        A row is logged when it is met first, when its fault changes, and when it is readable again or gone.
        """
        before = self._faults.get((table, owner), NO_FAULTS)
        if not faults and not before:
            return
        for key, fault in faults.items():
            if before.get(key) != fault:
                log.error("row set aside", extra={"table": table, "row": key, "reason": fault})
        for key in before.keys() - faults.keys():
            log.info("row taken up again", extra={"table": table, "row": key})
        with self._change:
            others = {key: known for key, known in self._faults.items() if key != (table, owner)}
            self._faults = {**others, (table, owner): dict(faults)} if faults else others

    def owners(self, table: str) -> list[str]:
        """Return the owners of the rows of a table that are set aside, in order."""
        return sorted(owner for name, owner in self._faults if name == table)

    def of(self, owner: str) -> list[Unreadable]:
        """Return the rows of an owner that are set aside, in the order of table and key."""
        return self._sorted(owner)

    def rows(self) -> list[Unreadable]:
        """Return all rows that are set aside, in the order of table and key."""
        return self._sorted(None)

    def _sorted(self, owner: str | None) -> list[Unreadable]:
        found = [
            Unreadable(table, key, fault)
            for (table, belongs_to), faults in self._faults.items()
            if owner in {None, belongs_to}
            for key, fault in faults.items()
        ]
        return sorted(found, key=lambda row: (row.table, row.key))
