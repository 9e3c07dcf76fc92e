import asyncio
from pathlib import Path

import pytest

from relay.push.key_files import KeyFile, watch


def read(path: Path) -> str:
    text = path.read_text()
    if not text.startswith("key "):
        raise ValueError("holds no key")
    return text


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file as editors and configuration tools do: the new file is complete before it gets the name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.rename(path)


def overwrite(path: Path, text: str) -> None:
    path.write_text(text)


def close(path: Path) -> None:
    path.chmod(0o600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "apns.p8"
    write(path, "key one")
    return path


def test_a_file_that_is_bad_at_the_start_is_refused(path: Path) -> None:
    write(path, "nothing")
    with pytest.raises(ValueError, match="holds no key"):
        KeyFile("apns.key_file", path, read)


def test_a_file_that_is_missing_at_the_start_is_refused(path: Path) -> None:
    path.unlink()
    with pytest.raises(FileNotFoundError):
        KeyFile("apns.key_file", path, read)


async def test_a_new_value_replaces_the_old_one_and_reaches_every_listener_once(path: Path) -> None:
    file = KeyFile("apns.key_file", path, read)
    heard: list[str] = []
    file.listen(heard.append)

    await file.look()
    assert (file.value, heard) == ("key one", [])

    write(path, "key two")
    await file.look()
    await file.look()
    assert (file.value, heard, file.fault) == ("key two", ["key two"], "")


async def test_a_file_written_in_place_is_noticed_even_if_its_size_stays(path: Path) -> None:
    file = KeyFile("apns.key_file", path, read)

    overwrite(path, "key two")
    await file.look()

    assert file.value == "key two"


async def test_a_file_that_is_only_touched_has_no_new_value(path: Path) -> None:
    file = KeyFile("apns.key_file", path, read)
    heard: list[str] = []
    file.listen(heard.append)

    write(path, "key one")
    await file.look()

    assert heard == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path: write(path, "half a"), "holds no key"),
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (
            lambda path: write(path, "key two", 0o604),
            "is open to others than its owner: everybody on this host (mode 0604)",
        ),
    ],
)
async def test_a_bad_file_leaves_the_old_key_in_use_and_is_named_until_it_is_corrected(
    path: Path, spoil: object, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile("apns.key_file", path, read)
    assert callable(spoil)
    spoil(path)

    await file.look()
    await file.look()
    assert (file.value, file.fault) == ("key one", fault)
    assert [record.getMessage() for record in caplog.records].count(
        "changed key file not taken, the old one stays in use"
    ) == 1

    write(path, "key three")
    await file.look()
    assert (file.value, file.fault) == ("key three", "")


async def test_a_file_whose_rights_are_corrected_is_used(path: Path) -> None:
    file = KeyFile("apns.key_file", path, read)
    write(path, "key two", 0o644)
    await file.look()
    assert file.value == "key one"

    close(path)
    await file.look()

    assert (file.value, file.fault) == ("key two", "")


async def test_watching_checks_all_files_until_cancelled(path: Path) -> None:
    file = KeyFile("apns.key_file", path, read)
    came = asyncio.Event()
    file.listen(lambda _: came.set())
    async with asyncio.timeout(30.0), asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch([file], period=0.01))
        write(path, "key two")
        await came.wait()
        watching.cancel()


async def test_a_value_that_a_listener_cannot_use_leaves_the_old_one_and_is_tried_again(path: Path) -> None:
    file = KeyFile("apns.key_file", path, read)
    taken: list[str] = []

    def take(value: str) -> None:
        if not usable:
            raise OSError("gone again")
        taken.append(value)

    file.listen(take)
    write(path, "key two")
    usable = False
    await file.look()
    assert (file.value, file.fault) == ("key one", "cannot be used: gone again")

    usable = True
    await file.look()
    assert (file.value, file.fault, taken) == ("key two", "", ["key two"])
