"""Pushes for apps of several teams, and keys and certificates that change while the sender runs."""

import asyncio
from dataclasses import replace
from pathlib import Path

from relay.domain.model import Environment
from relay.domain.outcome import Delivered, Refused
from relay.push.apns.config import ApnsAccount, ApnsConfig
from relay.push.key_files import watch
from relay.sandbox.apns import open_apns_simulator
from relay.sandbox.certificates import make_apns_key, public_pem
from relay.sandbox.scripts import Answer, Delay
from tests.integration.push_world import APP, TEAM, ApnsWorld, account, apns_key, apns_sender, apns_world, certificate
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

OTHER = "com.example.other"


def overwrite(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def with_accounts(world: ApnsWorld, *accounts: ApnsAccount) -> ApnsConfig:
    return replace(world.config, accounts=accounts)


async def test_apps_of_two_teams_are_pushed_to_with_their_own_keys_and_connections(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        mine, theirs = apns_key(tmp_path, "mine.p8"), apns_key(tmp_path, "theirs.p8")
        keys = {str(key.key_id): (public_pem(key.file.read_text()), TEAM) for key in (mine, theirs)}
        tls = world.ca.server_context(alpn=["h2"])
        async with open_apns_simulator(tls=tls, keys=keys, topics=[APP, OTHER]) as simulator:
            config = replace(with_accounts(world, account(mine), account(theirs, OTHER)), port=simulator.port)
            async with apns_sender(config) as sender:
                for number in 1, 2:
                    assert isinstance(await sender.send(due_push(number)), Delivered)
                    assert isinstance(await sender.send(due_push(number, app=OTHER)), Delivered)

                signers = {(each.headers["apns-topic"], each.headers["authorization"]) for each in simulator.received}
                assert len(signers) == len({authorization for _, authorization in signers}) == 2
                assert simulator.accepted == 2


async def test_one_app_may_have_a_key_for_each_environment(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        (plain,) = world.config.accounts
        production = replace(plain, environments=frozenset({Environment.PRODUCTION}))
        sandbox = account(certificate(world), environments=frozenset({Environment.SANDBOX}))
        async with apns_sender(with_accounts(world, production, sandbox)) as sender:
            assert isinstance(await sender.send(due_push(1)), Delivered)
            assert isinstance(await sender.send(due_push(2, environment=Environment.SANDBOX)), Delivered)

        assert ["authorization" in each.headers for each in world.simulator.received] == [True, False]


async def test_an_environment_without_a_key_is_named(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        (plain,) = world.config.accounts
        production = replace(plain, environments=frozenset({Environment.PRODUCTION}))
        async with apns_sender(with_accounts(world, production)) as sender:
            outcome = await sender.send(due_push(environment=Environment.SANDBOX))

        assert isinstance(outcome, Refused)
        assert outcome.reason == "environment-not-configured"
        assert "sandbox" in outcome.remedy
        assert world.simulator.accepted == 0


async def test_a_key_for_the_other_environment_is_a_fault_with_a_remedy(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world, apns_sender(world.config) as sender:
        world.simulator.fail(Answer(403, "BadEnvironmentKeyIdInToken"))
        outcome = await sender.send(due_push())

        assert isinstance(outcome, Refused)
        assert outcome.channel
        assert "environments" in outcome.remedy


async def test_a_corrected_key_is_adopted_without_a_restart_and_pushes_in_flight_end(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        (plain,) = world.config.accounts
        file = plain.authentication.file
        good = file.read_text()
        overwrite(file, make_apns_key()[0])
        async with apns_sender(world.config) as sender, asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(sender.key_files, period=0.01))
            refused = await sender.send(due_push(1))
            assert isinstance(refused, Refused)
            assert refused.reason == "InvalidProviderToken"
            world.simulator.fail(Delay(0.3))
            under_way = tasks.create_task(sender.send(due_push(2)))
            await until(lambda: sender.accounts[0].pool(Environment.PRODUCTION).connections != [])

            overwrite(file, "half a key")
            await until(lambda: bool(sender.key_files[0].fault), 30.0)
            assert sender.key_files[0].fault == "holds no ECDSA P-256 key"

            overwrite(file, good)
            await until(lambda: not sender.key_files[0].fault, 30.0)
            assert isinstance(await sender.send(due_push(3)), Delivered)
            assert isinstance(await under_way, Refused | Delivered)
            watching.cancel()


async def test_a_renewed_certificate_is_shown_on_a_new_connection(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        shown = certificate(world, OTHER)
        async with apns_sender(with_accounts(world, account(shown))) as sender:
            first = await sender.send(due_push(1))
            assert isinstance(first, Refused)
            assert first.reason == "TopicDisallowed"

            overwrite(shown.file, world.ca.client_pem(APP))
            await sender.key_files[0].look()

            assert isinstance(await sender.send(due_push(2)), Delivered)
            assert world.simulator.accepted == 2
