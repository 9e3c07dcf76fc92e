"""The audit of egress logs, for `relay audit verify`."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from relay.push.egress.log import read_head
from relay.push.egress.record import Fault, verify


def audit(files: Sequence[Path]) -> tuple[int, list[Fault]]:
    """Check files of egress logs, each chain from its oldest file on; return the number of lines and all faults.

    The end of a chain is checked if its head file is in the same folder. Raises OSError if a file cannot be read.
    """
    count = 0
    faults: list[Fault] = []

    def lines(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
        nonlocal count
        for path in paths:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    count += 1
                    yield f"{path}:{number}", line.rstrip(b"\n")

    for (folder, chain), paths in groupby(sorted(files), key=lambda path: (path.parent, path.name.rpartition("-")[0])):
        try:
            head = read_head(folder, chain)
        except (KeyError, TypeError, ValueError):
            faults.append(Fault(str(folder / f"{chain}.head"), "is no head of an egress log"))
            head = None
        faults += verify(lines(list(paths)), head)
    return count, faults
