import pytest

from relay.domain.model import Mark
from relay.push.payload import FALLBACK, TEXTS, text


@pytest.mark.parametrize(
    ("locale", "title"),
    [
        ("de", "Neue E-Mail"),
        ("de-AT", "Neue E-Mail"),
        ("de_CH", "Neue E-Mail"),
        ("DE", "Neue E-Mail"),
        ("fr-CA", "Nouveau message"),
        ("en-GB", "New mail"),
        ("tlh", "New mail"),
        ("", "New mail"),
        ("den", "New mail"),
    ],
)
def test_the_language_of_the_locale_chooses_the_words(locale: str, title: str) -> None:
    assert text(Mark.EMAIL, locale)[0] == title


def test_every_language_has_words_for_every_mark() -> None:
    assert FALLBACK in TEXTS
    for words in TEXTS.values():
        assert set(words) == set(Mark)
        assert all(title and body for title, body in words.values())


def test_no_words_have_room_for_something_to_be_filled_in() -> None:
    everything = "".join(title + body for words in TEXTS.values() for title, body in words.values())

    assert not {"{", "%", "$"} & set(everything)
