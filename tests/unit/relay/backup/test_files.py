import errno
import gzip
import os
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest

from relay.backup.files import lines, packing, place, writing
from relay.domain.errors import BackupInvalid


def test_a_full_disk_leaves_nothing_behind_and_the_file_before_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "one.gz"
    path.write_text("before")

    with pytest.raises(OSError, match="No space left"), writing(path, replace=True):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert [each.name for each in tmp_path.iterdir()] == ["one.gz"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "file", "nothing"])
def test_neither_a_device_nor_a_link_is_ever_replaced(tmp_path: Path, kind: str, replace: bool) -> None:
    """/dev/stdout is a link, to a pipe or to a file: replaced by root it would be gone from the host."""
    target, link = tmp_path / "target", tmp_path / "stdout"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "file":
        target.write_text("output")
    link.symlink_to(target)

    for path in (link, target) if kind == "pipe" else (link,):
        with pytest.raises(OSError, match="it is a link or no file"), writing(path, replace=replace):
            raise AssertionError

    assert link.readlink() == target
    assert kind != "file" or target.read_text() == "output"


def test_a_file_that_comes_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "one.gz"

    with pytest.raises(FileExistsError, match="name another one, or add --replace"), writing(path, replace=False):
        path.write_text("of another")

    assert [each.name for each in tmp_path.iterdir()] == ["one.gz"]
    assert path.read_text() == "of another"


def test_a_file_is_for_its_owner_only_and_in_a_folder_it_bears_the_time(tmp_path: Path) -> None:
    path = place(tmp_path, datetime(2026, 11, 24, 8, 30, 15, tzinfo=UTC))
    with writing(path, replace=False) as write:
        write(b"some\n")

    assert path == tmp_path / "push-relay-20261124T083015Z.backup.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert gzip.decompress(path.read_bytes()) == b"some\n"
    assert place(path, datetime(2026, 11, 24, tzinfo=UTC)) == path


def test_a_file_cut_at_any_byte_is_refused() -> None:
    file = BytesIO()
    with packing(file) as write:
        write(b'{"a":1}\n["b"]\n')
    assert list(lines(file)) == [b'{"a":1}\n', b'["b"]\n']
    assert list(lines(file)) == [b'{"a":1}\n', b'["b"]\n']  # from its beginning each time
    for end in range(1, len(file.getvalue())):
        with pytest.raises(BackupInvalid):
            list(lines(BytesIO(file.getvalue()[:end])))


def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(BackupInvalid, match="a line has no end"):
        list(lines(BytesIO(gzip.compress(b"[1]\n[2]"))))
