import os
from pathlib import Path

import pytest

from relay.console import egress
from relay.console.egress import EgressViewer
from relay.domain.model import Mark, Mode, RegistrationId
from relay.push.egress.leaving import Leaving
from relay.push.egress.log import Limits, open_egress_log
from relay.push.payload import ApnsMessage, Notice
from tests.fakes.ops import NOON

TOKEN = "4a" * 32
LARGE = 64_000_000


def write(folder: Path, lines: int, largest: int = LARGE) -> None:
    """Write lines as the relay does; the count of each is its number."""
    with open_egress_log(folder, lambda: NOON, Limits(largest)) as log:
        for number in range(1, lines + 1):
            notice = Notice(
                Mark.EMAIL,
                number,
                certain=True,
                registration_id=RegistrationId("r" * 24),
                mode=Mode.ALERT,
                locale="en",
            )
            log.apns([Leaving("com.example.mail", TOKEN, ApnsMessage(notice))])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "egress"


@pytest.fixture
def viewer(folder: Path, tmp_path: Path) -> EgressViewer:
    return EgressViewer(folder, tmp_path, tmp_path / "egress.key")


def numbers(page: egress.LogPage) -> list[int]:
    return [int(entry.fields["n"]) for entry in page.entries]


def test_a_page_has_the_newest_lines_first_and_leads_to_older_ones(folder: Path, viewer: EgressViewer) -> None:
    write(folder, 120)
    [file] = viewer.files()

    seen: list[int] = []
    before: int | None = None
    while True:
        page = viewer.page(file.name, before)
        assert not [entry for entry in page.entries if entry.faults]
        seen += numbers(page)
        before = page.before
        if before is None:
            break

    assert seen == list(range(120, 0, -1))
    assert file.size > egress.PAGE
    assert (page.entries[-1].data["kind"], page.entries[-1].data["class"]) == ("new-items", "email")
    assert TOKEN not in str(page)


def test_files_come_with_the_newest_first(folder: Path, viewer: EgressViewer) -> None:
    write(folder, 9, largest=1500)
    (folder / "egress-000001.jsonl.gz").touch()

    files = viewer.files()

    assert [file.name for file in files] == sorted((file.name for file in files), reverse=True)
    assert len(files) > 2
    assert all(file.name.endswith(".jsonl") for file in files)
    # A later file begins in the middle of the chain, which is no fault of its first line.
    assert not [entry for file in files for entry in viewer.page(file.name).entries if entry.faults]


def test_a_file_that_goes_while_files_are_listed_is_left_out(
    folder: Path, viewer: EgressViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, 9, largest=1500)
    look = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "egress-000002.jsonl":
            path.unlink()
        return look(path)

    monkeypatch.setattr(Path, "lstat", lstat)

    assert "egress-000002.jsonl" not in [file.name for file in viewer.files()]
    assert len(viewer.files()) > 1


def test_a_changed_line_is_marked(folder: Path, viewer: EgressViewer) -> None:
    write(folder, 5)
    [file] = viewer.files()
    path = folder / file.name
    path.write_text(path.read_text().replace('\\"count\\": 3', '\\"count\\": 4').replace('"n":5', "what"))

    page = viewer.page(file.name)

    assert [bool(entry.faults) for entry in page.entries] == [True, True, False, False, False]
    found = viewer.whole()
    assert found is not None
    assert len(found.faults) >= 2


def test_hostile_lines_are_only_texts(folder: Path, viewer: EgressViewer) -> None:
    folder.mkdir()
    lines = ['{"n": {"a": 1}, "at": [], "body": "{\\"message\\": {\\"data\\": 3}}"}', "[]", "\xff", "[" * 100_000]
    (folder / "egress-000001.jsonl").write_bytes("\n".join(lines).encode("latin-1") + b"\n")

    page = viewer.page("egress-000001.jsonl", 200)

    assert all(entry.faults for entry in page.entries)
    assert page.entries[-1].fields["n"] == "{'a': 1}"
    assert page.entries[-1].data == {}


@pytest.mark.parametrize("name", ["", "../egress.key", "egress-1.jsonl", "egress.removed", "egress-000009.jsonl"])
def test_no_other_file_is_read(folder: Path, viewer: EgressViewer, name: str) -> None:
    write(folder, 1)

    with pytest.raises(FileNotFoundError):
        viewer.page(name)


def test_a_link_or_a_pipe_in_the_folder_is_no_log(folder: Path, viewer: EgressViewer, tmp_path: Path) -> None:
    """Anyone who can write to the folder alone must not have the relay show its secrets."""
    write(folder, 1)
    (tmp_path / "secret").write_text("canary-of-a-secret")
    (folder / "egress-000008.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "egress-000009.jsonl")

    assert [file.name for file in viewer.files()] == ["egress-000001.jsonl"]
    for name in ("egress-000008.jsonl", "egress-000009.jsonl"):
        with pytest.raises(FileNotFoundError):
            viewer.page(name)


def test_a_line_longer_than_a_page_is_shown_in_pieces(folder: Path, viewer: EgressViewer) -> None:
    folder.mkdir()
    (folder / "egress-000001.jsonl").write_bytes(b"x" * (egress.PAGE * 2 + 5) + b"\n")

    sizes: list[int] = []
    before: int | None = None
    while True:
        page = viewer.page("egress-000001.jsonl", before)
        sizes += [len(entry.raw) for entry in page.entries]
        before = page.before
        if before is None:
            break

    assert sum(sizes) == egress.PAGE * 2 + 5


def test_lines_without_their_key_are_told(folder: Path, viewer: EgressViewer, tmp_path: Path) -> None:
    write(folder, 3)
    (tmp_path / "egress.key").unlink()

    page = viewer.page("egress-000001.jsonl")

    assert (page.unverified, [entry.faults for entry in page.entries]) == (3, [()] * 3)


def test_the_whole_log_is_audited_with_pauses(
    folder: Path, viewer: EgressViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(egress, "WORKS", 0.0)
    monkeypatch.setattr("time.sleep", rests.append)
    write(folder, 20, largest=2500)

    found = viewer.whole()

    assert found is not None
    assert (found.seen.lines, found.faults) == (20, [])
    assert len(rests) == 20


def test_a_log_too_large_is_left_to_the_command_line(
    folder: Path, viewer: EgressViewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "LARGEST", 100)
    write(folder, 2)

    assert viewer.whole() is None


def test_a_log_without_a_file_has_no_fault(folder: Path, viewer: EgressViewer) -> None:
    folder.mkdir()

    found = viewer.whole()

    assert found is not None
    assert (viewer.files(), found.seen.lines, found.faults) == ([], 0, [])
