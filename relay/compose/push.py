"""Builds the push role: a sender and a dispatcher for each provider, and what other settings change of them."""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol

from relay.compose.running import Running, Take
from relay.domain.errors import SettingsInvalid
from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Outcome
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Capacities, Capacity
from relay.domain.shadow import Shadow
from relay.push import key_files
from relay.push.apns.sender import ApnsSender
from relay.push.breaker import unbounded
from relay.push.challenges import ChallengingSender
from relay.push.dispatch import Dispatcher
from relay.push.egress.log import EgressLog, Limits, open_egress_log
from relay.push.fcm.projects import Projects
from relay.push.fcm.sender import FcmSender
from relay.push.key_files import KeyFile
from relay.push.shadow import ShadowingSender
from relay.push.stats import Accounts
from relay.push.webpush.own_service import OwnDeviceService
from relay.push.webpush.sender import WebPushSender
from relay.push.webpush.services import Services
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.settings.values import EgressSettings
from relay.store.canary import SqlCanaryStore
from relay.store.challenges import SqlChallengeStore
from relay.store.outbox import SqlOutboxStore

PROXY_CA: Final = "network.proxy_ca_file"


async def open_push(running: Running, stack: AsyncExitStack) -> None:
    """Open the egress log and the senders, and add the jobs that push."""
    settings, now = running.settings, running.now
    pacing = _pacing(running, settings)
    store = SqlOutboxStore(running.database, running.wakeups, pacing, running.unreadable)
    running.looks.append(store.look_again)
    if settings.database.file is not None:
        # This process holds the lock of the database, so the process that made any claim has ended.
        await store.release(None)
    logged = settings.egress
    egress = stack.enter_context(
        open_egress_log(logged.folder, now, _limits(logged), state=settings.state_dir, key_file=logged.key_file)
    )
    running.egress = egress
    running.jobs.append(("egress log", egress.run))
    providers = [
        _Provider(platform, built, running, egress, stack)
        for platform in Platform
        if (built := _build(platform, settings, running, egress)) is not None
    ]
    running.jobs.append(("key files", partial(key_files.watch, running.key_files)))
    challenges = SqlChallengeStore(running.database)
    shadow = running.shadow = Shadow(settings.push.mode)
    for provider in providers:
        provider.open(store, challenges, shadow, pacing)

    async def prepare(found: Settings, changes: Changes) -> Take | None:
        if not changes.touch("apns", "fcm", "webpush", "canary", "network", "push", "egress"):
            return None
        fresh = [(each, each.rebuilt(running.settings, found, changes)) for each in providers]

        async def take() -> None:
            egress.limits = _limits(found.egress)
            store.pacing = _pacing(running, found)
            shadow.follow(found.push.mode, running.now())
            for provider, built in fresh:
                provider.follow(built, store.pacing)
            for file in running.key_files:
                await file.look()

        return take

    running.takers.append(prepare)


class _Sender(Protocol):
    """A sender that can be closed."""

    async def send(self, push: DuePush) -> Outcome: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Built:
    """A sender as some settings have it."""

    sender: _Sender
    slots: int
    """Pushes at once: a dispatcher claims only as many, since the time limit of others would pass in a queue."""
    files: Sequence[KeyFile[Any]]
    capacities: Capacities = unbounded
    accounts: Accounts | None = None
    services: Services | None = None
    projects: Projects | None = None
    under_way: int = 0
    """Pushes that the sender has."""


class _Provider:
    """One provider: its sender, which may be replaced while pushes are under way, and its dispatcher."""

    def __init__(
        self, platform: Platform, built: _Built, running: Running, egress: EgressLog, stack: AsyncExitStack
    ) -> None:
        self.platform = platform
        self._present = built
        self._running = running
        self._egress = egress
        self._closing: set[asyncio.Task[None]] = set()
        self._dispatcher: Dispatcher | None = None
        stack.push_async_callback(self._close)
        self._add(built)

    def open(self, store: SqlOutboxStore, challenges: SqlChallengeStore, shadow: Shadow, pacing: Pacing) -> None:
        """Add the dispatcher."""
        running = self._running
        challenging = ChallengingSender(self, challenges, running.now, secrets.token_urlsafe)
        dispatcher = self._dispatcher = Dispatcher(
            store,
            self.platform,
            ShadowingSender(challenging, shadow, store),
            running.wakeups,
            running.now,
            running.random,
            running.node,
            slots=self._present.slots,
            capacities=self._capacities,
            pacing=pacing,
            timeline=running.timeline,
            traces=running.traces,
        )
        running.handovers.add(dispatcher)
        running.pushes[self.platform] = dispatcher.stats
        running.jobs.append((f"pushes through {self.platform.value}", dispatcher.run))

    async def send(self, push: DuePush) -> Outcome:
        """Send one push through the present sender."""
        built = self._present
        built.under_way += 1
        try:
            return await built.sender.send(push)
        finally:
            built.under_way -= 1
            if built is not self._present and not built.under_way:
                self._begin(built.sender.close())

    def rebuilt(self, before: Settings, found: Settings, changes: Changes) -> _Built | None:
        """Return the sender that other settings want; None: the present one. Raises SettingsInvalid."""
        table = self.platform.value
        ca_files = any(key in changes.live for key in (f"{table}.ca_file", PROXY_CA))
        if _config(self.platform, before) == _config(self.platform, found) and not ca_files:
            return None  # a key file with another content is no other sender: KeyFile takes it
        try:
            return _build(self.platform, found, self._running, self._egress)
        except (OSError, ValueError) as error:  # files that have changed once more since they were checked
            wrong = f"cannot be used: {type(error).__name__}"
            raise SettingsInvalid([(table, wrong, "Give the files that it names.")]) from error

    def follow(self, built: _Built | None, pacing: Pacing) -> None:
        """Send through another sender from now on, if there is one; what is under way ends with the old one."""
        if self._dispatcher is not None:
            self._dispatcher.pacing = pacing
        if built is None:
            return
        old, self._present = self._present, built
        for file in old.files:
            self._running.key_files.remove(file)
        self._add(built)
        if not old.under_way:
            self._begin(old.sender.close())
        if self._dispatcher is not None:
            self._dispatcher.slots = built.slots
            self._dispatcher.hurry()

    def _add(self, built: _Built) -> None:
        for file in built.files:
            file.listen(self._hurry)
        self._running.key_files += built.files
        if built.accounts is not None:
            self._running.apns_accounts = built.accounts
        if built.services is not None:
            self._running.push_services = built.services
        if built.projects is not None:
            self._running.fcm_projects = built.projects

    def _hurry(self, _: object) -> None:
        """Retry at once the pushes that wait for the right key, whose file has changed."""
        if self._dispatcher is not None:
            self._dispatcher.hurry()

    def _capacities(self, now: float) -> Sequence[Capacity]:
        """List the lanes where the sender takes few pushes, and all while what leaves cannot be logged."""
        return [*self._egress.capacities(now), *self._present.capacities(now)]

    def _begin(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(closing, name=f"close {self.platform.value}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self) -> None:
        await self._present.sender.close()
        await asyncio.gather(*self._closing)


def _config(platform: Platform, settings: Settings) -> object:
    match platform:
        case Platform.APNS:
            return settings.apns, settings.push.receipts
        case Platform.FCM:
            return settings.fcm, settings.push.receipts
        case Platform.WEBPUSH:
            return settings.webpush.sender, settings.push.receipts, _has_own_device(settings)


def _build(platform: Platform, settings: Settings, running: Running, egress: EgressLog) -> _Built | None:
    """Build the sender of a provider; None if it is not configured. Raises OSError, ValueError."""
    now, random, receipts = running.now, running.random, settings.push.receipts
    match platform:
        case Platform.APNS if settings.apns is not None:
            apns = ApnsSender(settings.apns, egress, now, random, receipts=receipts)
            return _Built(apns, settings.apns.in_flight, apns.key_files, accounts=apns)
        case Platform.FCM if settings.fcm is not None:
            fcm = FcmSender(settings.fcm, now, random, egress, running.clocks, receipts=receipts)
            in_flight, projects = settings.fcm.in_flight, fcm.projects
            return _Built(fcm, in_flight, fcm.key_files, projects.capacities, projects=projects)
        case Platform.WEBPUSH if settings.webpush.sender is not None:
            config = settings.webpush.sender
            own = OwnDeviceService(SqlCanaryStore(running.database), now) if _has_own_device(settings) else None
            webpush = WebPushSender(config, now, random, egress, running.clocks, receipts=receipts, own=own)
            services = webpush.services
            return _Built(webpush, config.in_flight, [webpush.key_file], services.capacities, services=services)
        case _:
            return None


def _has_own_device(settings: Settings) -> bool:
    return settings.canary is not None and Platform.WEBPUSH in settings.canary.goal.platforms


def _pacing(running: Running, settings: Settings) -> Pacing:
    push = settings.push
    return Pacing(push.coalesce, push.jitter, timedelta(seconds=push.expire), running.random)


def _limits(logged: EgressSettings) -> Limits:
    return Limits(logged.largest, logged.keep, logged.most)
