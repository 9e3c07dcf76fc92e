import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.cli.audit import audit
from relay.domain.model import Mark, Mode, RegistrationId
from relay.push.egress.log import EgressLog, Unwritable, open_egress_log
from relay.push.egress.record import Fault
from relay.push.payload import ApnsMessage, Notice

AT = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
MESSAGE = ApnsMessage(
    Notice(Mark.EMAIL, 3, certain=True, registration_id=RegistrationId("r"), mode=Mode.ALERT, locale="en")
)
LARGE = 64_000_000
TOKEN = "4a" * 32


@contextmanager
def opened(folder: Path, largest: int = LARGE) -> Iterator[EgressLog]:
    with open_egress_log(folder, lambda: AT, largest=largest) as log:
        yield log


def note(log: EgressLog, times: int = 1) -> None:
    for _ in range(times):
        log.apns("com.example.mail", TOKEN, MESSAGE)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def audited(folder: Path) -> tuple[int, list[Fault]]:
    return audit(files(folder))


def test_what_leaves_is_in_the_file_before_the_log_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        note(log)
        (path,) = files(tmp_path)
        (line,) = path.read_text().splitlines()

    assert json.loads(json.loads(line)["body"]) == MESSAGE.body
    assert TOKEN not in line
    assert audited(tmp_path) == (1, [])


def test_the_chain_goes_on_over_restarts_and_files(tmp_path: Path) -> None:
    for _ in range(3):
        with opened(tmp_path, largest=1500) as log:
            note(log, 4)

    assert len(files(tmp_path)) > 3
    assert all(path.stat().st_size <= 1500 for path in files(tmp_path))
    assert audited(tmp_path) == (12, [])


def test_a_removed_file_is_found_unless_it_is_the_oldest(tmp_path: Path) -> None:
    with opened(tmp_path, largest=1000) as log:
        note(log, 8)
    files(tmp_path)[0].unlink()
    assert audited(tmp_path)[1] == []

    files(tmp_path)[1].unlink()

    assert len(audited(tmp_path)[1]) == 1


def test_a_removed_end_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        note(log, 3)
    (path,) = files(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))

    assert [fault.where for fault in audited(tmp_path)[1]] == ["the end"]


def test_a_broken_head_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        note(log)
    (tmp_path / "egress.head").write_text("{}")

    assert [fault.text for fault in audited(tmp_path)[1]] == ["is no head of an egress log"]


def test_a_line_torn_by_a_crash_goes_and_the_chain_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        note(log, 2)
    (path,) = files(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"n":3,"at":"2026')

    with opened(tmp_path) as log:
        note(log)

    assert audited(tmp_path) == (3, [])


def test_an_empty_newest_file_does_not_break_the_chain(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        note(log, 2)
    (tmp_path / "egress-000002.jsonl").touch()

    with opened(tmp_path) as log:
        note(log)

    assert audited(tmp_path) == (3, [])
    assert (tmp_path / "egress-000002.jsonl").stat().st_size > 0


def test_a_second_process_writes_a_chain_of_its_own(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        note(first, 2)
        note(second, 3)

    assert [path.name for path in files(tmp_path)] == ["egress-000001.jsonl", "egress2-000001.jsonl"]
    assert audited(tmp_path) == (5, [])


def test_a_disk_that_cannot_be_written_lets_nothing_leave(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        note(log)
        position, descriptor = log.position, log._file
        log._file = os.open("/dev/full", os.O_WRONLY)

        with pytest.raises(Unwritable, match="No space left"):
            note(log)

        os.close(log._file)
        log._file = descriptor
        assert log.position == position
        note(log)

    assert audited(tmp_path) == (2, [])


def test_devices_keep_their_names_over_restarts_and_the_key_is_closed_to_others(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path) as log:
            note(log)
    lines = [json.loads(line) for path in files(tmp_path) for line in path.read_text().splitlines()]

    assert lines[0]["device"] == lines[1]["device"]
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.looptime
async def test_the_head_follows_while_pushes_go_out(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        running = asyncio.get_running_loop().create_task(log.run())
        note(log, 2)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(lambda: None)  # threads take real time
        running.cancel()
        await asyncio.wait([running])
        head = json.loads((tmp_path / "egress.head").read_text())

    assert head == {"n": 2, "hash": log.position.digest}


def test_a_new_file_that_cannot_be_opened_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    with opened(tmp_path, largest=1) as log:
        note(log)
        stranger = tmp_path / "egress-000002.jsonl"
        stranger.mkdir()

        for _ in range(2):
            with pytest.raises(Unwritable, match="directory"):
                note(log)
            # The next file that anybody opens gets the lowest free number: not that of ours.
            (tmp_path / "other").write_text("somebody else's")
        stranger.rmdir()
        note(log)

    assert (tmp_path / "other").read_text() == "somebody else's"
    assert [file.name for file in files(tmp_path)] == ["egress-000001.jsonl", "egress-000002.jsonl"]
    assert audited(tmp_path) == (2, [])


def test_the_key_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    with opened(tmp_path):
        key = tmp_path / "device.key"
        made = key.read_bytes()
        assert (len(made), key.stat().st_mode & 0o777, key.stat().st_nlink) == (32, 0o600, 1)
    with opened(tmp_path):
        assert key.read_bytes() == made
    assert sorted(path.name for path in tmp_path.glob("device*")) == ["device.key"]


def test_files_change_while_the_disk_is_written_to(tmp_path: Path) -> None:
    faults: list[OSError] = []
    over = threading.Event()

    with opened(tmp_path, largest=600) as log:

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
    assert len(files(tmp_path)) == 300
    assert audited(tmp_path) == (300, [])
