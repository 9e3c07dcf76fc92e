"""Test that one app on one device has one registration of a mailbox, whatever way it came."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import sqlalchemy as sa

from relay.domain.devices import fingerprint
from relay.domain.model import Environment, Platform, Registration, RegistrationChange, RegistrationState
from relay.store import migrate
from relay.store.engine import Database, open_database
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import mailbox
from relay.store.tables import registration as table
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    LATER,
    NOW,
    SHARD,
    activate,
    candidate_of,
    leases,
    new_mailbox,
    new_registration,
    register,
)
from tests.migrating import migrate_to
from tests.transactions import transaction

TOKEN: Final = "ab" * 32


async def left(engine: Database) -> set[str]:
    """Return the ids of all registrations without what the samples put before the device."""
    async with transaction(engine) as connection:
        return {id_.removeprefix("reg-ann-") for id_ in await connection.scalars(sa.select(table.c.id))}


async def set_columns(engine: Database, of: Registration, **columns: object) -> None:
    async with transaction(engine) as connection:
        await connection.execute(sa.update(table).where(table.c.id == of.id).values(columns))


async def test_a_registration_that_is_accepted_late_supersedes_its_twin(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, device="first", device_token=TOKEN)
    again = await register(registrations, device="again", device_token=TOKEN)
    assert await left(engine) == {"first", "again"}

    await watches.accept(candidate_of(again), LATER)

    assert await left(engine) == {"again"}


async def test_a_refused_registration_supersedes_nothing(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, device="first", device_token=TOKEN)
    again = await register(registrations, device="again", device_token=TOKEN)

    await watches.refuse(candidate_of(again), LATER)

    assert await left(engine) == {"first", "again"}


async def test_nobody_ends_a_registration_that_shows_its_new_password_by_its_token(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    first = await activate(registrations, watches, device="first", device_token=TOKEN)
    await set_columns(engine, first, state=RegistrationState.VERIFYING.value)
    await registrations.change(first.id, RegistrationChange(sealed_candidate=b"new"), LATER)

    stranger = await register(registrations, device="stranger", device_token=TOKEN)
    await watches.refuse(candidate_of(stranger), LATER)
    assert await left(engine) == {"first", "stranger"}
    await watches.accept(candidate_of(first, b"new"), LATER)

    assert await left(engine) == {"first"}


async def test_only_the_same_app_on_the_same_device_is_superseded_and_only_of_the_same_mailbox(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    others = {"pad", "app", "build"}
    await activate(registrations, watches, device="pad", device_token="cd" * 32)
    await activate(registrations, watches, device="app", device_token=TOKEN, app="other app")
    await activate(registrations, watches, device="build", device_token=TOKEN, environment=Environment.SANDBOX)
    await activate(registrations, watches, "ben", device_token=TOKEN)

    await activate(registrations, watches, device="phone", device_token=TOKEN)

    assert await left(engine) == {*others, "phone", "reg-ben-phone"}


async def test_the_digits_of_an_apns_token_are_compared_without_case(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, device="first", device_token=TOKEN.upper())

    await activate(registrations, watches, device="again", device_token=TOKEN)

    assert await left(engine) == {"again"}


async def test_a_registration_that_gets_the_token_of_another_one_supersedes_it(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    kept = await activate(registrations, watches, device="kept", device_token="cd" * 32)
    await activate(registrations, watches, device="other", device_token=TOKEN)

    await registrations.change(kept.id, RegistrationChange(locale="en"), LATER)
    assert await left(engine) == {"kept", "other"}
    await registrations.change(kept.id, RegistrationChange(device_token=TOKEN), LATER)

    assert await left(engine) == {"kept"}


async def test_a_registration_that_gets_the_environment_of_another_one_supersedes_it(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    kept = await activate(registrations, watches, device="kept", device_token=TOKEN)
    await activate(registrations, watches, device="other", device_token=TOKEN, environment=Environment.SANDBOX)

    await registrations.change(kept.id, RegistrationChange(environment=Environment.SANDBOX), LATER)

    assert await left(engine) == {"kept"}


async def test_a_new_token_that_revives_a_registration_supersedes_its_twin(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    gone = await activate(registrations, watches, device="gone", device_token="cd" * 32)
    await set_columns(engine, gone, state=RegistrationState.TOKEN_GONE.value)
    await activate(registrations, watches, device="other", device_token=TOKEN)

    await registrations.change(gone.id, RegistrationChange(device_token=TOKEN), LATER)

    assert await left(engine) == {"gone"}


async def test_nobody_takes_a_registration_away_by_its_token_without_an_accepted_credential(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, device="victim", device_token=TOKEN)
    stranger = await register(registrations, device="stranger")
    await registrations.change(stranger.id, RegistrationChange(device_token=TOKEN), LATER)
    await watches.refuse(candidate_of(stranger), LATER)
    await registrations.change(stranger.id, RegistrationChange(device_token=TOKEN), LATER)

    assert await left(engine) == {"victim", "stranger"}


async def test_a_registration_whose_app_is_gone_supersedes_nothing_by_a_good_password(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    gone = await activate(registrations, watches, device="gone", device_token=TOKEN)
    await set_columns(engine, gone, state=RegistrationState.TOKEN_GONE.value, token_hash=None)
    await activate(registrations, watches, device="other", device_token=TOKEN)
    gone = await activate(registrations, watches, device="gone", device_token="cd" * 32)
    await set_columns(engine, gone, state=RegistrationState.TOKEN_GONE.value)
    async with transaction(engine) as connection:
        await connection.execute(sa.update(table).values(token_hash=fingerprint(Platform.APNS, TOKEN)))
    await registrations.change(gone.id, RegistrationChange(sealed_candidate=b"new"), LATER)

    await watches.accept(candidate_of(gone, b"new"), LATER)

    assert await left(engine) == {"gone", "other"}


async def test_a_wiped_twin_stays_until_its_last_push(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    wiped = await activate(registrations, watches, device="wiped", device_token=TOKEN)
    await set_columns(engine, wiped, state=RegistrationState.WIPED.value)

    await activate(registrations, watches, device="again", device_token=TOKEN)

    assert await left(engine) == {"wiped", "again"}


async def test_a_twin_that_waits_for_its_own_verdict_stays_and_supersedes_when_it_has_it(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    waiting = await register(registrations, device="waiting", device_token=TOKEN)
    await watches.refuse(candidate_of(waiting), NOW)
    other = await register(registrations, device="other", device_token=TOKEN)
    await registrations.change(waiting.id, RegistrationChange(sealed_candidate=b"new"), LATER)

    await watches.accept(candidate_of(other), LATER)
    assert await left(engine) == {"waiting", "other"}
    await watches.accept(candidate_of(waiting, b"new"), LATER)

    assert await left(engine) == {"waiting"}


@pytest.mark.parametrize("stale", [None, "of another token"])
async def test_what_an_older_version_wrote_is_mended_when_its_device_comes_again(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore, stale: str | None
) -> None:
    old = await activate(registrations, watches, device="old", device_token=TOKEN)
    await set_columns(engine, old, device_token=TOKEN.upper(), token_hash=stale)
    other = await activate(registrations, watches, device="other", device_token="cd" * 32)

    again = await register(registrations, device="again", device_token=TOKEN)
    await watches.accept(candidate_of(again), LATER)
    assert await left(engine) == {"again", "other"}
    await set_columns(engine, again, token_hash=stale)
    await registrations.change(other.id, RegistrationChange(device_token=TOKEN), LATER)

    assert await left(engine) == {"other"}


async def test_a_superseded_credential_leaves_no_trace_and_the_mailbox_is_looked_at_again(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    first = await activate(registrations, watches, device="first", device_token=TOKEN)
    await registrations.change(first.id, RegistrationChange(sealed_candidate=b"pending"), NOW)
    again = await register(registrations, device="again", device_token=TOKEN)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)

    await watches.accept(candidate_of(again), LATER)

    (record,) = await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    assert (record.registrations, record.candidates) == (1, ())


@pytest.fixture
async def other_engine(postgres_url: str) -> AsyncIterator[Database]:
    """The engine of another process on the same database."""
    async with open_database(postgres_url) as opened:
        yield opened


async def test_of_twins_that_are_accepted_and_moved_at_the_same_time_one_is_left(
    postgres_engine: Database, other_engine: Database
) -> None:
    api, watch = SqlRegistrationStore(other_engine, LocalWakeups()), SqlWatchStore(postgres_engine, LocalWakeups())
    for number in range(20):
        name = f"user{number:02}"
        moved = await activate(api, watch, name, "moved", device_token="cd" * 32)
        accepted = await register(api, name, "accepted", device_token=TOKEN)

        await asyncio.gather(
            api.change(moved.id, RegistrationChange(device_token=TOKEN), LATER),
            watch.accept(candidate_of(accepted), LATER),
            watch.accept(candidate_of(accepted), LATER),
        )

        active = [each for each in (moved, accepted) if await api.view(each.id) is not None]
        assert len(active) == 1


def _row(device: str, token: str, **changes: object) -> dict[str, Any]:
    new = new_registration(device=device)
    return {
        "id": device,
        "mailbox_id": new.mailbox_id,
        "secret_hash": b"h" * 32,
        "app": "mail",
        "platform": "apns",
        "environment": "production",
        "device_token": token,
        "token_since": NOW,
        "classes": ["email"],
        "mode": "alert",
        "locale": "en",
        "state": "active",
        "created_at": NOW,
        **changes,
    }


async def test_an_upgrade_leaves_one_of_the_twins_that_are_stored(before: Database) -> None:
    subscription = '{"auth":"A","endpoint":"https://push.example.com/ann","p256dh":"P"}'
    rows = [
        _row("old", TOKEN.upper()),
        _row("new", TOKEN, token_since=LATER),
        _row("b-made-later", "cd" * 32, created_at=LATER),
        _row("c-made-first", "CD" * 32),
        _row("by-id-1", "ef" * 32),
        _row("by-id-2", "ef" * 32),
        _row("verifying", TOKEN, state="verifying"),
        _row("fcm", "AbCd", platform="fcm"),
        _row("other-fcm", "aBcD", platform="fcm"),
        _row("fid", '{"fid":"cAAAAAAAAAAAAAAAAAAAAA"}', platform="fcm", token_since=LATER),
        _row("fcm-of-fid", "cAAAAAAAAAAAAAAAAAAAAA:token", platform="fcm"),
        _row("web", subscription, platform="webpush"),
        _row("broken", "[1]", platform="webpush"),
    ]
    async with transaction(before) as connection:
        mine = new_mailbox()
        values = {"id": mine.id, "server": mine.server, "user": mine.user, "device_id": mine.device_id}
        columns = {**values, "shard": SHARD, "state": "watching", "since": NOW}
        await connection.execute(sa.insert(mailbox).values(columns))
        for row in rows:
            await connection.execute(sa.insert(table).values(row))

    await migrate.upgrade(before)

    async with transaction(before) as connection:
        query = sa.select(table.c.id, table.c.device_token, table.c.token_hash, table.c.platform)
        found = {row.id: row for row in await connection.execute(query)}
        dirty = await connection.scalar(sa.select(mailbox.c.dirty))
    assert set(found) == {str(row["id"]) for row in rows} - {"old", "c-made-first", "by-id-1", "fcm-of-fid"}
    assert (found["new"].device_token, found["fcm"].device_token) == (TOKEN, "AbCd")
    assert dirty
    for each in found.values():
        assert each.token_hash == fingerprint(Platform(each.platform), each.device_token)


async def test_an_upgrade_gives_one_of_the_spellings_of_a_user_the_key(before: Database) -> None:
    await migrate_to(before, "0021")
    bare = {"device_id": "D", "shard": SHARD, "state": "watching", "since": NOW}
    rows = [("1", "office", "Ann", None), ("2", "office", "ANN", b"sealed"), ("3", "branch", "Ann", None)]
    async with transaction(before) as connection:
        for id_, server, user, sealed in rows:
            named = {"id": id_, "server": server, "user": user, "sealed_credential": sealed}
            await connection.execute(sa.insert(mailbox).values({**bare, **named}))

    await migrate.upgrade(before)

    async with transaction(before) as connection:
        query = sa.select(mailbox.c.id, mailbox.c.user_key)
        assert dict(await connection.rows(query)) == {"1": None, "2": "ann", "3": "ann"}
