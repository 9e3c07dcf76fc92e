import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
LOCK: Final = f"""\
Aio_Thing==4.0 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via push-relay (pyproject.toml)
old==1.2 ; python_full_version < '3.12' \\
    --hash=sha256:{"c" * 64}
win==2 ; sys_platform == 'win32' \\
    --hash=sha256:{"d" * 64}
"""


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("relay_sbom", ROOT / "packaging/sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_lock_is_read_with_its_hashes_and_for_linux_alone(sbom: ModuleType) -> None:
    assert list(sbom.locked(LOCK, "3.11")) == [
        ("aio-thing", "4.0", ["a" * 64, "b" * 64]),
        ("old", "1.2", ["c" * 64]),
    ]
    assert [name for name, *_ in sbom.locked(LOCK, "3.13")] == ["aio-thing"]


def test_the_bill_names_every_locked_library_with_its_hashes(sbom: ModuleType, tmp_path: Path) -> None:
    sbom.write(tmp_path / "sbom.json", "3.11")

    bill = json.loads((tmp_path / "sbom.json").read_text())
    locked = (ROOT / "requirements/run.txt").read_text()
    names = {component["name"] for component in bill["components"]}
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (
        {"aiohttp", "cryptography", "sqlalchemy"} <= names <= set(re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE))
    )
    assert all(component["hashes"] for component in bill["components"])
    assert {component["bom-ref"] for component in bill["components"]} == set(bill["dependencies"][0]["dependsOn"])


def test_the_licences_are_those_that_the_libraries_declare(sbom: ModuleType) -> None:
    import aiohttp  # noqa: PLC0415

    known = sbom.licences(Path(aiohttp.__file__).parents[1])

    assert "Apache-2.0" in known["aiohttp"]
    assert "MIT" in known["sqlalchemy"]
