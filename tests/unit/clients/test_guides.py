import re
from pathlib import Path

import pytest

from clients.guides import EXAMPLE, GUIDES, ROOT, region, written

OWN = re.compile(r"^```(kotlin|swift|python)\n", re.MULTILINE)


@pytest.mark.parametrize("guide", GUIDES)
def test_the_examples_of_a_guide_are_those_of_the_clients(guide: str) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")

    assert text == written(text), "run `make docs`"


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_has_no_code_of_its_own(guide: str) -> None:
    """Code that stands in a guide alone is compiled by nobody."""
    text = (ROOT / guide).read_text(encoding="utf-8")

    assert EXAMPLE.search(text)
    assert OWN.findall(EXAMPLE.sub("", text)) == []


def test_an_example_is_written_and_replaced(tmp_path: Path) -> None:
    source = tmp_path / "a.kt"
    source.write_text("class A {\n    // region one\n    val a = 1\n\n        // inner\n    // endregion\n}\n")
    guide = "Before\n<!-- example: a.kt one -->\nafter\n"

    first = written(guide, tmp_path)
    source.write_text(source.read_text().replace("1", "2"))

    assert first == "Before\n<!-- example: a.kt one -->\n```kotlin\nval a = 1\n\n    // inner\n```\nafter\n"
    assert written(first, tmp_path) == first.replace("1", "2")


@pytest.mark.parametrize("text", ["", "// region b\n// endregion", "# region a\n# endregion\n" * 2, "// region a\n"])
def test_a_region_that_is_not_there_once_is_a_fault(text: str) -> None:
    with pytest.raises(ValueError, match="regions are called a"):
        region(text, "a")
