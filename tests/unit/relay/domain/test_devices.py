import pytest

from relay.domain.devices import fingerprint, normalise_token
from relay.domain.model import Platform

ENDPOINT = '"endpoint":"https://push.example.com/ann"'
FID = "c" + "A1_-" * 5 + "x"
OTHER = '"endpoint":"https://push.example.com/ben"'


def test_the_digits_of_an_apns_token_have_one_spelling_and_other_tokens_stay_as_they_are() -> None:
    assert normalise_token(Platform.APNS, "ABcd12") == "abcd12"
    assert normalise_token(Platform.FCM, "ABcd12") == "ABcd12"
    assert normalise_token(Platform.WEBPUSH, f'{{"auth":"A",{ENDPOINT}}}') == f'{{"auth":"A",{ENDPOINT}}}'


@pytest.mark.parametrize(
    ("platform", "one", "other", "alike"),
    [
        (Platform.APNS, "ABCD", "abcd", True),
        (Platform.APNS, "abcd", "abce", False),
        (Platform.FCM, "ABCD", "abcd", False),
        (Platform.FCM, "abcd", "abcd", True),
        (Platform.FCM, f"{FID}:one", f"{FID}:other", True),
        (Platform.FCM, f"{FID}:one", f'{{"fid":"{FID}"}}', True),
        (Platform.WEBPUSH, f'{{"auth":"A",{ENDPOINT}}}', f'{{"auth":"B",{ENDPOINT}}}', True),
        (Platform.WEBPUSH, f'{{"auth":"A",{ENDPOINT}}}', f'{{"auth":"A",{OTHER}}}', False),
        (Platform.WEBPUSH, "[]", "{}", False),
        (Platform.WEBPUSH, "no json", "no json", True),
    ],
)
def test_two_tokens_of_one_installed_app_have_the_same_fingerprint(
    platform: Platform, one: str, other: str, alike: bool
) -> None:
    assert (fingerprint(platform, one) == fingerprint(platform, other)) is alike


def test_a_fingerprint_says_nothing_of_its_token_and_is_of_its_platform() -> None:
    found = {fingerprint(platform, "secret-token") for platform in Platform}

    assert len(found) == len(Platform)
    assert all(len(each) == 64 and "secret" not in each for each in found)
