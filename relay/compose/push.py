"""Builds the push role: a sender and a dispatcher for each configured provider."""

import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

from relay.compose.running import Running
from relay.domain.model import Platform
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Capacities, Capacity, PushSender
from relay.push import key_files
from relay.push.apns.sender import ApnsSender
from relay.push.breaker import unbounded
from relay.push.challenges import ChallengingSender
from relay.push.dispatch import Dispatcher
from relay.push.egress.log import EgressLog, Limits, open_egress_log
from relay.push.fcm.sender import FcmSender
from relay.push.webpush.sender import WebPushSender
from relay.store.challenges import SqlChallengeStore
from relay.store.outbox import SqlOutboxStore


async def open_push(running: Running, stack: AsyncExitStack) -> None:
    """Open the egress log and the senders, and add the jobs that push."""
    settings, now = running.settings, running.now
    push = settings.push
    pacing = Pacing(push.coalesce, push.jitter, timedelta(seconds=push.expire), running.random)
    store = SqlOutboxStore(running.database, running.wakeups, pacing, running.unreadable)
    running.looks.append(store.look_again)
    if settings.database.file is not None:
        # This process holds the lock of the database, so the process that made any claim has ended.
        await store.release(None)
    logged = settings.egress
    limits = Limits(logged.largest, logged.keep, logged.most)
    egress = stack.enter_context(
        open_egress_log(logged.folder, now, limits, state=settings.state_dir, key_file=logged.key_file)
    )
    running.egress = egress
    running.jobs.append(("egress log", egress.run))
    # A dispatcher claims only as many pushes as may be in flight: the time limit of others would pass in a queue.
    senders: dict[Platform, tuple[PushSender, int]] = {}
    capacities: dict[Platform, Capacities] = {}
    if settings.apns is not None:
        apns = await stack.enter_async_context(ApnsSender(settings.apns, egress, now, running.random))
        running.key_files += apns.key_files
        senders[Platform.APNS] = apns, settings.apns.in_flight
    if settings.fcm is not None:
        fcm = await stack.enter_async_context(FcmSender(settings.fcm, now, running.random, egress, running.clocks))
        running.key_files.append(fcm.key_file)
        senders[Platform.FCM] = fcm, settings.fcm.in_flight
    if settings.webpush.sender is not None:
        webpush = await stack.enter_async_context(
            WebPushSender(settings.webpush.sender, now, running.random, egress, running.clocks)
        )
        running.key_files.append(webpush.key_file)
        running.push_services = webpush.services
        capacities[Platform.WEBPUSH] = webpush.services.capacities
        senders[Platform.WEBPUSH] = webpush, settings.webpush.sender.in_flight
    running.jobs.append(("key files", partial(key_files.watch, running.key_files)))
    challenges = SqlChallengeStore(running.database)
    for platform, (sender, slots) in senders.items():
        dispatcher = Dispatcher(
            store,
            platform,
            ChallengingSender(sender, challenges, now, secrets.token_urlsafe),
            running.wakeups,
            now,
            running.random,
            running.node,
            slots=slots,
            capacities=partial(_capacities, egress, capacities.get(platform, unbounded)),
            pacing=pacing,
            timeline=running.timeline,
        )
        running.handovers.add(dispatcher)
        running.pushes[platform] = dispatcher.stats
        for file in running.key_files:
            if file.setting.startswith(f"{platform.value}."):
                file.listen(partial(_hurry, dispatcher))
        running.jobs.append((f"pushes through {platform.value}", dispatcher.run))


def _capacities(egress: EgressLog, others: Capacities, now: float) -> Iterator[Capacity]:
    """List the lanes where a sender takes few pushes, and all while what leaves cannot be logged."""
    yield from egress.capacities(now)
    yield from others(now)


def _hurry(dispatcher: Dispatcher, _: object) -> None:
    """Retry at once the pushes that wait for the right key, whose file has changed."""
    dispatcher.hurry()
