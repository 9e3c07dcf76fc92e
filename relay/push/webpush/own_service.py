"""The push service of the relay's own device, within the process: it takes a push and says that it was shown.

These pushes are made, encrypted and logged as all others are, and end here instead of at a push service.
"""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from relay.domain.canary import Shown
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark, Platform
from relay.domain.ports.canary import CanaryDevice
from relay.domain.receipts import PushId
from relay.network.posting import Reply
from relay.push.webpush.device import OwnDevice, Unreadable

log = logging.getLogger(__name__)


class OwnDeviceService:
    """The push service of the relay's own device, within the process."""

    def __init__(self, store: CanaryDevice, clock: Clock) -> None:
        """Take the key of the device from `store`, and tell it what was shown."""
        self._store = store
        self._clock = clock
        self._device: OwnDevice | None = None

    async def post(self, push: DuePush, headers: Mapping[str, str], body: bytes) -> Reply:
        """Take a push as a push service and its device do: 201, 410 if the device was replaced, or 401, or 400.

        Raises OSError while the database cannot be told what was shown: the push is sent again then.
        """
        now = self._clock()
        try:
            device = await self._present(push.device_token)
            if device is None:
                return Reply(HTTPStatus.GONE, {}, b"")
            if "Authorization" not in headers:
                return Reply(HTTPStatus.UNAUTHORIZED, {}, b"")
            shown = _shown(device.open(body), push)
            if shown is not None:
                await self._store.shown(Platform.WEBPUSH, Shown(shown.noticed_at, now))
        except Unreadable:
            log.warning("canary push unreadable: a phone could not read such a push either")
            return Reply(HTTPStatus.BAD_REQUEST, {}, b"")
        except StoreUnavailable as error:
            raise OSError("the database is away") from error
        return Reply(HTTPStatus.CREATED, {}, b"")

    async def _present(self, token: str) -> OwnDevice | None:
        """Return the device of a token, which another process may have made just now."""
        if self._device is None or self._device.token != token:
            found = await self._store.device()
            self._device = None if found is None else OwnDevice.read(found[1])
        return self._device if self._device is not None and self._device.token == token else None


def _shown(content: bytes, push: DuePush) -> PushId | None:
    """Return the id of a push that a person would see, as the device reads it."""
    data: Mapping[str, Any] = json.loads(content)
    if data.get("kind") != "new-items" or data.get("class") != Mark.EMAIL.value:
        return None
    return PushId.open(str(data.get("id", "")), push.mailbox_id, push.registration_id)
