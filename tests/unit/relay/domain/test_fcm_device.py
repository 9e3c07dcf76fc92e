from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.fcm_device import FcmDevice, FcmDeviceInvalid

FID = "cAnInventedFid_0123-ab"
TOKEN = f"{FID}:APA91bInvented_token-0123456789"


def test_a_fid_is_kept_as_another_device_token_than_any_token() -> None:
    device = FcmDevice.of_fid(FID)

    assert (device.kind, device.name) == ("fid", FID)
    assert device.device_token == f'{{"fid":"{FID}"}}'
    with pytest.raises(FcmDeviceInvalid):
        FcmDevice.of_token(device.device_token)


def test_a_token_is_kept_as_it_is() -> None:
    device = FcmDevice.of_token(TOKEN)

    assert (device.kind, device.name, device.device_token) == ("token", TOKEN, TOKEN)


@given(st.text(ascii_letters + digits + "_-", min_size=16, max_size=64))
def test_what_was_kept_is_read_again(fid: str) -> None:
    device = FcmDevice.of_fid(fid)

    assert FcmDevice.read(device.device_token) == device


@pytest.mark.parametrize("kept", [TOKEN, '{"fid":"short"}', '{"fid": "cAnInventedFid_0123-ab"}', ""])
def test_every_other_device_token_is_a_registration_token(kept: str) -> None:
    assert FcmDevice.read(kept) == FcmDevice("token", kept)


@pytest.mark.parametrize(
    ("fid", "words"),
    [(TOKEN, "send it as `token`"), ("short", "Installation ID"), ("a" * 65, "Installation ID"), (":" * 9, "`token`")],
)
def test_what_is_no_fid_is_refused_without_repeating_it(fid: str, words: str) -> None:
    with pytest.raises(FcmDeviceInvalid, match=words) as refusal:
        FcmDevice.of_fid(fid)
    assert fid not in str(refusal.value)


@pytest.mark.parametrize(
    ("token", "words"), [(FID, "send it as `fid`"), ("short", "8 to 1024"), ("a" * 1025, "8 to"), ("with a space", "8")]
)
def test_what_is_no_token_is_refused_without_repeating_it(token: str, words: str) -> None:
    with pytest.raises(FcmDeviceInvalid, match=words) as refusal:
        FcmDevice.of_token(token)
    assert token not in str(refusal.value)


def test_a_token_and_the_fid_of_its_installation_are_one_phone() -> None:
    assert FcmDevice.of_token(TOKEN).phone == FcmDevice.of_fid(FID).phone == FID


@pytest.mark.parametrize("token", ["fO0:APA91b-tok_en", "a-token-without-a-colon", f"x{FID}:APA91b"])
def test_a_token_of_another_form_is_a_phone_of_its_own(token: str) -> None:
    assert FcmDevice.of_token(token).phone == token


def test_neither_shows() -> None:
    assert FID not in repr(FcmDevice.of_fid(FID))
