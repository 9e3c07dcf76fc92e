"""Writes the examples of the guides from the clients that are compiled and tested, so that no example can rot.

A guide names a region of a source file in a comment, and the block of code below it is written from there:

    <!-- example: clients/kotlin/fcm/src/main/kotlin/pushrelay/fcm/RelayMessagingService.kt service -->

A region begins at a line with the comment `region NAME` and ends at `endregion`.
"""

import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import Final

ROOT: Final = Path(__file__).parents[1]
GUIDES: Final = ("clients/python/README.md", "docs/android.md", "docs/ios.md", "docs/webpush.md")
EXAMPLE: Final = re.compile(r"(?P<mark><!-- example: (?P<file>\S+) (?P<name>\S+) -->\n)(?:```.*?\n```\n)?", re.DOTALL)
LANGUAGES: Final = {".kt": "kotlin", ".py": "python", ".swift": "swift", ".xml": "xml", ".plist": "xml"}


def region(text: str, name: str) -> str:
    """Return the lines of a region, moved to the left margin; raises ValueError unless the text has it once."""
    pattern = rf"^[^\n\w]*region {re.escape(name)}\b[^\n]*\n(.*?)^[^\n\w]*endregion\b"
    found: list[str] = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"{len(found)} regions are called {name}")
    return dedent(found[0]).strip("\n")


def written(guide: str, root: Path = ROOT) -> str:
    """Return a guide with all its examples as the sources have them now."""

    def example(match: re.Match[str]) -> str:
        source = root / match["file"]
        code = region(source.read_text(encoding="utf-8"), match["name"])
        return f"{match['mark']}```{LANGUAGES[source.suffix]}\n{code}\n```\n"

    return EXAMPLE.sub(example, guide)


if __name__ == "__main__":
    for path in [ROOT / name for name in sys.argv[1:] or GUIDES]:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
