"""Test that tries are counted before credentials are shown, whatever process shows them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.reasons import Reason
from relay.domain.model import Candidate, NewMailbox, RegistrationChange, RegistrationState
from relay.domain.ports.ops import RefusedLogins
from relay.domain.tries import Tries, TryLimits, Wait, Withdrawn
from relay.store import tries
from relay.store.engine import Database
from relay.store.ops import SqlOpsStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import mailbox
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    LATER,
    NOW,
    activate,
    candidate_of,
    entry,
    new_registration,
    own_all,
    register,
)
from tests.transactions import transaction

ANN = MailboxId("mb-ann")
WINDOW = timedelta(minutes=30)
SPELLINGS = ("ann@example.com", "ANN", "EXAMPLE\\ann", "ann@other.example", "a\u0301nn@example.com")


async def strangers(registrations: SqlRegistrationStore, user: str, number: int) -> Candidate:
    """Register a device for a user in some spelling; return its candidate."""
    mailbox = NewMailbox(MailboxId(f"mb-{user}"), "office", user, DeviceId("D" * 32), 7)
    registration = new_registration(user, f"device-{number}")
    await registrations.create(mailbox, registration, b"sealed")
    return candidate_of(registration)


async def test_strangers_have_two_tries_and_an_active_registration_the_third(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    phone = await activate(registrations, watches)
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"new"), NOW)
    others = [candidate_of(await register(registrations, device=f"other-{number}")) for number in range(3)]

    assert [await watches.spend(ANN, NOW, other) for other in others] == [None, None, Wait(1800.0)]
    assert await watches.spend(ANN, LATER) == Wait(1740.0)  # the watch leaves the third to the phone, too
    assert await watches.spend(ANN, LATER, candidate_of(phone, b"new")) is None
    assert await watches.spend(ANN, LATER, candidate_of(phone, b"new")) == Wait(1800.0)


async def test_all_spellings_of_an_account_share_its_tries(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    candidates = [await strangers(registrations, user, n) for n, user in enumerate(SPELLINGS)]

    waits = [await watches.spend(each.mailbox_id, NOW, each) for each in candidates]

    assert waits == [None, None, *[Wait(1800.0)] * 3]
    for user in SPELLINGS:
        assert (await registrations.load_of("office", "ann")).tries == Tries(2, NOW), user


async def test_tries_are_forgotten_a_window_after_the_last_one(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    first, second = [await strangers(registrations, user, n) for n, user in enumerate(SPELLINGS[:2])]
    assert await watches.spend(first.mailbox_id, NOW, first) is None
    assert await watches.spend(second.mailbox_id, NOW + WINDOW - timedelta(seconds=1), second) is None

    assert await watches.spend(first.mailbox_id, NOW + WINDOW, first) == Wait(1799.0)
    assert await watches.spend(first.mailbox_id, NOW + 2 * WINDOW, first) is None

    assert (await registrations.load_of("office", "ann")).tries == Tries(1, NOW + 2 * WINDOW)


async def test_a_success_forgets_the_tries_of_its_own_spelling_alone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    ann, other = [await strangers(registrations, user, n) for n, user in enumerate(SPELLINGS[:2])]
    await watches.spend(ann.mailbox_id, NOW, ann)
    await watches.spend(other.mailbox_id, NOW, other)

    await watches.succeeded(ann.mailbox_id)

    assert (await registrations.load_of("office", "ann")).tries == Tries(1, NOW)


async def test_candidates_wait_for_a_try_until_they_have_one(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    candidates = [await strangers(registrations, user, n) for n, user in enumerate(SPELLINGS)]
    assert (await registrations.load_of("office", "ann")).waiting == 5
    assert (await registrations.load_of("office", "ben")).waiting == 0

    await watches.spend(candidates[0].mailbox_id, NOW, candidates[0])

    assert (await registrations.load_of("office", "ann")).waiting == 4


async def test_the_first_refusal_of_a_watched_credential_counts_once_and_the_next_before_it_is_shown(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    waits = Condition(WatchState.WAITING, Reason.HTTP_401, retry_in=60.0)
    for _ in range(2):  # a commit whose end was unknown is made again
        await watches.commit([entry(epoch, Progress(condition=waits, refusals=1))], NOW)
    assert (await registrations.load_of("office", "ann")).tries == Tries(1, NOW)

    assert await watches.spend(ANN, LATER) is None
    await watches.commit([entry(epoch, Progress(condition=waits, refusals=2))], LATER)

    assert (await registrations.load_of("office", "ann")).tries == Tries(2, LATER)
    assert await watches.spend(ANN, LATER) == Wait(1800.0)


async def test_the_budget_of_a_server_holds_over_all_accounts(
    engine: Database, registrations: SqlRegistrationStore, wakeups: LocalWakeups
) -> None:
    watches = SqlWatchStore(engine, wakeups, {"office": TryLimits(WINDOW, 8)})
    phone = await activate(registrations, watches, "eve")
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"new"), NOW)
    candidates = [await strangers(registrations, f"user{number}", number) for number in range(8)]

    waits = [await watches.spend(each.mailbox_id, NOW, each) for each in candidates]

    assert waits == [None] * 6 + [Wait(1800.0, of_server=True)] * 2
    assert await watches.spend(phone.mailbox_id, NOW, candidate_of(phone, b"new")) is None
    counts = SqlOpsStore(engine, None, {"office": TryLimits(WINDOW, 8), "other": TryLimits()})
    assert await counts.refused_logins(NOW) == {
        "office": RefusedLogins(7, 8, 30, wait=True),
        "other": RefusedLogins(0, 100, 30, wait=False),
    }
    assert await SqlOpsStore(engine).refused_logins(NOW) == {}
    assert await watches.spend(MailboxId("mb-user7"), NOW + WINDOW, candidates[7]) is None


async def test_servers_of_one_directory_count_together(
    engine: Database, registrations: SqlRegistrationStore, wakeups: LocalWakeups
) -> None:
    limits = TryLimits(directory="company")
    watches = SqlWatchStore(engine, wakeups, {"office": limits, "second": limits})
    candidates = [await strangers(registrations, user, n) for n, user in enumerate(SPELLINGS[:3])]
    async with transaction(engine) as connection:
        moved = sa.update(mailbox).where(mailbox.c.id == candidates[1].mailbox_id)
        await connection.execute(moved.values(server="second"))

    waits = [await watches.spend(each.mailbox_id, NOW, each) for each in candidates]

    assert waits == [None, None, Wait(1800.0)]
    assert (await registrations.load_of("company", "ann")).tries == Tries(2, NOW)


async def test_refusals_are_counted_in_the_order_of_directory_and_account(
    engine: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, order = tries._add, list[tries.Login]()

    def note(connection: sa.Connection, login: tries.Login, *args: Any, **named: Any) -> None:
        order.append(login)
        add(connection, login, *args, **named)

    monkeypatch.setattr(tries, "_add", note)
    limits = dict.fromkeys(("office", "second"), TryLimits(directory="company"))
    refused = [tries.Login("office", "zed"), tries.Login("third", "ben"), tries.Login("second", "amy")]

    await engine.run(tries.count, refused, limits, NOW)

    assert order == [("company", "amy"), ("company", "zed"), ("third", "ben")]


async def test_processes_that_count_at_the_same_moment_count_one_after_the_other(
    engine: Database, registrations: SqlRegistrationStore, wakeups: LocalWakeups
) -> None:
    processes = [SqlWatchStore(engine, wakeups, {"office": TryLimits(WINDOW, 8)}) for _ in range(3)]
    users = [*(f"user{number}" for number in range(8)), *SPELLINGS]
    candidates = [await strangers(registrations, user, n) for n, user in enumerate(users)]

    waits = await asyncio.gather(
        *(process.spend(each.mailbox_id, NOW, each) for each in candidates for process in processes)
    )

    assert waits.count(None) == 6
    assert (await registrations.load_of("office", "ann")).tries.spent <= 2


@pytest.mark.parametrize("state", [RegistrationState.VERIFYING, RegistrationState.ACTIVE])
async def test_a_candidate_that_nobody_could_check_in_time_leaves_its_registration_as_it_was(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, state: RegistrationState
) -> None:
    phone = await (
        register(registrations) if state is RegistrationState.VERIFYING else activate(registrations, watches)
    )
    await registrations.change(phone.id, RegistrationChange(sealed_candidate=b"late"), NOW)

    await watches.expire(candidate_of(phone, b"late"))

    view = await registrations.view(phone.id)
    assert view is not None
    assert (view.registration.state, view.candidate_pending) == (state, False)
    assert view.candidate_refused is (state is RegistrationState.ACTIVE)


async def test_nothing_is_counted_for_a_mailbox_that_is_gone(watches: SqlWatchStore) -> None:
    assert await watches.spend(ANN, NOW) is None
    assert await watches.spend(ANN, NOW, candidate_of(new_registration("ann", "gone"))) is Withdrawn.CANDIDATE
    await watches.succeeded(ANN)


async def test_a_candidate_that_is_not_in_its_place_any_more_is_not_to_be_shown_and_counts_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    accepted, replaced = [await register(registrations, device=f"phone-{number}") for number in range(2)]
    await watches.accept(candidate_of(accepted), NOW)
    await registrations.change(replaced.id, RegistrationChange(sealed_candidate=b"new"), NOW)

    for phone in (accepted, replaced):
        assert await watches.spend(ANN, NOW, candidate_of(phone)) is Withdrawn.CANDIDATE

    assert (await registrations.load_of("office", "ann")).tries == Tries()
    assert await watches.spend(ANN, NOW, candidate_of(replaced, b"new")) is None


async def test_tries_that_cannot_be_read_are_all_spent(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL refuses what is no moment")
    phone = candidate_of(await register(registrations))
    assert await watches.spend(ANN, NOW, phone) is None
    async with transaction(engine) as connection:
        await connection.execute(sa.text("UPDATE tries SET last_at = 'zzz' WHERE account <> ''"))

    assert await watches.spend(ANN, NOW, phone) == Wait(1800.0)
    assert await watches.spend(ANN, NOW + WINDOW, phone) is None
