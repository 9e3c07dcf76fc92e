"""Seals for a former key are replaced while mailboxes are watched, and nothing is lost, whatever comes in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.names import MailboxId
from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder
from relay.process.clock import now
from relay.security.sealing import SealingPrivateKey
from relay.store.engine import Database
from relay.store.key_holders import FRESH, SqlKeyHolderStore
from relay.store.seals import count_seals
from relay.store.tables import node
from relay.watch import turnover
from relay.watch.mailboxes import Mailboxes
from relay.watch.oauth_grants import Grants
from relay.watch.turnover import Turnover
from tests.contract.samples import LATER, NOW, candidate_of, new_mailbox, new_registration
from tests.contract.test_bound_seals import ANN, BEN, PASSWORD, SHARDS, Site
from tests.transactions import transaction
from tests.waiting import until

FORMER, PRESENT = X25519PrivateKey.generate(), X25519PrivateKey.generate()
OLD, BOTH, NEW = SealingPrivateKey(FORMER), SealingPrivateKey(PRESENT, [FORMER]), SealingPrivateKey(PRESENT)
HEAD = NEW.public_key().head


@pytest.fixture
def site(engine: Database) -> Site:
    return Site(engine)


@asynccontextmanager
async def turning(
    site: Site, mailboxes: Mailboxes, agreement: SimpleNamespace | None = None
) -> AsyncIterator[Turnover]:
    """Run the turnover beside watched mailboxes, which began with the former key alone."""
    accounts, random = mailboxes._accounts, Random(1)
    grants = Grants(OLD, site.watches, random)
    agreed = agreement or SimpleNamespace(settled=True)
    turns = Turnover(accounts, grants, site.watches, mailboxes, agreed, random)
    job = asyncio.create_task(turns.run())  # noqa: TID251 -- ended below
    try:
        yield turns
    finally:
        job.cancel()
        await asyncio.wait([job])


async def seals(site: Site, id_: MailboxId = ANN.id) -> list[bytes]:
    return await site.watches.seals(id_)


async def test_credentials_are_sealed_for_the_present_key_under_their_held_pings(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnover, "BATCH", 2)  # three transactions
    monkeypatch.setattr(turnover, "PAUSE", 0.0)
    names = [f"user{number}" for number in range(5)]
    for name in names:
        owner = new_mailbox(name)
        await site.add(name, OLD.public_key().seal(owner, BasicCredential(owner.user, "canary")))
    async with site.watched(OLD) as mailboxes, turning(site, mailboxes) as turns:
        await until(lambda: len(site.office.requests) == 5)
        turns.use(BOTH)

        async def renewed() -> bool:
            return set(await site.engine.run(count_seals)) == {HEAD}

        await until(renewed)
        await until(lambda: turns.progress.renewed == 5 and not turns.progress.left)
        await site.write(new_mailbox(names[0]).id, dirty=True)  # the watch is compared with its row
        await asyncio.sleep(0.2)
        assert len(site.office.requests) == 5, "a watch began again"
    for name in names:
        (seal,) = await seals(site, new_mailbox(name).id)
        assert NEW.open(new_mailbox(name), seal).user == new_mailbox(name).user


async def test_nothing_is_sealed_for_a_key_that_another_process_lacks(site: Site) -> None:
    await site.add("ann", OLD.public_key().seal(ANN, PASSWORD))
    agreement = SimpleNamespace(settled=False)
    async with site.watched(OLD) as mailboxes, turning(site, mailboxes, agreement) as turns:
        await until(lambda: bool(site.office.requests))
        turns.use(BOTH)
        await until(lambda: turns.progress.left == 1)
        await asyncio.sleep(0.3)
        assert (await seals(site))[0].startswith(OLD.public_key().head)
        agreement.settled = True

        async def renewed() -> bool:
            return (await seals(site))[0].startswith(HEAD)

        await until(renewed)
        await until(lambda: turns.progress.left == 0)


async def test_a_mailbox_whose_key_was_missing_is_watched_once_the_key_is_there(site: Site) -> None:
    await site.add("ann", NEW.public_key().seal(ANN, PASSWORD))
    async with site.watched(OLD) as mailboxes, turning(site, mailboxes) as turns:
        assert (await site.reason_of(ANN.id))[0] == "seal-broken"
        turns.use(BOTH)
        await until(lambda: bool(site.office.requests))


async def test_seals_that_no_key_opens_are_counted_and_left(site: Site) -> None:
    lost = SealingPrivateKey(X25519PrivateKey.generate()).public_key().seal(ANN, PASSWORD)
    await site.add("ann", lost)
    async with site.watched(BOTH) as mailboxes, turning(site, mailboxes) as turns:
        await until(lambda: turns.progress.closed == 1)
        assert (turns.progress.left, turns.progress.renewed) == (1, 0)
    assert await seals(site) == [lost]


async def test_a_newer_credential_is_not_replaced_by_an_older_one(site: Site) -> None:
    before = OLD.public_key().seal(ANN, PASSWORD)
    await site.add("ann", before)
    fresh = OLD.public_key().seal(ANN, BasicCredential(ANN.user, "new"))
    await site.write(ANN.id, sealed_credential=fresh)

    written = await site.watches.turn_over({ANN.id: {before: NEW.public_key().seal(ANN, PASSWORD)}})

    assert (written, await seals(site)) == ({}, [fresh])


async def test_a_candidate_is_sealed_anew_and_its_mailbox_looked_at_again(site: Site) -> None:
    before, after = OLD.public_key().seal(ANN, PASSWORD), NEW.public_key().seal(ANN, PASSWORD)
    registration = new_registration("ann", created_at=now())
    await site.registrations.create(ANN, registration, before)
    await site.write(ANN.id, dirty=False)
    (found,) = await site.watches.sealed_otherwise(SHARDS, HEAD, None, 10)
    assert (found.id, found.user, found.seals) == (ANN.id, ANN.user, (before,))
    assert await site.watches.count_sealed_otherwise(SHARDS, HEAD) == 1

    written = await site.watches.turn_over({ANN.id: {before: after}})

    assert (written, await seals(site)) == ({ANN.id: {before: after}}, [after])
    assert (await site.row(ANN.id)).dirty
    await site.watches.accept(candidate_of(registration, after), LATER)
    assert await site.watches.sealed_otherwise(SHARDS, HEAD, None, 10) == []
    assert await site.engine.run(count_seals) == {HEAD: (1, 0)}


async def test_seals_are_read_in_parts_of_the_shards_that_are_asked_for(site: Site) -> None:
    for name in ("ann", "ben", "cleo"):
        owner = new_mailbox(name)
        await site.add(name, OLD.public_key().seal(owner, BasicCredential(owner.user, "canary")))
    ids = sorted(new_mailbox(name).id for name in ("ann", "ben", "cleo"))

    first = await site.watches.sealed_otherwise(SHARDS, HEAD, None, 2)
    rest = await site.watches.sealed_otherwise(SHARDS, HEAD, first[-1].id, 2)

    assert [each.id for each in (*first, *rest)] == ids
    assert await site.watches.sealed_otherwise([], HEAD, None, 2) == []
    assert await site.watches.sealed_otherwise(SHARDS, OLD.public_key().head, None, 2) == []


async def test_a_candidate_for_a_key_that_was_missing_is_looked_at_again(site: Site) -> None:
    await site.registrations.create(ANN, new_registration("ann"), NEW.public_key().seal(ANN, PASSWORD))
    await site.registrations.create(BEN, new_registration("ben"), OLD.public_key().seal(BEN, PASSWORD))
    for id_ in (ANN.id, BEN.id):
        await site.write(id_, dirty=False)

    await site.watches.look_at_seals(SHARDS, [NEW.public_key().id])

    assert ((await site.row(ANN.id)).dirty, (await site.row(BEN.id)).dirty) == (True, False)


# --- grants, whose refresh tokens are replaced by the token endpoint at any moment


async def test_a_rotated_grant_is_kept_though_its_seal_was_replaced_meanwhile(site: Site) -> None:
    """The holder of the grant knows the seal of the start; the row has one for another key by now."""
    grant = OAuthCredential(ANN.user, "first", "app")
    before = OLD.public_key().seal(ANN, grant)
    await site.add("ann", before)
    record = await site.watches.record(ANN.id, NOW)
    assert record is not None
    grants = Grants(BOTH, site.watches, Random(1))
    await site.watches.turn_over({ANN.id: {before: NEW.public_key().seal(ANN, grant)}})

    await grants.keep(record.mailbox, before, grant.rotated("second"))

    (kept,) = await seals(site)
    assert BOTH.open(ANN, kept) == grant.rotated("second")


async def test_a_rotated_grant_does_not_take_the_place_of_a_newer_credential(site: Site) -> None:
    grant = OAuthCredential(ANN.user, "first", "app")
    before, other = OLD.public_key().seal(ANN, grant), OLD.public_key().seal(ANN, PASSWORD)
    await site.add("ann", before)
    record = await site.watches.record(ANN.id, NOW)
    assert record is not None
    await site.write(ANN.id, sealed_credential=other)

    await Grants(BOTH, site.watches, Random(1)).keep(record.mailbox, before, grant.rotated("second"))

    assert await seals(site) == [other]


# --- who has which key


async def test_processes_see_the_keys_of_those_that_run(engine: Database) -> None:
    store = SqlKeyHolderStore(engine)
    api = KeyHolder("api-1", Role.API, frozenset(), "aa")
    watch = KeyHolder("watch-1", Role.WATCH, frozenset({"aa", "bb"}), "aa")
    await store.note(api, NOW)
    await store.note(watch, NOW)
    async with transaction(engine) as connection:
        for name in ("watch-1.2", "watch-9"):  # one that joined once more, and one of an older version
            values = {"id": name, "version": "0", "joined_at": NOW, "beat_at": NOW, "alive_until": LATER}
            await connection.execute(sa.insert(node).values(values))

    silent = KeyHolder("watch-9", Role.WATCH, frozenset(), "")
    assert await store.holders(NOW) == [api, watch, silent]

    assert await store.holders(LATER) == [api, replace(watch, leased=False)], "their leases have ended"

    later = NOW + FRESH + timedelta(seconds=1)
    await store.note(KeyHolder("watch-2", Role.WATCH, frozenset({"bb"}), "bb"), later)
    assert [each.node for each in await store.holders(max(later, LATER))] == ["watch-2"]
    await store.leave("watch-2")
    assert await store.holders(max(later, LATER)) == []
