"""Promise 4: nobody is locked out through the relay, however many wrong passwords come, by whatever way.

The relays are processes; the mail server counts what it refuses.
"""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from relay.domain.model import (
    Environment,
    Mode,
    NewMailbox,
    Platform,
    Registration,
    RegistrationId,
    RegistrationState,
    shard_of,
)
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from relay.sandbox.installation import APP
from relay.sandbox.process import open_relay
from relay.security.sealing import SealingPublicKey
from relay.store.engine import open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from tests.acceptance.test_roles import make_sealing_keys, migrate
from tests.ports import free_port, free_ports
from tests.postgres import PostgresServer, running_postgres
from tests.site import ANN, PASSWORD, Site
from tests.waiting import until

IMPATIENT: Final = {"RELAY__API__VERDICT_WAIT": "0", "RELAY__API__REGISTRATIONS_PER_MINUTE": "1000"}
SPELLINGS: Final = [
    f"{domain}{name}" for domain in ("", "EXAMPLE\\", "example.com\\") for name in ("ann", "ANN", "änn")
]


def wrong(number: int, user: str = ANN) -> dict[str, Any]:
    """Return the registration of a stranger's phone with a wrong password."""
    return {
        "mailbox": ANN,
        "credential": {"kind": "basic", "password": f"wrong-{number}", "user": user},
        "device": {"platform": "apns", "token": secrets.token_hex(32), "app": APP},
    }


def refused(site: Site) -> int:
    """Return how many wrong passwords the mail server has seen, of all users."""
    return sum(site.sandbox.eas.records.refusals.values())


@pytest.mark.slow
async def test_wrong_passwords_that_gather_in_an_outage_reach_the_mail_server_twice_at_most(site: Site) -> None:
    """Before the tries were counted where passwords are shown, all 18 came when the server was back.

    A process shows each at most once: its server asks it to stay away for an hour. One that is stopped between the
    count of a try and its request shows one less.
    """
    site.environ = IMPATIENT
    eas = site.sandbox.eas
    eas.fail(None, FailurePlan(AnswerHttp(503, {"Retry-After": "3600"}), None, 100_000))
    for start in range(6):
        async with site.relay():
            for number in range(3):
                async with site.api.post("/v1/registrations", json=wrong(3 * start + number)) as response:
                    assert response.status in {202, 429}
                await until(lambda: refused(site) >= 1)

    eas.failures.clear()
    async with site.relay():
        await asyncio.sleep(3.0)  # long enough for many more: the server takes 50 a second

    assert refused(site) in {1, 2}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    name = await postgres.create()
    yield postgres.url(name)
    await postgres.drop(name)


async def open_api(stack: AsyncExitStack, site: Site, database: str) -> aiohttp.ClientSession:
    """Start an api process; return a session with its API."""
    port, ops = free_ports(2)
    environ = {"RELAY__DATABASE__URL": database, "RELAY__OPS__PORT": str(ops), "RELAY__API__PORT": str(port)}
    await stack.enter_async_context(open_relay(site.sandbox.toml, ops, role="api", environ={**environ, **IMPATIENT}))
    trust = ssl.create_default_context(cafile=site.sandbox.folder / "ca.pem")
    session = aiohttp.ClientSession(f"https://localhost:{port}", connector=aiohttp.TCPConnector(ssl=trust))
    return await stack.enter_async_context(session)


@asynccontextmanager
async def watching(site: Site, database: str) -> AsyncIterator[None]:
    ops = free_port()
    environ = {"RELAY__DATABASE__URL": database, "RELAY__OPS__PORT": str(ops)}
    async with open_relay(site.sandbox.toml, ops, role="watch", environ=environ):
        yield


async def post(api: aiohttp.ClientSession, body: dict[str, Any]) -> int:
    async with api.post("/v1/registrations", json=body) as response:
        return response.status


async def steal(site: Site, database: str, number: int) -> None:
    """Write what a thief of the api role's database user can: mailboxes, registrations, candidates, states."""
    key = SealingPublicKey.load(site.sandbox.folder / "state" / "sealing-public.pem")
    async with open_database(database) as engine:
        store = SqlRegistrationStore(engine, LocalWakeups())
        for n in range(number):
            user = f"Ann@{n}.example.com"
            id_ = MailboxId(secrets.token_urlsafe(12))
            mailbox = NewMailbox(id_, "sandbox", user, DeviceId("D" * 32), shard_of(id_))
            await store.create(mailbox, phone_of(id_), key.seal(mailbox, BasicCredential(user, f"stolen-{n}")))


def phone_of(mailbox: MailboxId) -> Registration:
    moment = now()
    return Registration(
        RegistrationId(secrets.token_urlsafe(18)),
        mailbox,
        b"h" * 32,
        APP,
        Platform.APNS,
        Environment.PRODUCTION,
        secrets.token_hex(32),
        moment,
        frozenset({CollectionClass.EMAIL}),
        Mode.ALERT,
        "en",
        RegistrationState.ACTIVE,  # as the api role's user may write
        moment,
    )


@pytest.mark.slow
async def test_wrong_passwords_in_many_spellings_through_three_api_processes_and_a_stolen_database_user(
    site: Site, database: str
) -> None:
    """Before, 9 came through three processes, 51 in 145 spellings, and all that were written into the database."""
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    async with AsyncExitStack() as stack:
        apis = [await open_api(stack, site, database) for _ in range(3)]
        async with watching(site, database):
            assert await post(apis[0], wrong(0) | {"credential": {"kind": "basic", "password": PASSWORD}}) in {201, 202}
            await site.held()

            answers = await try_all(apis)
            assert set(answers) <= {202, 403, 429}  # 403: the server's word came before the answer
            assert 429 in answers
            await until(lambda: refused(site) >= 2)
            assert await settled(site) == 2

            await steal(site, database, 30)
            await until(lambda: refused(site) >= 3)
            assert await settled(site) == 3  # what the thief calls active has the try that is kept for such phones

        async with watching(site, database):
            assert set(await try_all(apis)) == {429}
            assert await settled(site) == 3


async def try_all(apis: Sequence[aiohttp.ClientSession]) -> list[int]:
    """Send a wrong password in each spelling to each api process, all at once; return the statuses."""
    bodies = [(api, wrong(n, user)) for n, user in enumerate(SPELLINGS) for api in apis]
    return await asyncio.gather(*(post(api, body) for api, body in bodies))


@pytest.mark.slow
async def test_a_user_sends_a_new_password_right_after_a_strangers_wrong_ones(site: Site) -> None:
    async with site.relay():
        status, ann = await site.register()
        assert status == 201
        await site.held()
        site.sandbox.eas.add_mailbox(ANN, "a new one")
        answers = [await post(site.api, wrong(number)) for number in range(4)]
        assert answers == [403, 403, 429, 429]

        change = {"credential": {"kind": "basic", "password": "a new one"}}
        access = {"Authorization": f"Bearer {ann['secret']}"}
        async with site.api.patch(f"/v1/registrations/{ann['id']}", json=change, headers=access) as response:
            assert response.status == 200
            assert (await response.json())["credential"] == {"pending": False, "refused": False}


async def settled(site: Site) -> int:
    """Return how many wrong passwords the mail server has seen, some time after the last thing that a test did."""
    await asyncio.sleep(3.0)
    return refused(site)
