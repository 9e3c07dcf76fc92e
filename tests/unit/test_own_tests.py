"""Each pure module is covered by tests of its own: unit tests in the file that bears its name.

Tests of other modules that pass through a module show that it works, not what it decides.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.warm import Warm, open_warm

ROOT: Final = Path(__file__).parents[2]
PURE: Final = "decisions are made without I/O"
"""The import rule whose modules are the pure ones."""


def pure_modules() -> list[Path]:
    """Return the files of all pure modules, relative to the root."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (names,) = [contract["source_modules"] for contract in contracts if contract["name"] == PURE]
    found: list[Path] = []
    for name in names:
        path = ROOT / name.replace(".", "/")
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [path.relative_to(ROOT) for path in found]


def does_something(module: Path) -> bool:
    """Return True if a function of a module has more than a docstring; others only declare types and values."""
    return any(
        not all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body)
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def own_files(module: Path) -> list[Path]:
    """Return a module's own test files, relative to the root: test_NAME.py, and test_NAME_*.py where it is split."""
    folder = ROOT / "tests/unit" / module.parent
    files = [*folder.glob(f"test_{module.stem}.py"), *folder.glob(f"test_{module.stem}_*.py")]
    return sorted(path.relative_to(ROOT) for path in files)


def test_every_pure_module_has_tests_of_its_own() -> None:
    modules = [module for module in pure_modules() if does_something(module)]

    assert len(modules) > 40
    assert [str(module) for module in modules if not own_files(module)] == []


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    folder = tmp_path_factory.mktemp("own")
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COVERAGE_FILE": str(folder / "coverage")}
    with open_warm(ROOT, folder / "report.txt", environ) as process:
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("module", [module for module in pure_modules() if own_files(module)], ids=str)
def test_its_own_tests_cover_a_pure_module(module: Path, warm: Warm) -> None:
    name = ".".join(module.with_suffix("").parts)
    measure = (f"--cov={name}", "--cov-branch", "--cov-fail-under=100", "--cov-report=term-missing")

    status, report = warm.run("-q", *measure, *map(str, own_files(module)))

    assert status == 0, report[-6000:]
