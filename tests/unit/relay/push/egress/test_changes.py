"""What others do to the files of the egress log, and what the relay does with them in the course of time."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from relay.domain.model import Environment, Lane
from relay.domain.outcome import Reach
from relay.push.egress.auditing import audit
from relay.push.egress.keeping import add_key
from relay.push.egress.leaving import Unwritable, held
from relay.push.egress.log import MEASURE, SYNC
from relay.push.egress.record import ChainKey, Position, hash_line, write_entry
from tests.unit.relay.push.egress.test_log import AT, MESSAGE, audited, files, folder, note, opened

__all__ = ["folder"]


def remove(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace_by_a_copy(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"{}\n")


def remove_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


CHANGES = (remove, rename, replace_by_a_copy, empty, cut, append, remove_the_folder)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_file_is_noticed_before_the_next_push_leaves(
    folder: Path, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as log:
        note(log, 3)
        change(folder / "egress-000001.jsonl")
        note(log)
        assert log.incidents == 1
        assert "egress log changed by somebody else" in caplog.messages
        note(log)
        assert log.incidents == 1
        assert log.position.n == 5

    lines = [line for path in files(folder) for line in path.read_bytes().splitlines() if b'"n"' in line]
    assert [line.startswith(b'{"n":%d,' % number) for number, line in zip((4, 5), lines[-2:], strict=True)] == [
        True
    ] * 2
    assert bool(audited(folder)[1]) is (change is not replace_by_a_copy)
    with opened(folder) as log:
        assert log.incident is not None, "a restart does not hide it"


@pytest.mark.looptime
async def test_a_change_is_noticed_without_a_push(folder: Path) -> None:
    with opened(folder) as log:
        note(log)
        running = asyncio.get_running_loop().create_task(log.run())
        (folder / "egress-000001.jsonl").unlink()
        await asyncio.sleep(1.5)
        running.cancel()
        await asyncio.wait([running])

        assert log.incident is not None


def test_an_end_that_goes_while_the_relay_is_down_is_noticed_at_its_start(folder: Path) -> None:
    with opened(folder) as log:
        note(log, 5)
    (path,) = files(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))

    with opened(folder) as log:
        assert log.incident is not None
        assert "after number 3" in log.incident.what
        note(log)

    assert audited(folder)[1], "the gap stays"


@pytest.mark.parametrize("stranger", [None, ChainKey(bytes(32))])
def test_lines_chained_anew_without_the_key_are_found(folder: Path, stranger: ChainKey | None) -> None:
    with opened(folder) as log:
        note(log, 4)
    (path,) = files(folder)
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    del entries[1]
    position, lines = Position(), []
    for entry in entries:
        parts = (entry["at"], entry["provider"], entry["app"], entry["device"], entry["body"])
        line = write_entry(position, *parts, entries[0]["key"] if stranger else None)
        lines.append(line + b"\n")
        position = Position(position.n + 1, hash_line(line, stranger))
    path.write_bytes(b"".join(lines))
    if stranger is not None:
        (folder.parent / "egress.anchor").unlink()  # an auditor elsewhere has the key alone

    assert audited(folder)[1]


def test_a_new_key_chains_what_comes_and_the_old_one_proves_what_was(folder: Path) -> None:
    keys = folder.parent / "egress.key"
    with opened(folder) as log:
        note(log, 2)
    add_key(keys)
    with opened(folder) as log:
        note(log, 2)
    lines = [json.loads(line) for path in files(folder) for line in path.read_text().splitlines()]

    assert len({line["key"] for line in lines}) == 2
    assert audited(folder) == (4, [])
    assert keys.stat().st_mode & 0o777 == 0o600
    newest = folder.parent / "newest.key"
    newest.write_text(keys.read_text().split()[0])
    found = audit(files(folder), newest)
    assert (found.faults, found.seen.unverified, len(found.notes)) == ([], 2, 1)
    keys.unlink()
    assert audit(files(folder)).seen.unverified == 4


def test_a_log_of_an_older_version_goes_on_with_the_key_and_its_lines_are_named(folder: Path) -> None:
    folder.mkdir()
    position, lines = Position(), []
    for _ in range(2):
        at = AT.isoformat(timespec="milliseconds")
        line = write_entry(position, at, "apns", "app", "d" * 32, MESSAGE.rendered, None)
        lines.append(line + b"\n")
        position = Position(position.n + 1, hash_line(line, None))
    (folder / "egress-000001.jsonl").write_bytes(b"".join(lines))
    (folder / "egress.head").write_text(json.dumps({"n": 2, "hash": position.digest}))
    with opened(folder) as log:
        assert log.incident is None
        note(log, 2)

    found = audit(files(folder))
    assert (found.seen.lines, found.seen.unkeyed, found.faults) == (4, 2, [])
    assert "have no key" in found.notes[0]
    assert not (folder / "egress.head").exists()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_files_are_for_their_owner_alone_whatever_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with opened(folder) as log:
            note(log)
    finally:
        os.umask(before)

    found = {path.name: path.stat().st_mode & 0o777 for path in (*folder.iterdir(), *folder.parent.glob("egress.*"))}
    assert found.keys() >= {"egress-000001.jsonl", "egress.lock", "device.key", "egress.key", "egress.anchor"}
    assert all(not mode & 0o077 for mode in found.values())
    assert found["egress-000001.jsonl"] == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


# --- what is kept


def test_the_oldest_files_go_by_size_and_the_rest_stays_verifiable(folder: Path) -> None:
    with opened(folder, largest=1000, most=2500) as log:
        note(log, 9)
        log._prune()

        assert sum(path.stat().st_size for path in files(folder)) <= 2500
        left = [json.loads(line)["n"] for path in files(folder) for line in path.read_text().splitlines()]
        assert 1 < left[0] < 9
    assert audited(folder) == (len(left), [])
    removed = folder / "egress.removed"
    removed.write_text(removed.read_text().replace('"n": ', '"n": 1'))

    assert len(audited(folder)[1]) == 2, "a note that the relay did not sign proves nothing"


def test_files_go_by_age_and_a_new_one_begins_each_day(folder: Path) -> None:
    keep = timedelta(days=30)
    for day in range(3):
        with opened(folder, at=AT + timedelta(days=day), keep=keep) as log:
            note(log)
            log._began -= timedelta(days=1)
            note(log)
    old, *others = files(folder)
    assert len(others) > 2
    os.utime(old, (0, 0))
    with opened(folder, keep=keep) as log:
        log._prune()

    assert files(folder) == others
    assert audited(folder)[1] == []


# --- a disk that cannot be written


@pytest.mark.looptime
async def test_while_nothing_can_be_logged_no_push_is_claimed_and_then_all_go_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as log:
        note(log)
        caplog.set_level("INFO")
        good, log._file = log._file, os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(Unwritable, match="No space left") as caught:
            note(log)

        outcome = held(caught.value)
        assert (outcome.reach, outcome.reason) == (Reach.HERE, "egress-log: No space left on device")
        assert {capacity.lane for capacity in log.capacities(1.0)} == {Lane(each) for each in Environment}
        with pytest.raises(Unwritable):
            note(log)
        assert caplog.messages.count("egress log cannot be written: pushes wait") == 1

        os.close(log._file)
        log._file = good
        running = asyncio.get_running_loop().create_task(log.run())
        for _ in range(5):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(lambda: None)  # threads take real time
        running.cancel()
        await asyncio.wait([running])
        assert log.trouble == ""
        assert list(log.capacities(1.0)) == []
        assert log.free is not None
        note(log)

    assert "egress log can be written again" in caplog.messages
    assert audited(folder) == (2, [])


@pytest.mark.looptime
async def test_while_nothing_is_written_the_disk_is_measured_now_and_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(work: Callable[[], None]) -> None:
        work()

    monkeypatch.setattr(asyncio, "to_thread", at_once)  # threads take real time
    with opened(folder) as log:
        running = asyncio.get_running_loop().create_task(log.run())
        measured = 0
        for _ in range(int(3 * MEASURE)):
            log.free = None
            await asyncio.sleep(SYNC)
            measured += log.free is not None
        assert 2 <= measured <= 4

        note(log)
        await asyncio.sleep(1.5 * SYNC)
        assert not log._dirty
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.looptime
async def test_a_disk_that_stays_full_is_tried_without_a_push(folder: Path) -> None:
    with opened(folder) as log:
        (folder / "egress.probe").mkdir()  # the disk stays unwritable
        log.trouble = "No space left on device"
        running = asyncio.get_running_loop().create_task(log.run())
        for _ in range(5):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(lambda: None)  # threads take real time
        running.cancel()
        await asyncio.wait([running])

        assert log.trouble
