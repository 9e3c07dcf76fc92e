"""Tests of what the room on a disk and the limit of open files mean."""

import pytest

from eas_watcher.tools.probe.finding import Grade
from relay.doctor.finding import Subject
from relay.doctor.host import MEGABYTE, judge_files, judge_room

DISK = Subject("disk", "relay.state_dir")


@pytest.mark.parametrize(
    ("megabytes", "nodes", "grade"),
    [
        (10, 10_000, Grade.BAD),
        (100, 10_000, Grade.NOTE),
        (10_000, 10_000, Grade.GOOD),
        (10_000, 10, Grade.NOTE),
        (10_000, 0, Grade.GOOD),  # a file system that makes room for files as they come
    ],
)
def test_a_disk_without_room_is_named_before_it_is_full(megabytes: int, nodes: int, grade: Grade) -> None:
    assert judge_room(DISK, megabytes * MEGABYTE, nodes).grade is grade


@pytest.mark.parametrize(
    ("limit", "mailboxes", "grade"),
    [(1024, 10, Grade.GOOD), (1024, 5000, Grade.BAD), (5400, 5000, Grade.NOTE), (65_536, 5000, Grade.GOOD)],
)
def test_each_mailbox_and_each_phone_may_need_a_file(limit: int, mailboxes: int, grade: Grade) -> None:
    finding = judge_files(limit, mailboxes, limit // 4, runs=True)

    assert finding.grade is grade
    assert "LimitNOFILE" in finding.remedy or grade is Grade.GOOD
