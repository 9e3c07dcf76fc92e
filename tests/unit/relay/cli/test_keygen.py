"""Keys are written beside one another, and one takes the place of another without a moment in which one is missing."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.cli.keygen import (
    KeysExist,
    put_away,
    put_in_place,
    put_public,
    write_beside,
    write_key_pair,
    write_sealing_keys,
)
from relay.security.sealing import SealingPrivateKey, SealingPublicKey


@pytest.fixture
def private(tmp_path: Path) -> Path:
    write_sealing_keys(tmp_path / "private.pem", tmp_path / "public.pem")
    return tmp_path / "private.pem"


def test_a_new_pair_stands_beside_the_present_one(private: Path) -> None:
    before = private.read_bytes()

    name, new, public = write_beside(private, private.with_name("public.pem"), None)

    assert private.read_bytes() == before
    assert (new.name, public.name) == (f"private-{name}.pem", f"public-{name}.pem")
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert SealingPrivateKey.load(new).public_key().name == SealingPublicKey.load(public).name == name


def test_a_new_pair_may_stand_in_a_folder_of_its_own(private: Path, tmp_path: Path) -> None:
    name, new, public = write_beside(private, private.with_name("public.pem"), tmp_path / "new")

    assert (new, public) == (tmp_path / f"new/private-{name}.pem", tmp_path / f"new/public-{name}.pem")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_pair_that_root_makes_belongs_to_whom_the_present_one_belongs(private: Path) -> None:
    os.chown(private, 12345, 12345)
    private.chmod(0o640)

    _, new, public = write_beside(private, private.with_name("public.pem"), None)
    put_public(public.read_bytes(), public)

    assert {(path.stat().st_uid, path.stat().st_gid) for path in (new, public)} == {(12345, 12345)}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, public)] == [0o640, 0o644]


def test_a_key_takes_the_place_of_another_which_stays_beside_it(private: Path) -> None:
    former = SealingPrivateKey.load(private).public_key().name
    name, new, _ = write_beside(private, private.with_name("public.pem"), None)

    kept = put_in_place(new, private, former)

    assert SealingPrivateKey.load(private).public_key().name == name
    assert SealingPrivateKey.load(kept).public_key().name == former
    assert not new.exists()


def test_what_was_cut_off_in_between_is_done_again(private: Path) -> None:
    former = SealingPrivateKey.load(private).public_key().name
    name, new, _ = write_beside(private, private.with_name("public.pem"), None)
    os.link(private, private.with_name(f"private-{former}.pem"))  # and then the power failed

    put_in_place(new, private, former)

    assert SealingPrivateKey.load(private).public_key().name == name


def test_a_public_key_takes_the_place_of_another_at_once(private: Path) -> None:
    public = private.with_name("public.pem")
    _, _, new = write_beside(private, public, None)

    put_public(new.read_bytes(), public)

    assert public.read_bytes() == new.read_bytes()
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert len(list(private.parent.iterdir())) == 4


def test_a_key_that_is_put_away_keeps_its_bytes_and_loses_its_name(private: Path) -> None:
    before = private.read_bytes()

    away = put_away(private)

    assert (away.read_bytes(), away.name, private.exists()) == (before, "private.pem.retired", False)


def test_an_existing_key_is_never_written_over(private: Path) -> None:
    with pytest.raises(KeysExist, match="exists: stored credentials open with it alone"):
        write_sealing_keys(private, private.with_name("public.pem"))


def test_no_key_is_made_where_a_link_leads_nowhere(tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    public.symlink_to("away")

    with pytest.raises(KeysExist, match=r"public\.pem exists"):
        write_sealing_keys(private, public)

    assert not private.exists()


@pytest.mark.parametrize(
    "wants_room", [write_sealing_keys, lambda private, public: write_beside(private, public, None)]
)
def test_a_full_disk_leaves_no_part_of_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants_room: Callable[[Path, Path], object]
) -> None:
    """A part of a key beside the present one would keep the relay from starting."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        wants_room(tmp_path / "private.pem", tmp_path / "public.pem")

    assert list(tmp_path.iterdir()) == []


def test_a_key_has_its_name_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append([path.name for path in tmp_path.glob("[!.]*")]))

    write_sealing_keys(tmp_path / "private.pem", tmp_path / "public.pem")

    assert seen[0] == [], "kill -9 here leaves no part of a key under its name"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private.pem", "public.pem"]


def test_no_key_takes_the_place_of_one_that_another_process_made_meanwhile(tmp_path: Path) -> None:
    private = tmp_path / "private.pem"

    def make() -> tuple[bytes, bytes]:
        private.write_bytes(b"of another process")
        return b"private", b"public"

    with pytest.raises(FileExistsError):
        write_key_pair(private, tmp_path / "public.pem", make, "")

    assert private.read_bytes() == b"of another process"
