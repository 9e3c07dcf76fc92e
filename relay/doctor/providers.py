"""The providers of the push role: asked by the senders that push, for a device that nobody has.

What leaves is one of the relay's templates, with a made-up registration and a made-up device token: `MadeUpOnly` lets
nothing else pass. It is not in the egress log, which the relay that runs writes (ADR 0032).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

from eas_watcher.names import MailboxId
from eas_watcher.own_thread import in_own_thread
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.tools.probe.finding import Grade
from relay.doctor.finding import Finding, Subject
from relay.doctor.reaching import Place, Proxies, ProxyUse, place_of
from relay.domain.clock import Clock
from relay.domain.devices import NO_IPHONE
from relay.domain.model import DuePush, Environment, Mark, Mode, Platform, RegistrationId
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.domain.subscription import WINDOWS
from relay.network.route import DIRECT, Route
from relay.push.apns.answers import TOKEN
from relay.push.apns.config import ApnsConfig
from relay.push.apns.sender import ApnsSender
from relay.push.egress.leaving import Egress, Leaving, Unwritable
from relay.push.fcm.account import ServiceAccount
from relay.push.fcm.config import FcmAccount, FcmConfig
from relay.push.fcm.sender import FcmSender
from relay.push.payload import WebPushMessage
from relay.push.webpush.config import WebPushConfig
from relay.push.webpush.vapid import Vapid, public_key, read_key

ANSWER: Final = 6.0  # seconds for one question, connecting and its token included
MADE_UP_FCM: Final = f"{'0' * 22}:APA91b{'0' * 134}"
"""A device token of FCM's form that no device has."""
NOBODY: Final = RegistrationId("push-relay-doctor")
FILE: Final = "correct what is said of the file above"
TOO_OFTEN: Final = frozenset({"TooManyProviderTokenUpdates", "TooManyRequests"})
INVALID: Final = "INVALID_ARGUMENT"
"""FCM's answer to a device token that is none, once it has accepted the service account."""


class MadeUpOnly(Egress):
    """Lets pushes to made-up devices leave, and nothing else."""

    def apns(self, pushes: Sequence[Leaving]) -> None:
        """Raise Unwritable for a push to a device that may exist."""
        for push in pushes:
            _refuse_real(push.device_token, NO_IPHONE)

    def fcm(self, app: str, device_token: str, body: bytes) -> None:  # noqa: ARG002 -- the port's signature
        """Raise Unwritable for a push to a device that may exist."""
        _refuse_real(device_token, MADE_UP_FCM)

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:  # noqa: ARG002 -- the port's signature
        """Raise Unwritable: the doctor sends nothing to push services."""
        raise Unwritable("the doctor sends nothing to push services")


def _refuse_real(device_token: str, made_up: str) -> None:
    if device_token != made_up:
        raise Unwritable("the doctor pushes to no device that may exist")


class Providers:
    """Asks APNs, FCM and push services by their own routes."""

    def __init__(self, now: Clock, random: Random, clocks: PeerClocks, proxies: Proxies) -> None:
        """`clocks` gets the dates of answers; `proxies` are asked whether they are of use."""
        self._now = now
        self._random = random
        self._clocks = clocks
        self._proxies = proxies

    async def _behind(self, place: Place, ask: Callable[[], Awaitable[Sequence[Finding]]]) -> Sequence[Finding]:
        """Return the findings about the way to a place, and what `ask` finds if the way is open."""
        way = await self._proxies.reach(place)
        return [*way.findings, *(await ask() if way.open else ())]

    async def look_at_apns(self, config: ApnsConfig, environment: Environment) -> Sequence[Finding]:
        """Return the findings about one environment of APNs: each app of each account is tried."""
        endpoint = config.endpoints[environment]
        name = f"apns {environment.value}"
        place = Place(name, endpoint.host, endpoint.port, config.ca_file, "apns.ca_file", config.route)
        return await self._behind(place, lambda: self._try_apns(config, environment))

    async def _try_apns(self, config: ApnsConfig, environment: Environment) -> Sequence[Finding]:
        """Push to a made-up device through each account that is for an environment."""
        accounts = [account for account in config.accounts if environment in account.environments]
        wanted = [(account.table, topic) for account in accounts for topic in sorted(account.topics)]
        try:
            sender = ApnsSender(replace(config, time_limit=ANSWER), MadeUpOnly(), self._now, self._random)
        except (OSError, ValueError) as error:
            return [Subject("push", f"apns {environment.value}").bad(f"not asked: {error}", FILE)]
        async with sender:
            pushes = [_push(Platform.APNS, topic, environment, NO_IPHONE, self._now) for _, topic in wanted]
            outcomes = await asyncio.gather(*map(sender.send, pushes))
        return [
            judge_apns(Subject("push", f"{table} {environment.value}"), topic, outcome)
            for (table, topic), outcome in zip(wanted, outcomes, strict=True)
        ]

    async def look_at_fcm(self, config: FcmConfig) -> Sequence[Finding]:
        """Return the findings about FCM and the endpoint of its access tokens: each project validates a push.

        Nothing is sent. A project whose file cannot be used is named, and the others are asked.
        """
        found: list[Finding] = []
        endpoint = place_of("fcm.url", config.endpoint, config.ca_file, "fcm.ca_file", config.route)
        places = {(endpoint.host, endpoint.port): endpoint}
        usable: list[FcmAccount] = []
        for account in config.accounts:
            try:
                token_uri = await in_own_thread(partial(_token_uri, account, config.endpoint), "a check of a disk")
            except (OSError, ValueError) as error:
                found.append(Subject("push", account.table).bad(f"not asked: {error}", FILE))
                continue
            name = f"{account.table} token_uri"
            place = place_of(name, token_uri, config.ca_file, "fcm.ca_file", config.route)
            places.setdefault((place.host, place.port), place)
            usable.append(account)
        if not usable:
            return found
        ways = await asyncio.gather(*(self._behind(place, _nothing) for place in places.values()))
        way = [finding for each in ways for finding in each]
        found += way
        if any(finding.grade in {Grade.BAD, Grade.SKIPPED} for finding in way):
            return found
        asked = replace(config, accounts=tuple(usable), time_limit=ANSWER)
        async with FcmSender(asked, self._now, self._random, MadeUpOnly(), self._clocks) as sender:
            apps = [min(account.apps) for account in usable]  # all apps of a project are pushed to in the same way
            pushes = [_push(Platform.FCM, app, Environment.PRODUCTION, MADE_UP_FCM, self._now) for app in apps]
            outcomes = await asyncio.gather(*map(sender.validate, pushes))
        judged = zip(usable, outcomes, strict=True)
        return [*found, *(judge_fcm(Subject("push", account.table), outcome) for account, outcome in judged)]

    async def look_at_service(self, config: WebPushConfig, service: str) -> Sequence[Finding]:
        """Return the findings about the way to a push service."""
        route = DIRECT if service in config.direct else config.route
        place = place_of(f"webpush {service}", f"https://{service}", config.ca_file, "webpush.ca_file", route)
        return await self._behind(place, _nothing)


def proxies(apns: ApnsConfig | None, fcm: FcmConfig | None, webpush: WebPushConfig | None) -> list[ProxyUse]:
    """Return the proxies of all routes, each once, with the first host that it is used for."""
    wanted: list[tuple[Route, str, int]] = []
    if apns is not None:
        wanted.append((apns.route, apns.host, apns.port))
    if fcm is not None:
        place = place_of("", fcm.endpoint, None, "")
        wanted.append((fcm.route, place.host, place.port))
    if webpush is not None:
        outside = sorted(webpush.services - webpush.direct - {WINDOWS})
        places = [place_of("", f"https://{service}", None, "") for service in outside]
        wanted += [(webpush.route, place.host, place.port) for place in places]
    found: dict[Proxy, ProxyUse] = {}
    for route, host, port in wanted:
        if route.proxy is not None:
            found.setdefault(route.proxy, ProxyUse(route.proxy, route.sources, host, port))
    return list(found.values())


def look_at_vapid(config: WebPushConfig, now: Clock) -> Finding:
    """Return the finding about the key that identifies the relay to push services: it signs for each of them."""
    subject = Subject("VAPID", "webpush.vapid_key_file")
    try:
        pem = read_key(config.vapid_key_file)
        vapid = Vapid(pem, config.subject)
        for service in sorted(config.services - {WINDOWS}):
            vapid.headers(service, now())
    except (OSError, ValueError) as error:
        return subject.bad(
            f"cannot be used: {error}", "restore the key from your backup: subscriptions were made for it"
        )
    return subject.good(f"signs for the push services of webpush.hosts; apps subscribe with {public_key(pem)[:16]}...")


def judge_apns(subject: Subject, topic: str, outcome: Outcome) -> Finding:
    """Return the finding about Apple's answer to a push to a made-up device: it must say that there is none."""
    match outcome:
        case Refused(reason) if reason in TOKEN:
            return subject.good(f"Apple takes the key for {topic}, and knows no such device ({reason})")
        case TokenGone(reason):
            return subject.good(f"Apple takes the key for {topic}, and knows no such device ({reason})")
        case Delivered():
            remedy = "see what answers at apns.host and apns.sandbox_host: Apple refuses this device token"
            return subject.bad(f"a push of {topic} to a device that does not exist was taken", remedy)
        case RetryLater(reason, _, remedy) if reason in TOO_OFTEN:
            return subject.note(f"{topic}: Apple was asked too often ({reason})", remedy or "ask again in half an hour")
        case RetryLater(reason, _, remedy) | Refused(
            reason, remedy
        ):  # pragma: no branch -- mypy proves that there is no other
            return subject.bad(f"{topic}: {reason}", remedy or "wait: Apple cannot answer now")


def judge_fcm(subject: Subject, outcome: Outcome) -> Finding:
    """Return the finding about FCM's answer to a push that it only validates."""
    taken = "FCM takes the service account and would send"
    match outcome:
        case Delivered():
            return subject.good(taken)
        case TokenGone(reason):
            return subject.good(f"{taken}; it knows no such device ({reason})")
        case Refused(reason, _, False) if reason.startswith(INVALID):
            return subject.good(f"{taken}; it knows no such device ({reason})")
        case RetryLater(reason, _, remedy) | Refused(
            reason, remedy
        ):  # pragma: no branch -- mypy proves that there is no other
            return subject.bad(reason, remedy or "wait: Google cannot answer now")


def _token_uri(account: FcmAccount, endpoint: str) -> str:
    """Return where a service account gets its tokens; raises OSError, ValueError if its file is not usable."""
    return ServiceAccount(account.service_account_file.read_bytes(), endpoint).token_uri


async def _nothing() -> Sequence[Finding]:
    return ()


def _push(platform: Platform, app: str, environment: Environment, device_token: str, now: Clock) -> DuePush:
    """Return a test push to a made-up device."""
    return DuePush(
        registration_id=NOBODY,
        mark=Mark.TEST,
        count=1,
        certain=True,
        generation=1,
        attempts=0,
        first_at=now(),
        last_at=now(),
        platform=platform,
        app=app,
        environment=environment,
        device_token=device_token,
        token_since=now(),
        mode=Mode.ALERT,
        locale="en",
        mailbox_id=MailboxId(NOBODY),
    )
