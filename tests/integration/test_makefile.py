"""Test the first `make` on a host that lacks something, with programs that stand for Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the Makefile and the files that its first rule depends on."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def make(checkout: Path, python: str, name: str = "PYTHON", path: str = "") -> tuple[int, str]:
    environ = {"PATH": path + os.environ["PATH"], "LANG": "C"}
    command = ["make", "demo", f"{name}={python}"]
    ended = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def program(checkout: Path, text: str) -> str:
    path = checkout / "fake-python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_host_without_python_is_told_what_to_install(checkout: Path) -> None:
    status, said = make(checkout, "no-such-python")

    assert status != 0
    assert "apt install python3 python3-venv" in said
    assert not (checkout / ".venv").exists()


def test_an_old_python_is_named(checkout: Path) -> None:
    status, said = make(checkout, program(checkout, 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac'))

    assert status != 0
    assert "Python 3.9.2, and Python 3.11 or newer is needed" in said


def test_a_python_without_its_venv_package_is_told_what_to_install(checkout: Path) -> None:
    status, said = make(checkout, program(checkout, 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac'))

    assert status != 0
    assert "cannot make virtual environments" in said
    assert "apt install python3 python3-venv" in said
    assert not (checkout / ".venv").exists()


def test_a_virtual_environment_that_a_failed_run_left_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to("/bin/false")

    _, said = make(checkout, program(checkout, 'case "$*" in *"venv --clear .venv"*) echo "made again";; esac'))

    assert "made again" in said


def test_packages_that_cannot_be_fetched_are_told_with_the_way_on(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    pip = checkout / ".venv/bin/python"
    pip.write_text('#!/bin/sh\ncase "$*" in *--version*) exit 0;; *) exit 1;; esac\n')
    pip.chmod(0o755)

    status, said = make(checkout, program(checkout, "exit 0"))

    assert status != 0
    assert "The packages were not installed" in said
    assert "run make again" in said


def test_the_distributions_python_is_taken_before_the_one_on_the_path(checkout: Path) -> None:
    system = program(checkout, 'case "$*" in *"venv --clear .venv"*) echo "made by the first";; esac')

    _, said = make(checkout, system, "SYSTEM")

    assert "made by the first" in said


@pytest.mark.parametrize("system", ["no-such-python", "/bin/false"], ids=["missing", "too old or without venv"])
def test_the_python_on_the_path_is_taken_where_the_distributions_will_not_do(checkout: Path, system: str) -> None:
    on_path = checkout / "bin/python3"
    on_path.parent.mkdir()
    on_path.write_text('#!/bin/sh\ncase "$*" in *"venv --clear .venv"*) echo "made by the other";; esac\n')
    on_path.chmod(0o755)

    _, said = make(checkout, system, "SYSTEM", f"{on_path.parent}:")

    assert "made by the other" in said
