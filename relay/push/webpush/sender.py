"""The sender for push services: WebPush with encryption and VAPID [RFC 8030, 8291, 8292].

The endpoint of a subscription comes from a phone. So the relay sends requests only to services that webpush.hosts
lists, follows no redirect, reads an answer up to a limit and shows none of its text.
"""

import asyncio
import secrets
from dataclasses import replace
from hashlib import sha256
from random import Random
from types import TracebackType
from typing import Self

import aiohttp

from eas_watcher.breaker import Failure
from eas_watcher.peer_clocks import PeerClocks
from relay.domain.canary import SERVICE
from relay.domain.clock import Clock
from relay.domain.model import DuePush
from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater, TokenGone
from relay.domain.subscription import WINDOWS, Subscription, SubscriptionInvalid, is_listed
from relay.network.posting import Poster, Reply
from relay.network.route import DIRECT
from relay.push.egress.leaving import Egress, Unwritable, held
from relay.push.failures import read_failure
from relay.push.key_files import KeyFile
from relay.push.payload import WEB_APP, Notice, WebAppMessage, WebPushMessage
from relay.push.webpush.answers import PAGE, TAKEN, is_page, named_wait, own_fault, read_webpush
from relay.push.webpush.config import WebPushConfig
from relay.push.webpush.encryption import LENGTH, LONGER, SALT, encrypt
from relay.push.webpush.own_service import OwnDeviceService
from relay.push.webpush.services import Services
from relay.push.webpush.vapid import Vapid, read_key


class WebPushSender:
    """Sends pushes to the listed push services; use as an async context manager."""

    def __init__(
        self,
        config: WebPushConfig,
        clock: Clock,
        random: Random,
        egress: Egress,
        clocks: PeerClocks | None = None,
        *,
        receipts: bool = False,
        own: OwnDeviceService | None = None,
    ) -> None:
        """Read the VAPID key; raises ValueError or OSError when its file or the CA file cannot be used.

        `clocks` gets the dates of the push services' answers. With `receipts` a push has an id that its app may
        acknowledge. `own` takes the pushes to the relay's own device, if it has one.
        """
        self._own = own
        self._config = config
        self._receipts = receipts
        self._clock = clock
        self._egress = egress
        self.key_file = KeyFile("webpush.vapid_key_file", config.vapid_key_file, read_key)
        """The caller watches it for changes; a changed key is in use at once."""
        self.key_file.listen(self._take_key)
        self._vapid = Vapid(self.key_file.value, config.subject)
        alone = len(config.services) == 1 and WINDOWS not in config.services
        self._services = Services(None if alone else max(1, config.in_flight // 2), random)
        self._outer = Poster(config.ca_file, config.in_flight, config.route, clocks=clocks)
        self._inner = Poster(config.ca_file, config.in_flight, DIRECT, clocks=clocks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, push: DuePush) -> Outcome:
        """Send one push to the push service of its subscription; always returns within the time limit."""
        try:
            subscription = Subscription.read(push.device_token)
        except SubscriptionInvalid:
            return Refused("subscription-invalid", "let the app subscribe and register again", reach=Reach.HERE)
        service = subscription.service
        if not is_listed(service, self._config.services) and self._within(service) is None:
            remedy = f"list {service} in webpush.hosts if pushes may go there, else let the app use another service"
            return Refused("push-service-not-listed", remedy, reach=Reach.HERE)
        held = self._services.admit(service, push, _digest(push), _moment(), retried=push.attempts > 0)
        if held is not None:
            return RetryLater(held.reason, held.seconds, reach=Reach.HERE)
        try:
            return await self._send(push, subscription)
        finally:
            self._services.ended(service, push, _moment())

    @property
    def services(self) -> Services:
        """What the relay knows of the push services, for health."""
        return self._services

    async def close(self) -> None:
        """Close all connections; pushes under way end as RetryLater."""
        await self._outer.close()
        await self._inner.close()

    def _within(self, service: str) -> OwnDeviceService | None:
        """Return what takes the pushes to a service within this process; None: they go to its host."""
        return self._own if service == SERVICE else None

    def _take_key(self, pem: bytes) -> None:
        self._vapid = Vapid(pem, self._config.subject)
        self._services.key_changed()

    async def _send(self, push: DuePush, subscription: Subscription) -> Outcome:
        message, length = self._message(push)
        service, device = subscription.service, _digest(push)
        body = encrypt(message.content, subscription.p256dh, subscription.auth, secrets.token_bytes(SALT), length)
        lasting, named = False, None
        try:
            self._egress.webpush(push.app, push.device_token, message)
            async with asyncio.timeout(self._config.time_limit):
                reply = await self._post(push, subscription, message, body)
        except Unwritable as error:
            return held(error)
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            failure = read_failure(error, "webpush.ca_file")
            lasting = isinstance(failure, Refused)
            outcome: Outcome = self._of_one(service, failure)
        else:
            if reply.status in TAKEN and is_page(reply.body):
                outcome = PAGE
            else:
                proved = self._services.answered(service, push, device, reply.status, _moment())
                outcome = read_webpush(reply.status, reply.headers, self._clock(), proved=proved)
                named = named_wait(reply.headers, self._clock())
        match outcome:
            case RetryLater(reason, remedy=remedy):
                why = Failure(reason, certain=lasting, retry_after=named)
                own = self._services.failed(service, push, device, why, _moment(), remedy=remedy)
                # It concerns this one service: the others go on.
                waits = replace(outcome, provider=False)
                return own_fault(waits) if own else waits
            case Refused():
                # The VAPID token may have been made while the clock of this host was wrong.
                self._vapid.forget(service)
            case Delivered() | TokenGone():
                pass
        return outcome

    def _message(self, push: DuePush) -> tuple[WebPushMessage, int]:
        """Return the message, and the one length that all messages to such apps have."""
        notice, pages = Notice.of(push, receipt=self._receipts), self._config.pages
        if pages is not None and push.app == WEB_APP:
            return WebAppMessage(notice, pages), LONGER
        return WebPushMessage(notice), LENGTH

    def _of_one(self, service: str, failure: RetryLater | Refused) -> RetryLater | Refused:
        """Return the failure as one of this service alone, if the other services do not share its cause.

        A fault of the way out, e.g. a proxy's 407, does not concern the services inside.
        """
        others = isinstance(failure, Refused) and failure.one_host and len(self._config.services) > 1
        if others or (self._config.direct and not is_listed(service, self._config.direct)):
            return RetryLater(failure.reason, remedy=failure.remedy)
        return failure

    async def _post(self, push: DuePush, subscription: Subscription, message: WebPushMessage, body: bytes) -> Reply:
        headers = {
            **message.headers,
            **self._vapid.headers(subscription.service, self._clock()),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
        }
        within = self._within(subscription.service)
        if within is not None:
            return await within.post(push, headers, body)
        # The endpoint is used as the phone spelled it: another spelling of its path could be another path.
        http = self._inner if is_listed(subscription.service, self._config.direct) else self._outer
        return await http.post(subscription.endpoint, headers, body)


def _digest(push: DuePush) -> bytes:
    return sha256(push.device_token.encode()).digest()


def _moment() -> float:
    return asyncio.get_running_loop().time()
