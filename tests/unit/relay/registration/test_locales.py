import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.registration.locales import clean_locale


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        # iOS: Locale.current.identifier, Locale.preferredLanguages
        ("en_US", "en-US"),
        ("en_US@rg=atzzzz", "en-US"),
        ("de_AT@calendar=buddhist;currency=EUR;numbers=latn", "de-AT"),
        ("zh-Hans-CN", "zh-Hans-CN"),
        ("en-u-hc-h23-u-ca-gregory", "en"),
        # Android and Java: Locale.toLanguageTag(), Locale.toString()
        ("ar-EG-u-nu-latn", "ar-EG"),
        ("sr_Latn_RS", "sr-Latn-RS"),
        ("zh_TW_#Hant", "zh-Hant-TW"),
        ("th_TH_TH_#u-nu-thai", "th-TH"),
        ("ca-ES-valencia", "ca-ES-valencia"),
        ("sl_IT_nedis_nedis", "sl-IT-nedis"),
        ("es-419", "es-419"),
        ("de-CH-1996", "de-CH-1996"),
        ("__DE", "en"),
        ("de__POSIX", "de-posix"),
        ("in_ID", "id-ID"),
        ("iw-IL", "he-IL"),
        ("x-app", "x-app"),
        ("und", "en"),
        ("und-Latn", "en"),
        ("en-x-private", "en"),
        # POSIX
        ("C", "en"),
        ("C.UTF-8", "en"),
        ("POSIX", "en"),
        ("de_DE.UTF-8", "de-DE"),
        ("de_DE.ISO-8859-15@euro", "de-DE"),
        ("sr_RS@latin", "sr-Latn-RS"),
        ("", "en"),
        # anything
        ("DE", "de"),
        (" fr-FR ", "fr-FR"),
        ("de-AT-", "de-AT"),
        ("en" + "-abcdefgh" * 9 + "-ab", "en-AB-abcdefgh"),
        ("de-aaaaaaaa-bbbbbbbb-cccccccc-dddddddd", "de-aaaaaaaa-bbbbbbbb-cccccccc"),
        ("de-DE-{$};", "de-DE"),
        ("de-Latn-Cyrl-AT-CH", "de-Latn-AT"),
    ],
)
def test_a_locale_is_kept_in_its_one_spelling(sent: str, kept: str) -> None:
    assert clean_locale(sent) == kept
    assert clean_locale(kept) == kept


@pytest.mark.parametrize("text", ["english please", "e", "7", "äö", "\0", "deut", "a" * 9, "(null)"])
def test_what_names_no_language_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="as in de-AT"):
        clean_locale(text)


def test_a_locale_is_read_up_to_a_length() -> None:
    assert clean_locale("en_US@" + "k" * 249) == "en-US"
    with pytest.raises(ValueError, match="255 characters"):
        clean_locale("en_US@" + "k" * 250)


@given(st.text(max_size=60) | st.from_regex(r"\A[a-z]{2}([_-][#A-Za-z0-9]{1,9}){0,9}(@[a-z=;]*)?\Z"))
def test_what_is_kept_is_a_short_language_tag_whatever_was_sent(text: str) -> None:
    try:
        kept = clean_locale(text)
    except ValueError:
        return
    assert len(kept) <= 35
    assert re.fullmatch(r"[a-z]{2,8}(-[A-Za-z0-9]{2,8})*", kept)
    assert clean_locale(kept) == kept
