"""The audit of egress logs, for `relay audit verify`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, Self

from relay.push.egress.keeping import KEY_FILE, Anchor, anchor_file, read_keys, read_removal, removal_file
from relay.push.egress.record import Fault, Seen, verify

SUFFIX: Final = ".jsonl"
"""How the names of an egress log's files end."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    seen: Seen
    faults: list[Fault]

    @classmethod
    def of_nothing(cls) -> Self:
        """Return what an audit of no file finds."""
        return cls(Seen(), [])

    @property
    def notes(self) -> list[str]:
        """What the auditor should know beside the faults."""
        seen = self.seen
        unkeyed = (
            f"{seen.unkeyed} lines have no key: a version before the key wrote them, and anyone who could write to the "
            "folder could have changed them and chained them again"
        )
        unverified = (
            f"{seen.unverified} lines are chained with a key that is not here: pass the file egress.key of the push "
            "role with --key to prove that none was changed"
        )
        pages = (
            f"notifications of the web app open {', '.join(sorted(seen.pages))}: each must be an address of "
            "webapp.origin or webapp.open_url, now or earlier"
        )
        noted = ((seen.unkeyed, unkeyed), (seen.unverified, unverified), (len(seen.pages), pages))
        return [text for count, text in noted if count]


def files_of(logs: Iterable[Path]) -> list[Path]:
    """Return the files of egress logs that are named, or in folders that are; raises OSError for a folder without."""
    files = []
    for log in logs:
        found = sorted(log.glob(f"*{SUFFIX}")) if log.is_dir() else [log]
        if not found:
            raise OSError(0, f"there is no file of an egress log in the folder {log}")
        files += found
    return files


def audit(
    files: Sequence[Path],
    key_file: Path | None = None,
    anchors: Path | None = None,
    *,
    pause: Callable[[], None] = lambda: None,
) -> Audit:
    """Check files of egress logs, each chain from its oldest file on.

    Keys and anchors are looked for in the folder above each log's, as the relay keeps them by default, or where the
    caller says. Without the anchor nobody can tell whether the end of a chain is whole. `pause` is called before each
    line. Raises OSError if a file cannot be read, KeyUnreadable for a file without keys.
    """
    seen = Seen()
    faults: list[Fault] = []
    for (folder, chain), paths in groupby(sorted(files), key=lambda path: (path.parent, path.name.rpartition("-")[0])):
        state = folder.absolute().parent
        key_path = state / KEY_FILE if key_file is None else key_file
        keys = {key.id: key for key in (read_keys(key_path) if key_file is not None or key_path.exists() else [])}
        anchor = removed = None
        try:
            path = anchor_file(state if anchors is None else anchors, chain)
            anchor = Anchor.read(path) or Anchor.read(folder / f"{chain}.head")
            removed = read_removal(removal_file(folder, chain), chain, keys) if keys else None
        except ValueError as error:
            faults.append(Fault(str(folder / chain), str(error)))
        head, keyed_from = (None, None) if anchor is None else (anchor.end, anchor.keyed_from)
        faults += verify(_lines(list(paths), pause), head, keys=keys, removed=removed, keyed_from=keyed_from, seen=seen)
    return Audit(seen, faults)


def _lines(paths: Sequence[Path], pause: Callable[[], None]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                pause()
                yield f"{path}:{number}", line.rstrip(b"\n")
