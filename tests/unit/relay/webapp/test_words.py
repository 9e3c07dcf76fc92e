import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from eas_watcher.names import CollectionClass
from relay.domain.model import PushTestState
from relay.push.payload import TEXTS
from relay.webapp.words import choose, languages


def paths(words: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """Return the place of every text, and the text."""
    for name, value in words.items():
        match value:
            case str():
                yield f"{at}{name}", value
            case list():
                yield from paths({str(number): each for number, each in enumerate(value)}, f"{at}{name}.")
            case _:
                yield from paths(value, f"{at}{name}.")


def test_the_web_app_speaks_the_languages_of_pushes() -> None:
    assert languages().keys() == TEXTS.keys()
    assert next(iter(languages())) == "en"


def test_every_language_has_the_same_texts_and_none_is_empty() -> None:
    english = dict(paths(languages()["en"]))

    for code, words in languages().items():
        there = dict(paths(words))
        assert there.keys() == english.keys(), code
        assert [place for place, text in there.items() if not text.strip()] == []


def test_french_marks_are_on_the_line_of_their_words() -> None:
    broken = re.compile(r"« | [»:;?!…]")
    french = dict(paths(languages()["fr"]))

    assert [place for place, text in french.items() if broken.search(text)] == []
    assert any("\N{NO-BREAK SPACE}:" in text for text in french.values())


def test_there_are_words_for_every_class_and_every_end_of_a_test_push() -> None:
    words = languages()["en"]

    assert words["classes"].keys() == {each.value for each in CollectionClass}
    assert {f"test-{each.value}" for each in PushTestState} <= words["notices"].keys()


@pytest.mark.parametrize(
    ("accepted", "wanted", "language"),
    [
        ("", None, "en"),
        ("de-AT, de;q=0.9, en;q=0.8", None, "de"),
        ("es, fr-CA;q=0.7, de;q=0.3", None, "fr"),
        ("FR", None, "fr"),
        ("de;q=0, fr;q=0.1", None, "fr"),
        ("de;q=0", None, "en"),
        ("de, fr", None, "de"),
        ("*, ;;;, de;q=nonsense", None, "en"),
        (f"{'es,' * 30}de", None, "en"),
        ("de", "fr", "fr"),
        ("de", "es", "de"),
        ("de", "../en", "de"),
    ],
)
def test_a_person_gets_the_language_that_was_chosen_or_that_the_browser_likes_best(
    accepted: str, wanted: str | None, language: str
) -> None:
    assert choose(accepted, wanted) == language
