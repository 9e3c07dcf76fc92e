"""What each code of a problem means, in the words of docs/api.md, of which codes.md beside this module is a part."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

SECTION: Final = re.compile(r"^## When the API says no$.*?(?=^### )(?P<codes>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"^### `(?P<code>[a-z-]+)`\n(?P<text>.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\[(?P<text>[^\]]+)\]\([^)]*\)")


def extract(api: str) -> str:
    """Return the paragraphs of all codes, which docs/api.md has at its end; raises ValueError if it has none."""
    found = SECTION.search(api)
    if found is None:
        raise ValueError("docs/api.md has no section about what the API refuses")
    return found["codes"]


def read(paragraphs: str) -> Mapping[str, str]:
    """Return what each code means, as plain text: a link is its words alone."""
    return {each["code"]: _plain(each["code"], each["text"]) for each in CODE.finditer(paragraphs)}


@cache
def explained() -> Mapping[str, str]:
    """Return what each code means."""
    return read((files("relay.api") / "codes.md").read_text(encoding="utf-8"))


def _plain(code: str, text: str) -> str:
    return f"{code}\n\n{LINK.sub(lambda link: link['text'], text).strip()}\n"
