import pytest

from relay.domain.model import Mark
from relay.push.payload import FALLBACK, IN_DOUBT, TEXTS, text


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
        assert set(words) == set(Mark) - {Mark.CHALLENGE}, "a challenge shows nothing"
        assert all(title and body for title, body in words.values())


def test_an_attention_that_may_be_the_servers_fault_says_so_in_every_language() -> None:
    assert IN_DOUBT.keys() == TEXTS.keys()
    assert "maybe the server" in text(Mark.ATTENTION, "tlh", certain=False)[1]
    assert text(Mark.ATTENTION, "de-AT", certain=False) == IN_DOUBT["de"]
    assert text(Mark.ATTENTION, "de") == TEXTS["de"][Mark.ATTENTION]
    assert text(Mark.EMAIL, "de", certain=False) == TEXTS["de"][Mark.EMAIL]


def test_no_words_have_room_for_something_to_be_filled_in() -> None:
    everything = "".join(title + body for words in TEXTS.values() for title, body in words.values())
    everything += "".join(title + body for title, body in IN_DOUBT.values())

    assert not {"{", "%", "$"} & set(everything)
