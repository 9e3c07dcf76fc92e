import os
from pathlib import Path
from typing import cast

import pytest

from relay.installing.layout import File
from relay.installing.writing import FilesExist, NoUser, Owner, find_owner, write_files


@pytest.mark.parametrize("umask", [0, 0o077])
def test_files_have_their_mode_whatever_the_umask_and_folders_are_closed(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_files([File(tmp_path / "a/b/open", b"x", 0o644), File(tmp_path / "a/secret", b"y")], None)
    finally:
        os.umask(before)

    assert (tmp_path / "a/b/open").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "a/secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_nothing_is_written_if_one_file_exists(tmp_path: Path) -> None:
    (tmp_path / "old").symlink_to("nowhere")

    with pytest.raises(FilesExist, match="old exists"):
        write_files([File(tmp_path / "new", b""), File(tmp_path / "old", b"")], None)

    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_source_that_cannot_be_read_stops_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_files([File(tmp_path / "new", b""), File(tmp_path / "copy", tmp_path / "none")], None)

    assert not list(tmp_path.iterdir())


def test_what_was_written_before_a_failure_is_removed_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OSError, match=r"file"):
        write_files([File(tmp_path / "made/new", b""), File(tmp_path / "file/below", b"")], None)

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_and_folders_get_their_owner(tmp_path: Path) -> None:
    owner = Owner(12345, 12345, "")
    write_files([File(tmp_path / "a/own", b""), File(tmp_path / "a/other", b"", of_relay=False)], owner)

    owners = {path.name: path.stat().st_uid for path in (tmp_path / "a", *(tmp_path / "a").iterdir())}
    assert owners == {"a": 12345, "own": 12345, "other": 0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_folder_that_was_replaced_by_a_link_gives_nothing_else_away(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "made"
    precious.write_text("")

    class Thief:
        gid = 12345

        @property
        def uid(self) -> int:
            if not folder.is_symlink():
                folder.rmdir()
                folder.symlink_to(precious)
            return 12345

    with pytest.raises(NotADirectoryError):
        write_files([File(folder / "new", b"")], cast("Owner", Thief()))

    assert precious.stat().st_uid == 0


def test_a_user_is_found_by_name_and_by_number() -> None:
    root = find_owner("root")

    assert root == find_owner("0") == Owner(0, 0, "root")
    assert root.foreign is (os.geteuid() != 0)
    assert find_owner("4321") == Owner(4321, 4321, "")
    with pytest.raises(NoUser, match="nobody-here"):
        find_owner("nobody-here")
