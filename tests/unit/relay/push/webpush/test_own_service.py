import secrets
from dataclasses import replace
from datetime import timedelta

import pytest

from relay.domain.canary import Shown
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark, Platform, RegistrationId
from relay.domain.subscription import Subscription
from relay.push.payload import Notice, WebPushMessage
from relay.push.webpush.device import OwnDevice
from relay.push.webpush.encryption import encrypt
from relay.push.webpush.own_service import OwnDeviceService
from tests.unit.relay.push.pushes import BEGAN, due_push

NOW = BEGAN + timedelta(seconds=3)
HEADERS = {"Authorization": "vapid t=..., k=..."}


class Store:
    def __init__(self, device: OwnDevice | None) -> None:
        self.key = None if device is None else device.key
        self.seen: list[tuple[Platform, Shown]] = []
        self.looks = 0
        self.away = False

    async def device(self) -> tuple[RegistrationId, bytes] | None:
        self.looks += 1
        return None if self.key is None else (RegistrationId("r"), self.key)

    async def shown(self, platform: Platform, shown: Shown) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.seen.append((platform, shown))


def push_to(device: OwnDevice, mark: Mark = Mark.EMAIL) -> DuePush:
    return due_push(platform=Platform.WEBPUSH, device_token=device.token, mark=mark)


def body_of(push: DuePush) -> bytes:
    own = Subscription.read(push.device_token)
    message = WebPushMessage(Notice.of(push, receipt=True))
    return encrypt(message.content, own.p256dh, own.auth, secrets.token_bytes(16))


async def test_the_device_says_what_it_showed_and_when() -> None:
    device = OwnDevice.make()
    store = Store(device)
    service, push = OwnDeviceService(store, lambda: NOW), push_to(device)

    for _ in range(2):
        assert (await service.post(push, HEADERS, body_of(push))).status == 201

    assert store.seen == [(Platform.WEBPUSH, Shown(BEGAN, NOW))] * 2
    assert store.looks == 1


async def test_it_shows_no_other_push() -> None:
    device = OwnDevice.make()
    store = Store(device)
    service = OwnDeviceService(store, lambda: NOW)

    for mark in (Mark.ATTENTION, Mark.TEST, Mark.CALENDAR):
        push = push_to(device, mark)
        assert (await service.post(push, HEADERS, body_of(push))).status == 201

    assert store.seen == []


async def test_a_device_that_was_replaced_is_gone() -> None:
    former, device = OwnDevice.make(), OwnDevice.make()
    service = OwnDeviceService(Store(device), lambda: NOW)
    push = push_to(former)
    assert (await service.post(push, HEADERS, body_of(push))).status == 410

    nobody = OwnDeviceService(Store(None), lambda: NOW)
    assert (await nobody.post(push, HEADERS, body_of(push))).status == 410


async def test_a_push_without_proof_of_its_sender_or_unreadable_is_not_shown() -> None:
    device = OwnDevice.make()
    store = Store(device)
    service, push = OwnDeviceService(store, lambda: NOW), push_to(device)

    assert (await service.post(push, {}, body_of(push))).status == 401
    assert (await service.post(push, HEADERS, body_of(push_to(OwnDevice.make())))).status == 400
    assert store.seen == []


async def test_a_push_of_another_registration_is_not_shown() -> None:
    device = OwnDevice.make()
    store = Store(device)
    service, push = OwnDeviceService(store, lambda: NOW), push_to(device)

    other = replace(push, registration_id=RegistrationId("another"))
    assert (await service.post(other, HEADERS, body_of(push))).status == 201
    assert store.seen == []


async def test_a_push_waits_while_the_database_cannot_be_told() -> None:
    device = OwnDevice.make()
    store = Store(device)
    store.away = True
    push = push_to(device)

    with pytest.raises(OSError, match="database"):
        await OwnDeviceService(store, lambda: NOW).post(push, HEADERS, body_of(push))
