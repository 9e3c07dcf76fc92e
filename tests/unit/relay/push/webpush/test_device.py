import secrets

import pytest

from relay.domain.canary import SERVICE
from relay.domain.subscription import Subscription
from relay.push.webpush.device import OwnDevice, Unreadable
from relay.push.webpush.encryption import encrypt

CONTENT = b'{"v":1,"kind":"new-items"}'


def sealed(device: OwnDevice, content: bytes = CONTENT) -> bytes:
    own = Subscription.read(device.token)
    return encrypt(content, own.p256dh, own.auth, secrets.token_bytes(16))


def test_a_device_reads_what_was_encrypted_for_it() -> None:
    device = OwnDevice.make()

    assert device.open(sealed(device)) == CONTENT
    assert OwnDevice.read(device.key).open(sealed(device)) == CONTENT
    assert len(device.key) == 48


def test_its_push_service_is_no_host() -> None:
    own = Subscription.read(OwnDevice.make().token)

    assert own.service == SERVICE
    assert SERVICE.endswith(".invalid")


def test_another_device_or_a_changed_push_is_unreadable() -> None:
    device, body = OwnDevice.make(), sealed(OwnDevice.make())
    own = sealed(device)

    for wrong in (body, own[:-1], own[:40], b"", own[:-1] + bytes([own[-1] ^ 1])):
        with pytest.raises(Unreadable):
            device.open(wrong)


def test_a_push_without_an_end_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="no end"):
        OwnDevice.content_of(bytes(32))


def test_the_private_half_is_in_no_text() -> None:
    device = OwnDevice.make()

    assert "private" not in repr(device)
    assert device.auth.hex() not in repr(device)
