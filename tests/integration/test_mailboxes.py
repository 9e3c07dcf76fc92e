"""The watch role between a real store and a simulated mail server: its watches follow the registrations."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.memory import WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import CollectionClass
from relay.domain.model import Mark, Platform, RegistrationChange, RegistrationId, RegistrationState
from relay.domain.outcome import TokenGone
from relay.domain.ports.outbox import Settlement
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from relay.security.sealing import SealingPrivateKey, generate
from relay.store import tables
from relay.store.outbox import SqlOutboxStore
from relay.store.wakeups import LocalWakeups
from relay.watch.accounts import EasServer
from relay.watch.leases import LEASE, MARGIN, RENEW
from tests.integration.eas_world import hurried, hurry
from tests.integration.watch_role import ANN, EMAIL, MAILBOX, WatchRole, open_watch_role
from tests.waiting import until


@pytest.fixture
async def role(tmp_path: Path) -> AsyncIterator[WatchRole]:
    async with open_watch_role(tmp_path) as opened:
        yield opened


async def test_a_proved_credential_starts_the_watch(role: WatchRole) -> None:
    view = await role.judged(await role.register("first"))

    assert view.registration.state is RegistrationState.ACTIVE
    await until(lambda: role.eas.held == 1)
    assert MAILBOX in role.fleet


async def test_a_refused_credential_is_tried_once_and_watches_nothing(role: WatchRole) -> None:
    view = await role.judged(await role.register("first", "wrong"))

    assert view.registration.state is RegistrationState.REFUSED
    assert role.eas.records.refusals[ANN] == 1
    assert len(role.fleet) == 0


async def test_the_same_credential_again_is_shown_to_the_server(role: WatchRole) -> None:
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    asked = role.requests("OPTIONS")

    second = await role.judged(await role.register("second"))

    assert second.registration.state is RegistrationState.ACTIVE
    assert role.requests("OPTIONS") == asked + 1
    assert role.eas.held == 1


async def test_an_old_password_registers_no_phone_even_while_its_ping_is_held(role: WatchRole) -> None:
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    role.eas.add_mailbox(ANN, "changed by the user")

    second = await role.judged(await role.register("second"))

    assert role.eas.held == 1, "the Ping with the old password is still held"
    assert second.registration.state is RegistrationState.REFUSED
    assert role.eas.records.refusals[ANN] == 1


async def test_an_old_password_registers_no_phone_while_the_mailbox_has_no_watch(tmp_path: Path) -> None:
    wakeups = LocalWakeups()
    async with open_watch_role(tmp_path, wakeups=wakeups) as role:
        id_ = (await role.judged(await role.register("first"))).registration.id
        await until(lambda: role.eas.held == 1)
        outbox = SqlOutboxStore(role.database, wakeups)
        await role.registrations.mark(id_, Mark.TEST, now())
        (push,) = (await outbox.claim(Platform.APNS, 1, "push", now() + timedelta(minutes=1), now())).pushes
        await outbox.settle([Settlement(push, TokenGone("Unregistered"))], now())
        await until(lambda: role.eas.held == 0)
        role.eas.add_mailbox(ANN, "changed by the user")

        second = await role.judged(await role.register("second"))

        assert second.registration.state is RegistrationState.REFUSED


async def test_another_password_for_a_watched_mailbox_must_be_proved(role: WatchRole) -> None:
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)

    second = await role.judged(await role.register("second", "guessed"))

    assert second.registration.state is RegistrationState.REFUSED
    assert role.eas.held == 1
    assert (await role.view(second.registration.id)).mailbox.state is WatchState.WATCHING


async def test_a_new_class_is_watched_without_a_second_ping(role: WatchRole) -> None:
    id_ = (await role.judged(await role.register("first"))).registration.id
    await until(lambda: role.eas.held == 1)
    both = frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR})

    await role.registrations.change(id_, RegistrationChange(classes=both), now())
    role.eas.deliver(ANN, CollectionClass.CALENDAR)
    await until(lambda: role.eas.held == 1 and role.requests("Ping") > 1)
    role.eas.deliver(ANN, CollectionClass.CALENDAR)

    await until(lambda: role.stats.changes[CollectionClass.CALENDAR] > 0)


async def test_subfolders_are_told_to_those_who_asked_and_to_nobody_else(role: WatchRole) -> None:
    inbox = role.eas.mailbox(ANN).default_folder(CollectionClass.EMAIL)
    folder = role.eas.add_folder(ANN, "Projects", parent=inbox)
    await role.judged(await role.register("first"))
    await role.judged(await role.register("second"))
    await until(lambda: role.eas.held == 1)
    pings = role.requests("Ping")

    await role.registrations.change(RegistrationId("second"), RegistrationChange(subfolders=EMAIL), now())
    await until(lambda: role.eas.held == 1 and role.requests("Ping") > pings)
    role.eas.deliver(ANN, folder=folder)
    await until(lambda: role.stats.changes[CollectionClass.EMAIL] > 0)

    claimed = await SqlOutboxStore(role.database, LocalWakeups()).claim(
        Platform.APNS, 10, "push", now() + timedelta(minutes=1), now()
    )
    assert [(push.registration_id, push.count) for push in claimed.pushes] == [("second", 1)]
    assert (await role.view(RegistrationId("second"))).registration.subfolders == EMAIL

    pings = role.requests("Ping")
    await role.registrations.change(RegistrationId("second"), RegistrationChange(subfolders=frozenset()), now())
    await until(lambda: role.eas.held == 1 and role.requests("Ping") > pings)
    (device,) = role.eas.devices(ANN)
    assert device.ping is not None
    assert [id_ for id_, _ in device.ping.folders] == [inbox]


async def test_a_new_password_replaces_the_watch(role: WatchRole) -> None:
    id_ = (await role.judged(await role.register("first"))).registration.id
    await until(lambda: role.eas.held == 1)
    role.eas.add_mailbox(ANN, "new password")
    pings = role.requests("Ping")

    await role.change_password(id_, "new password")
    await role.judged(id_)
    await until(lambda: role.eas.held == 1 and role.requests("Ping") > pings)
    role.eas.deliver(ANN)

    await until(lambda: role.stats.changes[CollectionClass.EMAIL] == 1)
    assert role.eas.records.refusals[ANN] == 0


async def test_a_mailbox_that_nobody_names_any_more_is_left_alone(role: WatchRole) -> None:
    id_ = (await role.judged(await role.register("first"))).registration.id
    await until(lambda: role.eas.held == 1)

    await role.registrations.remove(id_, now())

    async def is_forgotten() -> bool:
        return await role.registrations.mailbox_of("main", ANN) is None

    await until(is_forgotten)
    assert len(role.fleet) == 0


@pytest.mark.slow
async def test_a_server_that_is_away_is_asked_again_until_it_judges(role: WatchRole) -> None:
    role.eas.fail(None, FailurePlan(AnswerHttp(503), "OPTIONS", 1))
    id_ = await role.register("first")

    await until(lambda: role.requests("OPTIONS") == 1)
    view = await role.judged(id_)  # the first backoff is 3.5 to 6.5 s

    assert view.registration.state is RegistrationState.ACTIVE


async def test_a_server_that_is_not_configured_any_more_blocks_the_mailbox(role: WatchRole) -> None:
    id_ = await role.register("first", server="gone")

    mailbox = await role.blocked(id_)

    assert mailbox.reason == "server-unknown"
    assert "[servers.gone]" in mailbox.detail


async def test_a_credential_sealed_to_another_key_blocks_the_mailbox(role: WatchRole, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(generate()[0])
    id_ = await role.register("first", key=SealingPrivateKey.load(tmp_path / "other.pem"))

    mailbox = await role.blocked(id_)

    assert mailbox.reason == "seal-broken"
    assert role.requests("OPTIONS") == 0


def test_lost_leases_end_all_watches_and_regained_ones_start_them(tmp_path: Path) -> None:
    @hurried
    async def scenario() -> None:
        async with open_watch_role(tmp_path) as role:
            await role.judged(await role.register("first"))
            await until(lambda: role.eas.held == 1)

            await role.shards.steal()
            hurry(RENEW)
            await until(lambda: len(role.fleet) == 0)
            assert role.held.lease_of(MAILBOX) is None

            await role.shards.leave("another")
            hurry(RENEW)
            await until(lambda: len(role.fleet) == 1)

    scenario()


def test_a_database_that_stays_away_ends_all_watches_with_their_leases(tmp_path: Path) -> None:
    @hurried
    async def scenario() -> None:
        async with open_watch_role(tmp_path) as role:
            await role.judged(await role.register("first"))
            await until(lambda: role.eas.held == 1)

            role.shards.away = True
            hurry(LEASE - MARGIN - RENEW)
            await asyncio.sleep(0.05)
            assert len(role.fleet) == 1
            hurry(RENEW)
            await until(lambda: len(role.fleet) == 0)
            assert not role.mailboxes.leased

            role.shards.away = False
            hurry(RENEW)
            await until(lambda: role.eas.held == 1)

    scenario()


def test_shards_whose_mailboxes_could_not_be_read_are_read_again(tmp_path: Path) -> None:
    @hurried
    async def scenario() -> None:
        async with open_watch_role(tmp_path) as role:
            await role.judged(await role.register("first"))
            await until(lambda: role.eas.held == 1)
            await role.shards.steal()
            hurry(RENEW)
            await until(lambda: len(role.fleet) == 0)

            role.store.away_for_records = True
            await role.shards.leave("another")
            hurry(RENEW)
            await until(lambda: not role.store.away_for_records)  # they are read again at once
            await until(lambda: role.eas.held == 1)

    scenario()


def test_a_broken_watch_is_started_again_from_the_store(tmp_path: Path) -> None:
    @hurried
    async def scenario() -> None:
        async with open_watch_role(tmp_path) as role:
            await role.judged(await role.register("first"))
            await until(lambda: role.eas.held == 1)

            await role.fleet.stop(MAILBOX)  # as a fault of the relay would end it
            await until(lambda: role.eas.held == 0)
            role.mailboxes.broken(MAILBOX)
            for _ in range(10):  # a minute, in which the lease is renewed
                hurry(2 * RENEW)
                await asyncio.sleep(0.05)
            await until(lambda: role.eas.held == 1)
            role.eas.deliver(ANN)
            await until(lambda: role.stats.changes[CollectionClass.EMAIL] == 1)

    scenario()


async def test_a_new_password_ends_the_wait_after_a_refused_one(role: WatchRole) -> None:
    id_ = (await role.judged(await role.register("first"))).registration.id
    await until(lambda: role.eas.held == 1)
    role.eas.add_mailbox(ANN, "changed by the user")
    role.eas.deliver(ANN)
    await until(lambda: role.eas.records.refusals[ANN] == 1)

    await role.change_password(id_, "changed by the user")
    await role.judged(id_)

    await until(lambda: role.eas.held == 1)
    assert (await role.view(id_)).mailbox.state is not WatchState.CREDENTIAL_REFUSED


async def change_servers(role: WatchRole, restarting: Collection[str] = ()) -> None:
    """Let the role follow its servers, which have changed, and return when no watch uses the old ones."""
    done = asyncio.Event()

    async def note() -> None:
        done.set()

    role.mailboxes.change_servers(restarting, note)
    await until(done.is_set)


def server_of(role: WatchRole) -> EasServer:
    server = role.mailboxes._accounts.server("main")
    assert server is not None
    return server


def set_server(role: WatchRole, server: EasServer) -> None:
    servers = role.mailboxes._accounts._servers
    assert isinstance(servers, dict)
    servers["main"] = server


async def test_a_mailbox_of_a_changed_server_gets_a_new_watch(role: WatchRole) -> None:
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    set_server(role, replace(server_of(role), policy=Policy(heartbeat=Heartbeat(300, 60, 900))))

    await change_servers(role, ["main", "another"])

    await until(lambda: role.eas.held == 1)
    assert role.fleet._watches[MAILBOX]._state.watch.policy.heartbeat.maximum == 900
    assert role.eas.records.broken == {ANN: 1}


async def test_other_limits_of_a_server_reach_the_watch_while_its_ping_is_held(role: WatchRole) -> None:
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    policy = Policy(hosts=frozenset({"mail2.example.com"}))
    set_server(role, replace(server_of(role), policy=policy))

    await change_servers(role)

    assert role.fleet._watches[MAILBOX]._state.watch.policy.hosts == policy.hosts
    assert role.eas.records.broken == {}


async def test_a_watch_at_a_host_that_is_allowed_no_more_starts_anew_at_its_own_server(role: WatchRole) -> None:
    """Else its password would go to a server that the operator has removed."""
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    role.fleet._watches[MAILBOX]._client.url = "https://removed.example.com/Microsoft-Server-ActiveSync"

    await change_servers(role)

    await until(lambda: role.eas.held == 1 and role.fleet.url(MAILBOX) == role.eas.url)
    assert role.eas.records.broken == {ANN: 1}


async def test_a_mailbox_whose_server_was_unknown_starts_when_it_is_configured(role: WatchRole) -> None:
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    servers, server = role.mailboxes._accounts._servers, server_of(role)
    assert isinstance(servers, dict)
    del servers["main"]
    await change_servers(role, ["main"])
    await until(lambda: role.eas.held == 0)
    assert MAILBOX not in role.fleet

    servers["main"] = server
    await change_servers(role, ["main"])
    await until(lambda: role.eas.held == 1)


async def test_a_mailbox_that_cannot_be_read_holds_up_no_change_of_servers(role: WatchRole) -> None:
    """Else what the server was before stays in use, and no later change of any server is ever followed."""
    await role.judged(await role.register("first"))
    await until(lambda: role.eas.held == 1)
    await role.database.run(spoil)

    await change_servers(role, ["main"])

    assert role.eas.held == 0
    await role.database.run(mend)
    await role.store.look_again(now())
    await until(lambda: role.eas.held == 1)


def spoil(connection: sa.Connection) -> None:
    connection.execute(sa.text("UPDATE mailbox SET since = 'no moment'"))


def mend(connection: sa.Connection) -> None:
    connection.execute(sa.update(tables.mailbox).values(since=now()))


def test_a_mailbox_is_read_once_however_often_it_broke(tmp_path: Path) -> None:
    """Else an outage of the database multiplies the reads that follow it."""

    @hurried
    async def scenario() -> None:
        async with open_watch_role(tmp_path) as role:
            await role.judged(await role.register("first"))
            await until(lambda: role.eas.held == 1)
            read = role.store.read
            for _ in range(1000):
                role.mailboxes.broken(MAILBOX)
            for _ in range(10):
                hurry(2 * RENEW)
                await asyncio.sleep(0.05)
            await until(lambda: role.store.read > read and role.mailboxes._broken.empty())

            assert role.store.read < read + 100  # some come of leases that run out on the hurried clock

    scenario()
