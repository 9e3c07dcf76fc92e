"""Helpers of the tests of push senders: simulators over TLS, senders that talk to them, and pushes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from eas_watcher.http2.keepalive import KEEPALIVE_TIMINGS, KeepaliveTimings
from relay.domain.outcome import Outcome, RetryLater
from relay.process.clock import now
from relay.push.apns.config import ApnsAccount, ApnsCertificate, ApnsConfig, ApnsToken
from relay.push.apns.sender import ApnsSender
from relay.push.egress.leaving import Egress
from relay.push.fcm.config import FcmAccount, FcmConfig
from relay.push.fcm.sender import FcmSender
from relay.sandbox.apns import ApnsSimulator, open_apns_simulator
from relay.sandbox.certificates import ThrowAwayCa, make_apns_key, public_pem
from relay.sandbox.fcm import FcmSimulator, open_fcm_simulator
from tests.fakes.egress import MemoryEgress
from tests.keys import rsa_keys

TEAM = "TEAM123456"
APP = "com.example.mail"


@dataclass(frozen=True)
class ApnsWorld:
    folder: Path
    ca: ThrowAwayCa
    simulator: ApnsSimulator
    config: ApnsConfig


@asynccontextmanager
async def apns_world(folder: Path) -> AsyncIterator[ApnsWorld]:
    """Open an APNs simulator and the configuration of a sender that it trusts."""
    ca = ThrowAwayCa()
    ca.write_ca(folder / "ca.pem")
    token = apns_key(folder)
    keys = {str(token.key_id): (public_pem(token.file.read_text()), TEAM)}
    async with open_apns_simulator(tls=ca.server_context(alpn=["h2"]), keys=keys, topics=[APP]) as simulator:
        config = ApnsConfig(
            accounts=(ApnsAccount(frozenset({APP}), token),),
            host="localhost",
            port=simulator.port,
            sandbox_host="localhost",
            sandbox_port=simulator.port,
            ca_file=folder / "ca.pem",
        )
        yield ApnsWorld(folder, ca, simulator, config)


@asynccontextmanager
async def apns(
    folder: Path, timings: KeepaliveTimings = KEEPALIVE_TIMINGS, **changes: Any
) -> AsyncIterator[tuple[ApnsSimulator, ApnsSender]]:
    """Open an APNs simulator and a sender that talks to it."""
    async with apns_world(folder) as world, apns_sender(replace(world.config, **changes), timings=timings) as sender:
        yield world.simulator, sender


def apns_sender(
    config: ApnsConfig, egress: Egress | None = None, timings: KeepaliveTimings = KEEPALIVE_TIMINGS
) -> ApnsSender:
    """Return a sender, which is an async context manager."""
    return ApnsSender(config, egress or MemoryEgress(), now, Random(1), timings=timings)


def apns_key(folder: Path, name: str = "apns.p8") -> ApnsToken:
    """Write a new key in the form in which Apple issues it."""
    pem, key_id = make_apns_key()
    file = folder / name
    file.write_text(pem)
    file.chmod(0o600)
    return ApnsToken(file, key_id, TEAM)


def account(authentication: ApnsToken | ApnsCertificate, *topics: str, **changes: Any) -> ApnsAccount:
    """Return an account for some apps, or for the one that all tests use."""
    return ApnsAccount(frozenset(topics or {APP}), authentication, **changes)


def certificate(world: ApnsWorld, name: str = APP) -> ApnsCertificate:
    """Write a client certificate of the world's CA."""
    file = world.folder / "client.pem"
    file.write_bytes(world.ca.client_pem(name))
    file.chmod(0o600)
    return ApnsCertificate(file)


@asynccontextmanager
async def fcm(folder: Path, **changes: Any) -> AsyncIterator[tuple[FcmSimulator, FcmSender]]:
    """Open an FCM simulator and a sender that talks to it."""
    ca = ThrowAwayCa()
    ca.write_ca(folder / "ca.pem")
    async with open_fcm_simulator(tls=ca.server_context(), make_key=rsa_keys()) as simulator:
        config = fcm_config(folder, simulator)
        config.accounts[0].service_account_file.write_text(json.dumps(simulator.service_account()))
        async with FcmSender(replace(config, **changes), now, Random(1), MemoryEgress()) as sender:
            yield simulator, sender


def fcm_config(folder: Path, simulator: FcmSimulator) -> FcmConfig:
    """Return the configuration of a sender that talks to a simulator, with the files that `fcm` writes."""
    return FcmConfig((fcm_account(folder / "account.json"),), simulator.url, folder / "ca.pem")


def fcm_account(file: Path, *apps: str, table: str = "fcm") -> FcmAccount:
    """Return an account of FCM for some apps, or for the one that all tests use."""
    return FcmAccount(frozenset(apps or {APP}), file, table)


def failure(outcome: Outcome) -> str:
    """Return the reason why the provider could not be reached at all, "" for any other outcome."""
    return outcome.reason if isinstance(outcome, RetryLater) and outcome.provider and outcome.remedy else ""


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Accept connections and send nothing, not even a TLS handshake; yield the port."""
    ended = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        ended.set()
        server.close()
