"""Test what health and metrics count."""

from datetime import timedelta

import pytest

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.reasons import Reason
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Environment, Mark, Platform, RegistrationState
from relay.domain.outcome import Refused, RetryLater
from relay.domain.ports.ops import OutboxLevel, TokenLevel
from relay.domain.ports.outbox import Settlement
from relay.store.engine import Database, open_database
from relay.store.ops import SqlOpsStore
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NEW_MAIL, NOW, activate, entry, overwrite, own_all, register


async def test_an_empty_database_counts_nothing(engine: Database) -> None:
    ops = SqlOpsStore(engine)

    await ops.reachable()
    assert await ops.mailboxes_by_state() == {}
    assert await ops.registrations_by_state() == {}
    assert await ops.outbox() == dict.fromkeys(Platform, OutboxLevel(0, None, 0))


async def test_mailboxes_registrations_and_marks_are_counted(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    ops = SqlOpsStore(engine)
    ann = await activate(registrations, watches, "ann")
    await activate(registrations, watches, "ann", "tablet", platform=Platform.FCM)
    await activate(registrations, watches, "ben")
    unproved = await register(registrations, "eve")
    await registrations.mark(unproved.id, Mark.TEST, NOW)
    epoch = await own_all(watches)
    away = Condition(WatchState.WAITING, Reason.UNREACHABLE)
    await watches.commit([entry(epoch, Progress(condition=away, changes=(NEW_MAIL,)))], NOW)
    await registrations.mark(ann.id, Mark.TEST, LATER)
    (push,) = (await outbox.claim(Platform.APNS, 1, "push-1", LATER, NOW)).pushes
    await outbox.settle([Settlement(push, RetryLater("busy"), LATER)], NOW)

    assert await ops.mailboxes_by_state() == {
        (WatchState.WAITING, "unreachable"): 1,
        (WatchState.STARTING, None): 1,
        (WatchState.VERIFYING, None): 1,
    }
    assert await ops.registrations_by_state() == {
        (Platform.APNS, RegistrationState.ACTIVE): 2,
        (Platform.FCM, RegistrationState.ACTIVE): 1,
        (Platform.APNS, RegistrationState.VERIFYING): 1,
    }
    assert await ops.outbox() == {
        Platform.APNS: OutboxLevel(pending=2, oldest_at=NOW, failing=1),
        Platform.FCM: OutboxLevel(pending=1, oldest_at=NOW, failing=0),
        Platform.WEBPUSH: OutboxLevel(pending=0, oldest_at=None, failing=0),
    }


async def test_reasons_that_a_newer_version_wrote_are_counted_as_one(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    for user, reason in (("ann", "eas-998"), ("ben", "eas-999")):
        owner = await activate(registrations, watches, user)
        await overwrite(engine, owner.mailbox_id, state="blocked", reason=reason)

    assert await SqlOpsStore(engine).mailboxes_by_state() == {(WatchState.BLOCKED, Reason.UNKNOWN): 2}


async def test_refused_tokens_and_parked_marks_are_counted_apart(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    ops = SqlOpsStore(engine)
    names = ("ann", "ben", "eve")
    for name in names:
        await activate(registrations, watches, name, environment=Environment.SANDBOX)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)), name) for name in names], NOW)
    ann, ben, eve = (await outbox.claim(Platform.APNS, 3, "push-1", LATER, NOW)).pushes
    later = NOW + timedelta(hours=1)
    await outbox.settle(
        [
            Settlement(ann, Refused("BadDeviceToken", "look"), later),
            Settlement(ben, RetryLater("internal-error"), later, parked="internal-error"),
            Settlement(eve, RetryLater("busy"), later),
        ],
        NOW,
    )

    assert (await ops.outbox())[Platform.APNS] == OutboxLevel(pending=1, oldest_at=NOW, failing=1, parked=1)
    assert await ops.tokens() == [
        TokenLevel(Platform.APNS, "mail", Environment.SANDBOX, "", "", 2),
        TokenLevel(Platform.APNS, "mail", Environment.SANDBOX, "BadDeviceToken", "look", 1),
    ]


async def test_an_absent_database_is_reported() -> None:
    async with open_database("postgresql://relay@127.0.0.1:1/relay") as engine:
        with pytest.raises(StoreUnavailable):
            await SqlOpsStore(engine).reachable()


async def test_watch_processes_come_with_their_shards(engine: Database, watches: SqlWatchStore) -> None:
    ops = SqlOpsStore(engine)
    assert await ops.nodes(LATER) == []

    await own_all(watches)

    (node,) = await ops.nodes(LATER)
    assert (node.shards, node.leaving) == (256, False)
