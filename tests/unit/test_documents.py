"""Checks that the documents of the repository lead where they say."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted(chain(ROOT.glob("*.md"), ROOT.glob("docs/**/*.md")))
FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK: Final = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
PATH: Final = re.compile(r"`((?:eas_watcher|relay|tests|docs|config|requirements|\.ci)/[\w./-]*)`")
DOCUMENT_NAME: Final = re.compile(r"\bdocs/[\w./-]+\.(?:md|sql)\b")


@cache
def read(document: Path) -> str:
    """Return the text of a document without its blocks of code."""
    return FENCED.sub("", document.read_text(encoding="utf-8"))


@cache
def anchors(document: Path) -> frozenset[str]:
    """Return the anchors of a document as GitHub makes them from its headings."""
    seen: Counter[str] = Counter()
    made = set()
    for heading in HEADING.findall(read(document)):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        made.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return frozenset(made)


def broken(document: Path, text: str) -> Iterator[str]:
    """Return the relative links in the text that lead nowhere when they stand in that document."""
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    assert list(broken(document, read(document))) == []


@pytest.mark.parametrize("link", ["missing.md", "#no-such-heading", "docs/install.md#no-such-heading", "../away.md"])
def test_a_broken_link_is_found(link: str) -> None:
    assert list(broken(ROOT / "README.md", f"See [this]({link}) and [that](docs/install.md#install).")) == [link]


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        reached.add(document)
        names = {link.partition("#")[0] for link in LINK.findall(read(document)) if "://" not in link} - {""}
        targets = {(document.parent / name).resolve() for name in names}
        pages = chain.from_iterable(target.glob("*.md") if target.is_dir() else [target] for target in targets)
        ahead += [page for page in pages if page.suffix == ".md" and page not in reached]

    assert [str(page.relative_to(ROOT)) for page in DOCUMENTS if page not in reached] == []


def missing(text: str) -> list[str]:
    """Return the paths of this repository that the text names and that do not exist."""
    return [path for path in PATH.findall(text) if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    assert missing(read(document)) == []


def test_a_path_that_is_gone_is_found() -> None:
    text = "See `relay/app.py`, `relay/no_such.py`, `tests/unit/`, `docs/nowhere/` and `relay serve`."

    assert missing(text) == ["relay/no_such.py", "docs/nowhere/"]


def test_documents_that_texts_of_the_program_name_exist() -> None:
    """A message that sends an operator to a page must not send him to a page that was renamed."""
    files = chain(*(ROOT.glob(f"{folder}/**/*.*") for folder in ("relay", "eas_watcher", "config", "tests", ".ci")))
    texts = [file.read_text(encoding="utf-8") for file in files if file.suffix in {".py", ".toml", ".yml", ".service"}]
    named = {name for text in texts for name in DOCUMENT_NAME.findall(text)}

    assert "docs/authentication.md" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_no_two_decisions_have_one_number() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs/adr").glob("*.md")]

    assert sorted(numbers) == [f"{number:04}" for number in range(1, len(numbers) + 1)]


def test_a_decision_begins_with_the_number_of_its_file() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))

    assert [path.name for path in decisions if not path.read_text().startswith(f"# {path.name[:4]}: ")] == []
