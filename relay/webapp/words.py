"""The words of the web app, one file for each language, and which language a browser gets."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

FALLBACK: Final = "en"
_RANGE: Final = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]{1,60})?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*")
"""A language range with its weight [RFC 9110 12.5.4]."""
RANGES: Final = 20  # of a header that are looked at


@cache
def languages() -> Mapping[str, Mapping[str, Any]]:
    """Return the words by language, English first."""
    folder = resources.files("relay.webapp").joinpath("messages")
    found = {
        file.name.removesuffix(".toml"): tomllib.loads(file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    }
    return dict(sorted(found.items(), key=lambda each: (each[0] != FALLBACK, each[0])))


def choose(accepted: str, wanted: str | None = None) -> str:
    """Return the language that a person `wanted`, else the one that the header Accept-Language likes best."""
    known = languages()
    if wanted in known:
        return str(wanted)
    weighed = [
        (-float(found[2] or 1), place, found[1].lower())
        for place, part in enumerate(accepted.split(",")[:RANGES])
        if (found := _RANGE.fullmatch(part)) is not None and found[1].lower() in known
    ]
    return min((each for each in weighed if each[0] < 0), default=(0.0, 0, FALLBACK))[2]
