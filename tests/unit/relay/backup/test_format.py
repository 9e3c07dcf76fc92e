from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.backup.format import Header, Reader, Writer
from relay.domain.errors import BackupInvalid
from relay.store.copying import Kind, Shape

HEADER: Final = Header("0.2.0", "0026", datetime(2026, 11, 24, 8, 30, tzinfo=UTC), "sqlite", running=True)
ANNS: Final = Shape("mailbox", ("id",), (("id", Kind.TEXT), ("since", Kind.MOMENT)))
PHONES: Final = Shape("registration", ("id",), (("id", Kind.TEXT), ("secret_hash", Kind.BYTES)))
ROWS: Final = {ANNS: [b'["ann","x"]\n', b'["ben","y"]\n'], PHONES: []}


def written(tables: dict[Shape, list[bytes]]) -> bytes:
    file = BytesIO()
    writer = Writer(file.write, HEADER)
    for shape, rows in tables.items():
        assert writer.table(shape, rows).rows == len(rows)
    writer.end()
    return file.getvalue()


def lines_of(text: bytes) -> Iterator[bytes]:
    return iter(text.splitlines(keepends=True))


def read(text: bytes) -> tuple[Header, dict[Shape, list[bytes]]]:
    reader = Reader(lines_of(text))
    return reader.header, {shape: list(rows) for shape, rows in reader.tables()}


def test_what_was_written_is_read() -> None:
    assert read(written(ROWS)) == (HEADER, ROWS)
    assert read(written({})) == (HEADER, {})


def test_the_sums_of_what_was_read_are_known() -> None:
    reader = Reader(lines_of(written(ROWS)))
    for _, rows in reader.tables():
        assert list(rows) is not None

    assert {table: each.rows for table, each in reader.sums.items()} == {"mailbox": 2, "registration": 0}


@given(st.integers(min_value=0, max_value=len(written(ROWS)) - 1))
def test_a_backup_that_was_cut_anywhere_is_refused(end: int) -> None:
    if written(ROWS)[end:] == b"\n":
        return  # files.py refuses a line without its end
    with pytest.raises(BackupInvalid):
        read(written(ROWS)[:end])


@given(st.integers(min_value=0, max_value=len(written(ROWS)) - 2), st.integers(min_value=1, max_value=255))
def test_a_backup_with_another_byte_anywhere_is_refused(place: int, change: int) -> None:
    text = bytearray(written(ROWS))
    text[place] ^= change
    with pytest.raises(BackupInvalid):
        read(bytes(text))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"table":"mailbox","key":["id"],"columns":[["id","colour"]]}\n', "columns that are not known"),
        (b'{"table":"mailbox","columns":[]}\n', "columns that are not known"),
        (b'{"table":"mailbox","key":["id"],"columns":[["id"]]}\n', "columns that are not known"),
        (b"[]\n", "a line of it is out of place"),
        (b"mailbox\n", "a line of it is no JSON"),
    ],
)
def test_a_line_out_of_place_is_refused(line: bytes, says: str) -> None:
    head = next(lines_of(written({})))

    with pytest.raises(BackupInvalid, match=says):
        read(head + line)


@pytest.mark.parametrize(
    "head",
    [b"{}\n", b"[]\n", b"7\n", b"PGDMP\n", b'{"format":"tar"}\n', b'{"format":"push-relay backup","version":1}\n'],
)
def test_another_file_is_no_backup(head: bytes) -> None:
    with pytest.raises(BackupInvalid, match="no backup of the relay"):
        Reader(lines_of(head))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"format"', b"[" * 100_000 + b'{"format"'),
        (b'["ann","x"]', b"[" * 100_000),
        (b'{"rows":0', b'{"rows":' + b"[" * 100_000),
        (b'"relay":"0.2.0"', b'"relay":["0.2.0"]'),
        (b'"relay":"0.2.0"', rb'"relay":"\u001b[31mroot"'),
        (b'"table":"registration"', rb'"table":"\u001b[2J"'),
    ],
)
def test_a_file_that_somebody_made_up_is_refused_and_its_control_characters_are_not_shown(
    before: bytes, after: bytes
) -> None:
    made_up = written(ROWS).replace(before, after, 1)
    assert made_up != written(ROWS)

    with pytest.raises(BackupInvalid) as refused:
        read(made_up)

    assert str(refused.value).isprintable()
