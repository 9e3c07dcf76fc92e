"""Test that a changed file is noticed however it is replaced, once it has stopped changing."""

from pathlib import Path

from relay.process.file_watch import FileWatch, stamp, stamps


def test_a_file_that_is_renamed_into_place_has_another_stamp(tmp_path: Path) -> None:
    file, fresh = tmp_path / "api.pem", tmp_path / "api.new"
    file.write_text("same")
    before = stamp(file)
    fresh.write_text("same")
    fresh.rename(file)

    assert stamp(file) != before


def test_a_link_that_leads_elsewhere_has_another_stamp(tmp_path: Path) -> None:
    """As Kubernetes does: the file is a link through the link `..data`, which is replaced."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "api.pem").write_text("same")
    data, file = tmp_path / "..data", tmp_path / "api.pem"
    data.symlink_to("first")
    file.symlink_to("..data/api.pem")
    before = stamp(file)
    (tmp_path / "..data_tmp").symlink_to("second")
    (tmp_path / "..data_tmp").rename(data)

    assert stamp(file) != before


def test_a_missing_file_has_no_stamp(tmp_path: Path) -> None:
    assert stamps([tmp_path / "none", Path("a\0b")]) == {tmp_path / "none": None, Path("a\0b"): None}


def test_files_that_stay_are_not_read_again() -> None:
    watch = FileWatch({Path("a"): (1, 1, 1, 1, 1)})

    assert not watch.look({Path("a"): (1, 1, 1, 1, 1)})
    assert not watch.unsettled


def test_files_are_read_again_once_they_have_stopped_changing() -> None:
    watch = FileWatch({Path("a"): None, Path("b"): None})
    certificate = {Path("a"): (1, 2, 3, 4, 5), Path("b"): None}
    both = {Path("a"): (1, 2, 3, 4, 5), Path("b"): (1, 2, 3, 4, 5)}

    assert not watch.look(certificate)
    assert watch.unsettled
    assert not watch.look(both), "the key has just followed its certificate"
    assert watch.look(both)
    watch.read(both)
    assert not watch.look(both)
    assert set(watch.paths) == {Path("a"), Path("b")}


def test_a_change_that_is_taken_back_is_none() -> None:
    watch = FileWatch({Path("a"): None})
    watch.look({Path("a"): (1, 2, 3, 4, 5)})

    assert not watch.look({Path("a"): None})
    assert not watch.look({Path("a"): None})
