"""Test what somebody gains who can write the mailbox table: no credential reaches another server or mailbox.

Databases of earlier versions, whose seals were bound to the mailbox alone, go on working.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.runtime.context import WatchContext
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from relay.domain.model import RegistrationChange
from relay.process.clock import now
from relay.security.credentials import StoredCredential
from relay.security.sealing import SealingPrivateKey
from relay.store import migrate
from relay.store.engine import Database, open_database
from relay.store.migrate import upgrade
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import candidate, mailbox, sealed_anew
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from relay.watch.accounts import Accounts, EasServer
from relay.watch.committer import GroupCommitter, StoreJournal
from relay.watch.leases import Leases
from relay.watch.mailboxes import HeldMailboxes, Mailboxes
from tests.contract.samples import LATER, SHARD, candidate_of, new_mailbox, new_registration, shards_of
from tests.fakes.seals import old_seal
from tests.postgres import PostgresServer
from tests.transactions import transaction
from tests.waiting import until

ANN, BEN = new_mailbox("ann"), new_mailbox("ben")
PASSWORD = BasicCredential(ANN.user, "canary")
EVERY_KIND = [
    PASSWORD,
    OAuthCredential(ANN.user, "canary", "app", "canary"),
    OAuthCredential(ANN.user, "", "app", code=AuthorizationCode("canary", "canary-" * 7, "app:/canary")),
    CertificateCredential(ANN.user, "canary", "canary"),
    KerberosCredential(ANN.user, "canary"),
]
KEY = SealingPrivateKey(X25519PrivateKey.generate())
SHARDS = range(256)


class Asked(HoldsInTask):
    """A mail server that holds every request."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        await asyncio.Event().wait()
        raise AssertionError


class Site:
    """A database, and a watch role on it with two servers."""

    def __init__(self, engine: Database) -> None:
        self.engine = engine
        self.wakeups = LocalWakeups()
        self.registrations = SqlRegistrationStore(engine, self.wakeups)
        self.watches = SqlWatchStore(engine, self.wakeups)
        self.office, self.branch = Asked(), Asked()

    async def add(self, name: str, sealed: bytes) -> None:
        """Add an active registration."""
        registration = new_registration(name)
        await self.registrations.create(new_mailbox(name), registration, sealed)
        await self.watches.accept(candidate_of(registration, sealed), LATER)

    async def write(self, id_: MailboxId, **values: Any) -> None:
        """Change a row as somebody with rights on the table does."""
        async with transaction(self.engine) as connection:
            await connection.execute(
                sa.update(mailbox).where(mailbox.c.id == id_).values({mailbox.c[k]: v for k, v in values.items()})
            )

    async def row(self, id_: MailboxId) -> Any:
        async with transaction(self.engine) as connection:
            return (await connection.execute(sa.select(mailbox).where(mailbox.c.id == id_))).one()

    async def settled(self) -> set[int]:
        async with transaction(self.engine) as connection:
            return set((await connection.scalars(sa.select(sealed_anew.c.shard))).all())

    async def all_settled(self) -> bool:
        return await self.settled() == set(SHARDS)

    async def reason_of(self, id_: MailboxId) -> tuple[str, str]:
        """Wait until a mailbox is blocked; return why."""

        async def blocked() -> bool:
            return bool((await self.row(id_)).state == "blocked")

        await until(blocked)
        row = await self.row(id_)
        return row.reason, row.detail

    @asynccontextmanager
    async def watched(self, key: SealingPrivateKey = KEY) -> AsyncIterator[Mailboxes]:
        """Run the watch role."""
        servers = {
            "office": EasServer(
                "https://office.example.com/eas",
                self.office,
                Policy(),
                identify=lambda _: self.office,
                delegate=lambda _, __: self.office,
            ),
            "branch": EasServer("https://branch.example.com/eas", self.branch, Policy()),
        }
        leases = Leases(shards_of(self.watches), self.wakeups, "node", take_over=True)
        held = HeldMailboxes(leases)
        committer = GroupCommitter(self.watches, now)
        journal = StoreJournal(committer, self.watches, held.lease_of, now, Random(1))
        context = WatchContext(journal, Random(1), Admissions(8, Random(1), now))
        mailboxes = Mailboxes(self.watches, self.wakeups, Accounts(key, servers), held, leases, context)
        jobs = [asyncio.create_task(job()) for job in (committer.run, mailboxes.run)]  # noqa: TID251 -- ended below
        try:
            yield mailboxes
        finally:
            for job in reversed(jobs):
                job.cancel()
                await asyncio.wait([job])


@pytest.fixture
def site(engine: Database) -> Site:
    return Site(engine)


async def test_a_credential_in_its_own_row_is_used(site: Site) -> None:
    await site.add("ann", KEY.public_key().seal(ANN, PASSWORD))

    async with site.watched():
        await until(lambda: bool(site.office.requests))

    assert not site.branch.requests


@pytest.mark.parametrize("credential", EVERY_KIND)
async def test_a_row_that_names_another_configured_server_sends_it_nothing(
    site: Site, credential: StoredCredential
) -> None:
    await site.add("ann", KEY.public_key().seal(ANN, credential))
    await site.write(ANN.id, server="branch")

    async with site.watched():
        reason, detail = await site.reason_of(ANN.id)

    assert (reason, site.office.requests, site.branch.requests) == ("seal-broken", [], [])
    assert "another mailbox, server or user" in detail


@pytest.mark.parametrize("credential", EVERY_KIND)
async def test_a_mailbox_is_not_watched_with_the_credential_of_another_user(
    site: Site, credential: StoredCredential
) -> None:
    """Neither with the seal out of another row, nor with one made for this row: the public key is no secret."""
    bens = KEY.public_key().seal(BEN, BasicCredential(BEN.user, "canary"))
    await site.add("ben", bens)
    await site.write(BEN.id, sealed_credential=KEY.public_key().seal(ANN, credential))
    await site.add("ann", bens)
    carl = new_mailbox("carl")
    await site.add("carl", KEY.public_key().seal(carl, credential))

    async with site.watched():
        for id_ in (ANN.id, BEN.id, carl.id):
            assert (await site.reason_of(id_))[0] == "seal-broken"

    assert not site.office.requests


async def test_a_renamed_user_does_not_take_the_credential_along(site: Site) -> None:
    await site.add("ann", KEY.public_key().seal(ANN, PASSWORD))
    await site.write(ANN.id, user="chief@example.com")

    async with site.watched():
        assert (await site.reason_of(ANN.id))[0] == "seal-broken"


# --- databases of earlier versions


@pytest.fixture(params=["sqlite", "postgres"])
async def old_site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """Return a database as version 0006 of the schema left it, not upgraded yet."""
    name = server = None
    url = f"sqlite:///{tmp_path / 'old.db'}"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        assert isinstance(server, PostgresServer)
        name = await server.create()
        url = server.url(name)
    async with open_database(url) as engine:
        async with transaction(engine) as connection:
            await connection.run_sync(_to_0006)
        yield Site(engine)
    if server is not None and name is not None:
        await server.drop(name)


def _to_0006(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, "0006")


def former_seal(owner: Any, credential: StoredCredential) -> bytes:
    return old_seal(KEY.public_key(), owner, credential)


async def _add_old(site: Site, name: str, sealed: bytes, shard: int = SHARD) -> None:
    """Add a watched mailbox with the statements of the version before."""
    async with transaction(site.engine) as connection:
        await connection.execute(
            sa.text(
                'INSERT INTO mailbox (id, server, "user", device_id, shard, state, since, accepted, dirty, '
                "sealed_credential) "
                "VALUES (:id, 'office', :user, :device, :shard, 'starting', :since, true, false, :sealed)"
            ).bindparams(sa.bindparam("since", LATER, mailbox.c.since.type)),
            {"id": f"mb-{name}", "user": f"{name}@example.com", "device": "D" * 32, "shard": shard, "sealed": sealed},
        )
        await connection.execute(
            sa.text(
                "INSERT INTO registration (id, mailbox_id, secret_hash, app, platform, environment, device_token,"
                " token_since, classes, mode, locale, state, created_at) VALUES (:id, :mailbox, :hash, 'mail', 'apns',"
                " 'production', :token, :since, '[\"email\"]', 'alert', 'de', 'active', :since)"
            ).bindparams(sa.bindparam("since", LATER, mailbox.c.since.type)),
            {"id": f"reg-{name}-phone", "mailbox": f"mb-{name}", "hash": b"h" * 32, "token": f"token-{name}"},
        )


async def test_credentials_of_an_earlier_version_go_on_working_and_are_sealed_anew(old_site: Site) -> None:
    before = former_seal(ANN, PASSWORD)
    await _add_old(old_site, "ann", before)
    await upgrade(old_site.engine)
    assert await old_site.settled() == set()

    async with old_site.watched():
        await until(lambda: bool(old_site.office.requests))
        await until(old_site.all_settled)

    sealed = (await old_site.row(ANN.id)).sealed_credential
    assert sealed != before
    assert KEY.open(ANN, sealed) == PASSWORD


async def test_a_candidate_of_an_earlier_version_is_still_shown_to_its_server(old_site: Site) -> None:
    await upgrade(old_site.engine)
    async with transaction(old_site.engine) as connection:
        await connection.execute(sa.delete(sealed_anew))
    await old_site.registrations.create(ANN, new_registration("ann", created_at=now()), former_seal(ANN, PASSWORD))

    async with old_site.watched():
        await until(lambda: bool(old_site.office.requests))

    async with transaction(old_site.engine) as connection:
        sealed = await connection.scalar(sa.select(candidate.c.sealed))
    assert sealed is not None
    assert KEY.open(ANN, sealed) == PASSWORD


async def test_the_old_form_is_taken_once_and_never_again(old_site: Site) -> None:
    await _add_old(old_site, "ann", former_seal(ANN, PASSWORD))
    await upgrade(old_site.engine)
    async with old_site.watched():
        await until(lambda: bool(old_site.office.requests))
    old_site.office.requests.clear()

    await old_site.write(ANN.id, sealed_credential=former_seal(ANN, PASSWORD), server="branch")
    async with old_site.watched():
        reason, detail = await old_site.reason_of(ANN.id)

    assert (reason, old_site.branch.requests) == ("seal-broken", [])
    assert "older version" in detail


async def test_the_credential_of_another_user_is_not_sealed_anew(old_site: Site) -> None:
    await _add_old(old_site, "ann", former_seal(ANN, BasicCredential("ben@example.com", "canary")))
    await _add_old(old_site, "ben", former_seal(BEN, BasicCredential("ben@example.com", "canary")))
    await upgrade(old_site.engine)

    async with old_site.watched():
        assert (await old_site.reason_of(ANN.id))[0] == "seal-broken"
        await until(old_site.all_settled)


@pytest.mark.parametrize(("ann", "ben"), [(SHARD, SHARDS[-1]), (SHARDS[-1], SHARD)])
async def test_a_seal_that_opens_settles_shards_that_were_read_before_and_come_after(
    old_site: Site, ann: int, ben: int
) -> None:
    await _add_old(old_site, "ann", former_seal(ANN, BasicCredential("ben@example.com", "canary")), ann)
    await _add_old(old_site, "ben", former_seal(BEN, BasicCredential("ben@example.com", "canary")), ben)
    await upgrade(old_site.engine)

    async with old_site.watched():
        await until(old_site.all_settled)


async def test_a_watch_role_with_a_wrong_key_settles_no_shard_with_old_seals(old_site: Site) -> None:
    """The administrator restored the wrong key file: with the right one, all goes on."""
    await _add_old(old_site, "ann", former_seal(ANN, PASSWORD))
    await upgrade(old_site.engine)
    async with old_site.watched(SealingPrivateKey(X25519PrivateKey.generate())):
        assert (await old_site.reason_of(ANN.id))[0] == "seal-broken"
        await until(old_site.settled)  # shards without such seals
    assert SHARD not in await old_site.settled()

    async with old_site.watched():
        await until(lambda: bool(old_site.office.requests))


async def test_a_new_installation_takes_no_seals_of_the_old_form(site: Site) -> None:
    await site.add("ann", former_seal(ANN, PASSWORD))

    async with site.watched():
        assert (await site.reason_of(ANN.id))[0] == "seal-broken"

    assert not site.office.requests


async def test_the_migration_of_a_new_database_notes_all_shards(old_site: Site) -> None:
    await upgrade(old_site.engine)

    assert await old_site.settled() == set(SHARDS)


async def test_a_new_credential_is_bound_as_the_first_one_is(site: Site) -> None:
    await site.add("ann", KEY.public_key().seal(ANN, PASSWORD))
    fresh = KEY.public_key().seal(ANN, BasicCredential(ANN.user, "new"))
    await site.registrations.change(new_registration("ann").id, RegistrationChange(sealed_candidate=fresh), LATER)
    await site.write(ANN.id, server="branch", dirty=True)

    async with site.watched():
        assert (await site.reason_of(ANN.id))[0] == "seal-broken"

    assert not site.branch.requests
