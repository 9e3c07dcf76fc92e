import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay.domain.model import Mark, Mode, RegistrationId
from relay.push.egress.auditing import audit
from relay.push.egress.leaving import Leaving, Unwritable
from relay.push.egress.log import EgressLog, Limits, open_egress_log
from relay.push.egress.record import Fault
from relay.push.payload import ApnsMessage, Notice

AT = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
MESSAGE = ApnsMessage(
    Notice(Mark.EMAIL, 3, certain=True, registration_id=RegistrationId("r" * 24), mode=Mode.ALERT, locale="en")
)
LARGE = 64_000_000
TOKEN = "4a" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in a state folder of its own."""
    return tmp_path / "egress"


@contextmanager
def opened(folder: Path, largest: int = LARGE, at: datetime = AT, **limits: Any) -> Iterator[EgressLog]:
    with open_egress_log(folder, lambda: at, Limits(largest, **limits)) as log:
        yield log


def note(log: EgressLog, times: int = 1) -> None:
    for _ in range(times):
        log.apns([Leaving("com.example.mail", TOKEN, MESSAGE)])


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def audited(folder: Path) -> tuple[int, list[Fault]]:
    found = audit(files(folder))
    return found.seen.lines, found.faults


def test_what_leaves_is_in_the_file_before_the_log_is_closed(folder: Path) -> None:
    with opened(folder) as log:
        note(log)
        (path,) = files(folder)
        (line,) = path.read_text().splitlines()

    assert json.loads(json.loads(line)["body"]) == MESSAGE.body
    assert TOKEN not in line
    assert audited(folder) == (1, [])


def test_the_chain_goes_on_over_restarts_and_files(folder: Path) -> None:
    for _ in range(3):
        with opened(folder, largest=1500) as log:
            note(log, 4)

    assert len(files(folder)) > 3
    assert all(path.stat().st_size <= 1500 for path in files(folder))
    assert audited(folder) == (12, [])


@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_removed_file_is_found(folder: Path, number: int) -> None:
    with opened(folder, largest=1000) as log:
        note(log, 7)
    assert audited(folder) == (7, [])

    files(folder)[number].unlink()

    assert len(audited(folder)[1]) == 1


def test_a_removed_end_is_found(folder: Path) -> None:
    with opened(folder) as log:
        note(log, 3)
    (path,) = files(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))

    assert [fault.where for fault in audited(folder)[1]] == ["the end"]


def test_a_broken_head_is_found(folder: Path) -> None:
    with opened(folder) as log:
        note(log)
    (folder.parent / "egress.anchor").write_text("{}")

    assert ["is no anchor of an egress log" in fault.text for fault in audited(folder)[1]] == [True]
    with opened(folder) as log:
        assert log.incident is not None


def test_a_line_torn_by_a_crash_goes_and_the_chain_goes_on(folder: Path) -> None:
    with opened(folder) as log:
        note(log, 2)
    (path,) = files(folder)
    with path.open("ab") as file:
        file.write(b'{"n":3,"at":"2026')

    with opened(folder) as log:
        note(log)

    assert audited(folder) == (3, [])


def test_an_empty_newest_file_does_not_break_the_chain(folder: Path) -> None:
    with opened(folder) as log:
        note(log, 2)
    (folder / "egress-000002.jsonl").touch()

    with opened(folder) as log:
        note(log)

    assert audited(folder) == (3, [])
    assert (folder / "egress-000002.jsonl").stat().st_size > 0


def test_pushes_that_leave_together_are_written_together(folder: Path) -> None:
    with opened(folder, largest=2000) as log:
        log.apns([Leaving("com.example.mail", f"{number:064x}", MESSAGE) for number in range(50)])
        note(log)
        log.apns([])

    assert audited(folder) == (51, [])
    assert len(files(folder)) > 10, "a group may take several files"
    assert all(path.stat().st_size <= 2000 for path in files(folder))


def test_no_sync_of_a_full_file_holds_up_the_pushes(folder: Path) -> None:
    with opened(folder, largest=1000) as log:
        with log._syncing:  # as while a slow disk syncs
            note(log, 5)
        assert len(log._full) == 4
        full = list(log._full)
        log._sync()
        assert not log._full
        for descriptor in full:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
        note(log, 3)

    assert audited(folder) == (8, [])


def test_a_full_file_whose_sync_fails_is_synced_again(folder: Path) -> None:
    with opened(folder, largest=1000) as log:
        note(log, 3)
        pipe, end = os.pipe()
        good, log._full[0] = log._full[0], end  # a pipe cannot be synced
        with pytest.raises(OSError, match="Invalid argument"):
            log._sync()
        assert len(log._full) == 2
        log._full[0] = good
        os.close(pipe)
        os.close(end)

    assert audited(folder) == (3, [])


def test_a_second_process_writes_a_chain_of_its_own(folder: Path) -> None:
    with opened(folder) as first, opened(folder) as second:
        note(first, 2)
        note(second, 3)

    assert [path.name for path in files(folder)] == ["egress-000001.jsonl", "egress2-000001.jsonl"]
    assert audited(folder) == (5, [])


def test_a_disk_that_cannot_be_written_lets_nothing_leave(folder: Path) -> None:
    with opened(folder) as log:
        note(log)
        position, descriptor = log.position, log._file
        log._file = os.open("/dev/full", os.O_WRONLY)

        with pytest.raises(Unwritable, match="No space left"):
            note(log)

        os.close(log._file)
        log._file = descriptor
        assert log.position == position
        note(log)

    assert audited(folder) == (2, [])


def test_devices_keep_their_names_over_restarts_and_the_key_is_closed_to_others(folder: Path) -> None:
    for _ in range(2):
        with opened(folder) as log:
            note(log)
    lines = [json.loads(line) for path in files(folder) for line in path.read_text().splitlines()]

    assert lines[0]["device"] == lines[1]["device"]
    assert (folder / "device.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.looptime
async def test_the_head_follows_while_pushes_go_out(folder: Path) -> None:
    with opened(folder) as log:
        running = asyncio.get_running_loop().create_task(log.run())
        note(log, 2)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(lambda: None)  # threads take real time
        running.cancel()
        await asyncio.wait([running])
        head = json.loads((folder.parent / "egress.anchor").read_text())

    assert head == {"n": 2, "hash": log.position.digest, "keyed_from": 1}


def test_what_others_put_in_the_place_of_the_next_file_is_left_alone(folder: Path) -> None:
    with opened(folder, largest=1) as log:
        note(log)
        stranger = folder / "egress-000002.jsonl"
        stranger.mkdir()
        note(log)
    with opened(folder, largest=1) as log:
        note(log)
    stranger.rmdir()

    assert [file.name for file in files(folder)] == [f"egress-00000{number}.jsonl" for number in (1, 3, 4)]
    assert audited(folder) == (3, [])


def test_the_key_has_its_name_only_when_it_is_whole(folder: Path) -> None:
    with opened(folder):
        key = folder / "device.key"
        made = key.read_bytes()
        assert (len(made), key.stat().st_mode & 0o777, key.stat().st_nlink) == (32, 0o600, 1)
    with opened(folder):
        assert key.read_bytes() == made
    assert sorted(path.name for path in folder.glob("device*")) == ["device.key"]


def test_files_change_while_the_disk_is_written_to(folder: Path) -> None:
    faults: list[OSError] = []
    over = threading.Event()

    with opened(folder, largest=600) as log:

        def sync() -> None:
            while not over.is_set():
                try:
                    log._sync()
                except OSError as error:
                    faults.append(error)

        syncing = threading.Thread(target=sync)
        syncing.start()
        try:
            note(log, 300)
        finally:
            over.set()
            syncing.join()

    assert faults == []
    assert len(files(folder)) == 300
    assert audited(folder) == (300, [])


def test_other_files_of_the_folder_are_none_of_the_chain(folder: Path) -> None:
    with opened(folder) as log:
        note(log, 2)
    (path,) = files(folder)
    for name in ("egress-000001 (copy).jsonl", "egress-000001.old.jsonl", "egress-1.jsonl"):
        (folder / name).write_bytes(path.read_bytes())

    with opened(folder) as log:
        note(log, 1)
        assert log.position.n == 3


@pytest.mark.parametrize("line", [b"no line of an egress log\n", b'{"n":1e999}\n'])
def test_a_file_that_others_wrote_into_is_left_alone_and_the_chain_goes_on(folder: Path, line: bytes) -> None:
    with opened(folder) as log:
        note(log, 2)
    (path,) = files(folder)
    with path.open("ab") as file:
        file.write(line)

    with opened(folder) as log:
        note(log, 1)
        assert log.position.n == 3
        assert log.incident is not None

    assert len(files(folder)) == 2
    assert audited(folder)[1] != []
