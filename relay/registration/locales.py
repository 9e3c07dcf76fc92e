"""The language of a phone, as iOS, Android, Java, browsers and POSIX write it, in its one spelling.

The relay needs the language, and keeps script, region and variants, because apps look for them in answers. What else a
locale has (calendar, digits, currency, encoding) does not concern a push.
"""

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from relay.domain.model import OWN_TEXTS

LONGEST: Final = 255
"""Characters of a locale that is read: those of Apple carry keywords of any length."""
DEFAULT: Final = "en"

_LONGEST_TAG: Final = 35  # characters that software must take [RFC 5646 4.4.1]
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}|[a-z]{5,8}", re.ASCII)
_SCRIPT: Final = re.compile(r"[a-z]{4}", re.ASCII)
_REGION: Final = re.compile(r"[a-z]{2}|[0-9]{3}", re.ASCII)
_VARIANT: Final = re.compile(r"[a-z0-9]{5,8}|[0-9][a-z0-9]{3}", re.ASCII)
_NO_LANGUAGE: Final = frozenset({"", "c", "posix", "und", "root"})
"""What stands where nobody chose a language [POSIX 7.2; RFC 5646 4.1; CLDR]."""
_FORMER: Final = {"iw": "he", "in": "id", "ji": "yi"}
"""Codes that Java and Android still write [java.util.Locale, legacy language codes]."""
_MODIFIERS: Final = {"latin": "latn", "cyrillic": "cyrl", "devanagari": "deva"}
"""POSIX modifiers that name a script, as in sr_RS@latin [observed: glibc's list of locales]."""


def clean_locale(text: str) -> str:
    """Return the language tag [RFC 5646] of a locale, `en` if it names no language; raise ValueError if it is none.

    `x-app` stands for the app's own texts. Read are en_US@rg=atzzzz (Apple), ar-EG-u-nu-latn, th_TH_TH_#u-nu-thai and
    zh_TW_#Hant (Java), de_DE.UTF-8 (POSIX).
    """
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters")
    if text == OWN_TEXTS:
        return text
    name, _, modifier = text.strip().lower().partition("@")
    subtags = [each.lstrip("#") for each in name.partition(".")[0].replace("_", "-").split("-")]
    language, rest = subtags[0], [each for each in subtags[1:] if each]
    if language in _NO_LANGUAGE:
        return DEFAULT
    if not _LANGUAGE.fullmatch(language):
        raise ValueError("must begin with the code of a language, as in de-AT")
    rest = list(takewhile(lambda subtag: len(subtag) > 1, rest))  # behind a single letter are extensions
    script = _MODIFIERS.get(modifier) or _first(_SCRIPT, rest)
    variants = dict.fromkeys(subtag for subtag in rest if _VARIANT.fullmatch(subtag))
    tag = _FORMER.get(language, language)
    for subtag in (script.title(), _first(_REGION, rest).upper(), *variants):
        if subtag and len(tag) + 1 + len(subtag) <= _LONGEST_TAG:
            tag += f"-{subtag}"
    return tag


def _first(form: re.Pattern[str], subtags: Sequence[str]) -> str:
    return next((subtag for subtag in subtags if form.fullmatch(subtag)), "")
