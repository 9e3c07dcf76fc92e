"""Test entries of the journal: as bytes, and as a reader of the socket sees them."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.process import journal


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        yield sock


def read(entry: bytes) -> dict[str, str]:
    """Return the fields of an entry, read as the journal does."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


def test_texts_stand_as_they_are_and_all_else_as_json() -> None:
    fields = {"MESSAGE": "a = b", "PRIORITY": 6, "relay_up": True, "relay_none": None, "relay_list": ["ü", 1]}

    assert journal.encode(fields) == (
        b'MESSAGE=a = b\nPRIORITY=6\nRELAY_UP=true\nRELAY_NONE=null\nRELAY_LIST=["\\u00fc", 1]\n'
    )


def test_a_value_with_line_feeds_has_its_length_before_it() -> None:
    entry = journal.encode({"MESSAGE": "x\nPRIORITY=0\n", "PRIORITY": 6})

    assert entry == b"MESSAGE\n\x0d\x00\x00\x00\x00\x00\x00\x00x\nPRIORITY=0\n\nPRIORITY=6\n"
    assert read(entry) == {"MESSAGE": "x\nPRIORITY=0\n", "PRIORITY": "6"}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("relay_status", "RELAY_STATUS"),
        ("relay_content-type", "RELAY_CONTENT_TYPE"),
        ("relay_a=b\nMESSAGE", "RELAY_A_B_MESSAGE"),
        ("relay_" + "x" * 100, "RELAY_" + "X" * 58),
    ],
)
def test_a_name_has_capitals_digits_and_underscores_only(name: str, written: str) -> None:
    assert journal.encode({name: "v"}) == f"{written}=v\n".encode()


def test_a_long_value_is_cut_between_two_characters() -> None:
    (value,) = read(journal.encode({"MESSAGE": "x" + "ü" * 20_000})).values()

    assert value.endswith("ü... (cut)")
    assert journal.LONGEST_VALUE - 2 < len(value.encode()) <= journal.LONGEST_VALUE


def test_a_text_that_is_no_unicode_is_sent_all_the_same() -> None:
    assert journal.encode({"MESSAGE": "\udcff"}) == b"MESSAGE=\\udcff\n"


def test_an_entry_arrives_whole(tmp_path: Path, listening: socket.socket) -> None:
    entry = journal.encode({f"relay_{number}": "x" * journal.LONGEST_VALUE for number in range(7)})
    journal.send(entry, str(tmp_path / "socket"))

    assert listening.recv(1_000_000) == entry


def test_an_entry_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path, listening: socket.socket) -> None:
    with pytest.raises(OSError, match="too long"):
        journal.send(b"x" * (journal.LONGEST_ENTRY + 1), str(tmp_path / "socket"))


def test_a_journal_that_reads_nothing_is_not_waited_for(tmp_path: Path, listening: socket.socket) -> None:
    def fill() -> None:
        for _ in range(10_000):  # more than the kernel keeps for a reader
            journal.send(b"MESSAGE=x\n", str(tmp_path / "socket"))

    with pytest.raises(BlockingIOError):
        fill()


def test_no_journal_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        journal.send(b"MESSAGE=x\n", str(tmp_path / "socket"))


def test_only_the_stream_that_systemd_connected_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        mine = f"{found.st_dev}:{found.st_ino}"

        assert journal.is_journal(stream, {"JOURNAL_STREAM": mine})
        assert not journal.is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not journal.is_journal(stream, {"JOURNAL_STREAM": "nonsense"})
        assert not journal.is_journal(stream, {})
    assert not journal.is_journal(stream, {"JOURNAL_STREAM": mine})  # closed
