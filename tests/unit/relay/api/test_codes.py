from pathlib import Path
from typing import Final

import pytest

from relay.api.codes import explained, extract, read
from relay.api.problems import KINDS

ROOT: Final = Path(__file__).parents[4]
API: Final = (
    "# API\n\n## When the API says no\nWords.\n\n### `one`\n400. See [that](reasons.md#x).\n\n### `two`\nMore.\n"
)


def test_the_shipped_paragraphs_are_those_of_the_document() -> None:
    shipped = (ROOT / "relay/api/codes.md").read_text()

    assert shipped == extract((ROOT / "docs/api.md").read_text()), "run `make docs`"


def test_every_code_has_its_paragraph() -> None:
    assert explained().keys() == {kind.code for kind in KINDS}
    assert all(len(text.splitlines()) > 2 for text in explained().values())


def test_a_paragraph_is_plain_text() -> None:
    assert read(extract(API)) == {"one": "one\n\n400. See that.\n", "two": "two\n\nMore.\n"}


def test_what_follows_the_section_is_no_code() -> None:
    assert read(extract(API + "\n## Other\n### `three`\nNo.\n")).keys() == {"one", "two"}


def test_a_document_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section"):
        extract("# API\n")
