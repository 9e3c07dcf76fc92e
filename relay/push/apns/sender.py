"""The adapter that sends pushes to APNs: a push becomes a request, an answer or a failure becomes an outcome."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from aioapns import NotificationRequest, PushType

from eas_watcher.http2.keepalive import KEEPALIVE_TIMINGS, KeepaliveTimings
from eas_watcher.retry_after import retry_after
from eas_watcher.transport.deadlines import Deadlines
from relay.domain.clock import Clock
from relay.domain.model import DuePush, Environment
from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater
from relay.network.dialling import Dialler
from relay.push.apns.accounts import Account
from relay.push.apns.answers import read_apns
from relay.push.apns.config import ApnsAccount, ApnsConfig
from relay.push.apns.exchange import Answer, MaybeSent, NotSent, Request
from relay.push.egress.leaving import Egress, Unwritable, held
from relay.push.failures import read_failure
from relay.push.key_files import KeyFile
from relay.push.payload import ApnsMessage, Notice
from relay.push.stats import AccountState

HEX: Final = re.compile(r"[0-9a-fA-F]{2,200}", re.ASCII)

TRIES: Final = 4
"""Attempts at most in one go: each but the first follows a proof that the server did not process the one before, or the
one doubt that a push is allowed."""

CLOSING: Final = 2.0
"""Seconds that pushes in flight may take when the sender is closed; the dispatcher has waited before."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

CUT: Final = "see whether a firewall or a proxy on the way cuts connections, and whether what answers there is APNs"

PUSH_TYPES: Final = {"alert": PushType.ALERT, "background": PushType.BACKGROUND}


class ApnsSender:
    """A sender for both environments of APNs; use it as an async context manager."""

    def __init__(
        self,
        config: ApnsConfig,
        egress: Egress,
        clock: Clock,
        random: Random,
        *,
        timings: KeepaliveTimings = KEEPALIVE_TIMINGS,
        receipts: bool = False,
    ) -> None:
        """Read keys and certificates; raises ValueError or OSError when one is invalid or no topic is configured.

        With `receipts` a push has an id that its app may acknowledge.
        """
        self._config = config
        self._receipts = receipts
        self._egress = egress
        self._clock = clock
        self._deadlines = Deadlines()
        dialler = Dialler(config.route)
        self.time_limit = config.time_limit
        """Seconds for one push, with the time to connect; a new value counts for the next push."""
        self.accounts = [
            Account(account, config, dialler, timings, random, clock, self._record) for account in config.accounts
        ]
        """The accounts with their connections, in the order of the configuration."""
        self._by_app: dict[tuple[str, Environment], Account] = {
            (topic, environment): account
            for described, account in zip(config.accounts, self.accounts, strict=True)
            for topic in described.topics
            for environment in described.environments
        }
        if not self._by_app:
            raise ValueError("apns.topics names no app")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def key_files(self) -> list[KeyFile[Any]]:
        """The files to watch for changes, one for each account."""
        return [account.file for account in self.accounts]

    @property
    def states(self) -> tuple[AccountState, ...]:
        """The accounts of now, in the order of the configuration."""
        return tuple(map(_state, self._config.accounts, self.accounts))

    async def send(self, push: DuePush) -> Outcome:
        """Send one push to APNs; returns within the time limit and a second in every case."""
        account = self._by_app.get((push.app, push.environment))
        if account is None or not is_device_token(push.device_token):
            return _refusal(push, self._by_app)
        request = self._request(push)
        try:
            with self._deadlines.within(self.time_limit):
                answer = await self._deliver(account, push.environment, request)
        except Unwritable as error:
            return held(error)
        except (NotSent, MaybeSent, TimeoutError, OSError) as error:
            return _unanswered(error)
        return self._read(answer)

    async def close(self) -> None:
        """Cut all connections, after a short time for pushes in flight; those without an answer then are RetryLater."""
        async with asyncio.TaskGroup() as tasks:
            for account in self.accounts:
                tasks.create_task(account.drain(CLOSING))

    def _read(self, answer: Answer) -> Outcome:
        result = answer.result
        if result.is_successful:
            return Delivered(result.notification_id)
        after = retry_after(answer.retry_after, self._clock())
        return read_apns(int(result.status), result.description or "", result.timestamp, after)

    async def _deliver(self, account: Account, environment: Environment, request: Request) -> Answer:
        """Send a request and return its answer; raises the error of the last attempt.

        Sends again at once what was not sent, once what was maybe sent, and once more when the provider token has
        expired.
        """
        pool = account.pool(environment)
        left, doubted, renewed = TRIES, False, False
        while True:
            left -= 1
            try:
                answer = await pool.send(request)
            except NotSent:
                if not left:
                    raise
            except MaybeSent:
                if doubted or not left:
                    raise
                doubted = True
            else:
                if renewed or not _expired(account, answer):
                    return answer
                left, doubted, renewed = TRIES, False, True

    def _record(self, requests: Sequence[Request]) -> None:
        """Record requests that are about to leave, each time that they are: raises Unwritable."""
        self._egress.apns([request.leaving for request in requests])

    def _request(self, push: DuePush) -> Request:
        notice = Notice.of(push, receipt=self._receipts)
        message = ApnsMessage(notice)
        shape = message.shape
        notification = NotificationRequest(
            push.device_token,
            {},  # the body goes out as the template rendered it
            notification_id=message_id(push),
            priority=shape.priority,
            collapse_key=notice.collapse_id,
            push_type=PUSH_TYPES[shape.push_type],
            apns_topic=push.app,
        )
        expires_at = int(self._clock().timestamp()) + shape.lifetime
        return Request(notification, message, expires_at)


def message_id(push: DuePush) -> str:
    """Return the apns-id of a push; it is made of the push's marks, so a repetition has the same id even after a crash.

    The id reveals nothing, not even to somebody who tries all moments: in the hash is the id of the mailbox, too, which
    is random and never leaves the company.
    """
    since = push.first_at - EPOCH
    moment = f"{since.days}.{since.seconds}.{since.microseconds}"
    name = f"{push.mailbox_id}/{push.registration_id}/{push.mark}/{moment}/{push.generation}"
    # A UUID of version 8, which is a hash of our choice [RFC 9562 5.8, B.2]; the second 8 is the variant [4.1].
    digest = blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"


def _expired(account: Account, answer: Answer) -> bool:
    """Return True if the provider token of a request has expired and there is another one to try."""
    if answer.result.description != "ExpiredProviderToken" or account.tokens is None:
        return False
    return account.tokens.expired(answer.authorization, asyncio.get_running_loop().time())


def is_device_token(text: str) -> bool:
    """Return True for hex of up to 100 bytes [Apple: Registering your app with APNs].

    It becomes a path, so nothing else may pass.
    """
    return len(text) % 2 == 0 and HEX.fullmatch(text) is not None


def _state(described: ApnsAccount, account: Account) -> AccountState:
    failed = None if account.failure is None else _unanswered(account.failure)
    return AccountState(
        described.table,
        tuple(sorted(described.topics)),
        tuple(each for each in Environment if each in described.environments),
        account.in_flight,
        "" if failed is None else failed.reason,
        "" if failed is None else failed.remedy,
    )


def _unanswered(error: Exception) -> RetryLater | Refused:
    """Return the outcome of a push that has no answer."""
    if not isinstance(error, NotSent | MaybeSent):
        return read_failure(error, "apns.ca_file")
    concerns_all = error.ending.concerns_all
    return RetryLater(str(error), remedy=CUT if concerns_all else "", provider=concerns_all)


def _refusal(push: DuePush, by_app: Mapping[tuple[str, Environment], Account]) -> Refused:
    if not is_device_token(push.device_token):
        remedy = "let the app register again; the device token is no hex text"
        return Refused("malformed-device-token", remedy, reach=Reach.HERE)
    if any(topic == push.app for topic, _ in by_app):
        name = push.environment.value
        remedy = f"no key or certificate of this app is for {name}: add one under apns.accounts, or environments of one"
        return Refused("environment-not-configured", remedy, reach=Reach.HERE)
    remedy = "add the app's bundle id to apns.topics, or to those of an account"
    return Refused("topic-not-configured", remedy, reach=Reach.HERE)
