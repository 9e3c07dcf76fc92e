from pathlib import Path
from typing import Final

import pytest

from relay.installing.shipped import ABOUT, GRANTS, read
from relay.store.privileges import grants_sql

ROOT: Final = Path(__file__).parents[4]


@pytest.mark.parametrize("name", [name for name in ABOUT if name != GRANTS])
def test_what_the_wheel_has_is_what_the_repository_shows(name: str) -> None:
    source = ROOT / "config" / name if name != "LICENSE" else ROOT / name

    assert read(name) == source.read_text(encoding="utf-8")


def test_the_grants_are_those_of_this_version() -> None:
    assert read(GRANTS) == grants_sql()


def test_every_sample_file_is_told_of() -> None:
    assert {path.name for path in (ROOT / "relay/installing/sample_files").iterdir()} == ABOUT.keys() - {GRANTS}
