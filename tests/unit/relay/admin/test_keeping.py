"""The file of the audit log's keys."""

import os
from pathlib import Path

import pytest

from relay.admin import keeping
from relay.admin.keeping import AuditKeyUnreadable, open_keys


def test_the_first_act_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "state/audit.key"

    made = open_keys(path)

    assert open_keys(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["audit.key"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_command_of_root_makes_the_key_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    os.chown(tmp_path, 12345, 12346)

    open_keys(path)

    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (12345, 12346, 0o600)


def test_of_two_processes_that_make_the_first_key_at_once_one_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    made = open_keys(path)

    keeping._make_first(path)  # as a process does that has not seen the file yet

    assert open_keys(path) == made
    assert [file.name for file in tmp_path.iterdir()] == ["audit.key"]


def test_a_file_without_keys_is_no_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    path.write_text("no keys")

    with pytest.raises(AuditKeyUnreadable, match="holds no keys"):
        open_keys(path)
