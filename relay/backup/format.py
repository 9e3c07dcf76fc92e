"""The text of a backup: lines of JSON, of which objects say what the lists between them are.

    {"format":"push-relay backup","version":1,"relay":"0.2.0","schema":"0026","made_at":"...","database":"sqlite",...}
    {"table":"mailbox","key":["id"],"columns":[["id","text"],...]}
    ["mb-1",...]
    {"rows":1,"sha256":"..."}          of the lines of the table
    ...
    {"tables":19,"sha256":"..."}       of all lines before

What a value looks like is said by `Kind` in `relay/store/copying.py`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from relay.domain.errors import BackupInvalid
from relay.store.copying import Kind, Shape, Sum, load

FORMAT: Final = "push-relay backup"
VERSION: Final = 1
"""The version of the format; one that is not known is refused."""
CUT: Final = "ends too early: only a part of it is here"


@dataclass(frozen=True, slots=True)
class Header:
    """What a backup says of itself."""

    relay: str
    """The version of the relay that made it."""
    schema: str
    """The revision of the schema."""
    made_at: datetime
    database: str
    """`sqlite` or `postgresql`."""
    running: bool
    """Whether the relay ran meanwhile, or may have."""


class Writer:
    """Writes a backup, line by line."""

    def __init__(self, write: Callable[[bytes], object], header: Header) -> None:
        """Begin a backup; `write` takes its bytes."""
        self._write = write
        self._digest = hashlib.sha256()
        self._tables = 0
        self._note(
            {
                "format": FORMAT,
                "version": VERSION,
                "relay": header.relay,
                "schema": header.schema,
                "made_at": header.made_at.astimezone(UTC).isoformat(timespec="seconds"),
                "database": header.database,
                "running": header.running,
            }
        )

    def table(self, shape: Shape, lines: Iterable[bytes]) -> Sum:
        """Write a table with its rows; return their sum."""
        self._note({"table": shape.table, "key": shape.key, "columns": shape.columns})
        rows, digest = 0, hashlib.sha256()
        for line in lines:
            rows += 1
            digest.update(line)
            self._put(line)
        found = Sum(rows, digest.hexdigest())
        self._note({"rows": found.rows, "sha256": found.digest})
        self._tables += 1
        return found

    def end(self) -> None:
        """Write the last line, without which a backup is not whole."""
        self._note({"tables": self._tables, "sha256": self._digest.hexdigest()})

    def _note(self, held: Mapping[str, object]) -> None:
        self._put(json.dumps(held, separators=(",", ":")).encode() + b"\n")

    def _put(self, line: bytes) -> None:
        self._digest.update(line)
        self._write(line)


class Reader:
    """Reads a backup, line by line; raises BackupInvalid where it is not as it was written."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        """Read the header; `lines` end with their line feeds."""
        self._lines = lines
        self._digest = hashlib.sha256()
        self.header = self._header()
        self.sums: dict[str, Sum] = {}
        """What the tables that were read to their ends have, by name."""

    def tables(self) -> Iterator[tuple[Shape, Iterator[bytes]]]:
        """Yield each table with the lines of its rows, which must end before the next table is taken."""
        while True:
            before = self._digest.hexdigest()
            held = self._object(self._next())
            if "table" not in held:
                break
            shape = self._shape(held)
            yield shape, self._rows(shape.table)
        if held != {"tables": len(self.sums), "sha256": before}:
            raise BackupInvalid("changed since it was written: its checksum does not fit")
        if next(self._lines, None) is not None:
            raise BackupInvalid("changed since it was written: it goes on behind its end")

    def _rows(self, table: str) -> Iterator[bytes]:
        rows, digest = 0, hashlib.sha256()
        while (line := self._next()).startswith(b"["):
            rows += 1
            digest.update(line)
            yield line
        found = Sum(rows, digest.hexdigest())
        if self._object(line) != {"rows": found.rows, "sha256": found.digest}:
            raise BackupInvalid(f"changed since it was written: the checksum of the table {table} does not fit")
        self.sums[table] = found

    def _next(self) -> bytes:
        line = next(self._lines, None)
        if line is None:
            raise BackupInvalid(CUT)
        self._digest.update(line)
        return line

    def _object(self, line: bytes) -> dict[str, object]:
        try:
            held = load(line)
        except ValueError as error:
            raise BackupInvalid("changed since it was written: a line of it is no JSON") from error
        if not isinstance(held, dict):
            raise BackupInvalid("changed since it was written: a line of it is out of place")
        return held

    def _header(self) -> Header:
        try:
            held = load(self._next())
            if held["format"] != FORMAT:
                raise BackupInvalid("no backup of the relay")
            if held["version"] != VERSION:
                raise BackupInvalid(
                    "made by a newer relay, in a format that this version does not know: install that version"
                )
            made_at = datetime.fromisoformat(held["made_at"])
            relay, schema, database = (_word(held[name]) for name in ("relay", "schema", "database"))
            return Header(relay, schema, made_at, database, held["running"] is not False)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupInvalid("no backup of the relay") from error

    def _shape(self, held: Mapping[str, Any]) -> Shape:
        try:
            columns = tuple((_word(name), Kind(kind)) for name, kind in held["columns"])
            return Shape(_word(held["table"]), tuple(map(_word, held["key"])), columns)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupInvalid("changed since it was written: a table has columns that are not known") from error


def _word(held: object) -> str:
    """Return a text that messages may show, even of a file that somebody made up; raises TypeError, ValueError."""
    if not isinstance(held, str):
        raise TypeError("no text")
    if not held.isprintable():
        raise ValueError("control characters")
    return held
