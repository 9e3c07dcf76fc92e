"""Test that registrations survive as the API role stored them, and wake the watch role."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.errors import MailboxExists, RegistrationExists
from relay.domain.model import (
    Environment,
    Mark,
    Mode,
    NewMailbox,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
)
from relay.domain.outcome import RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.ports.wakeups import Topic
from relay.store.engine import Database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import candidate, mailbox
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    LATER,
    NOW,
    SHARD,
    activate,
    candidate_of,
    leases,
    marks,
    new_mailbox,
    new_registration,
    register,
)
from tests.transactions import transaction


async def viewed(store: SqlRegistrationStore, registration_id: RegistrationId) -> RegistrationView:
    found = await store.view(registration_id)
    assert found is not None
    return found


async def dirty(engine: Database) -> set[str]:
    async with transaction(engine) as connection:
        return set(await connection.scalars(sa.select(mailbox.c.id).where(mailbox.c.dirty)))


async def test_a_created_registration_is_read_back_whole(registrations: SqlRegistrationStore) -> None:
    registration = await register(registrations)

    view = await viewed(registrations, registration.id)

    assert view.registration == registration
    assert view.candidate_pending
    assert not view.candidate_refused
    assert view.mailbox.id == registration.mailbox_id
    assert (view.mailbox.server, view.mailbox.user, view.mailbox.shard) == ("office", "ann@example.com", SHARD)
    assert (view.mailbox.state, view.mailbox.since) == (WatchState.VERIFYING, NOW)
    assert await registrations.mailbox_of("office", "ann@example.com") == view.mailbox


async def test_a_mailbox_is_found_by_its_exact_names_only(registrations: SqlRegistrationStore) -> None:
    await register(registrations)

    assert await registrations.mailbox_of("office", "Ann@example.com") is None
    assert await registrations.mailbox_of("branch", "ann@example.com") is None
    assert await registrations.view(RegistrationId("missing")) is None


async def test_a_second_registration_joins_the_mailbox(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, device="phone")
    tablet = await register(registrations, device="tablet")

    view = await viewed(registrations, tablet.id)

    assert view.mailbox.state is WatchState.STARTING
    record = await watches.record(tablet.mailbox_id, NOW)
    assert record is not None
    assert record.registrations == 2


async def test_a_mailbox_kept_under_another_id_is_reported(registrations: SqlRegistrationStore) -> None:
    await register(registrations)
    known = new_mailbox()
    other = NewMailbox(MailboxId("mb-other"), known.server, known.user, known.device_id, known.shard)

    with pytest.raises(MailboxExists):
        await registrations.create(other, new_registration(device="tablet", mailbox_id=other.id), b"sealed")

    assert await registrations.view(RegistrationId("reg-ann-tablet")) is None


async def test_creating_marks_the_mailbox_dirty_and_wakes_the_watch_role(
    registrations: SqlRegistrationStore, wakeups: LocalWakeups, engine: Database
) -> None:
    waiter = wakeups.waiter(Topic.MAILBOXES)

    await register(registrations)

    assert await dirty(engine) == {"mb-ann"}
    assert waiter.woken


async def test_a_change_sets_only_what_it_names(registrations: SqlRegistrationStore) -> None:
    registration = await register(registrations)

    await registrations.change(registration.id, RegistrationChange(locale="en"), LATER)

    now = (await viewed(registrations, registration.id)).registration
    assert now.locale == "en"
    assert (now.device_token, now.token_since) == (registration.device_token, NOW)
    assert (now.classes, now.mode, now.environment) == (registration.classes, registration.mode, Environment.PRODUCTION)


async def test_a_change_of_everything_is_read_back(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, wakeups: LocalWakeups
) -> None:
    registration = await activate(registrations, watches)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    waiter = wakeups.waiter(Topic.MAILBOXES)
    tasks = frozenset({CollectionClass.TASKS})

    await registrations.change(
        registration.id,
        RegistrationChange("token-new", Environment.SANDBOX, tasks, Mode.BACKGROUND, "fr", b"sealed-new", tasks),
        LATER,
    )

    view = await viewed(registrations, registration.id)
    now = view.registration
    assert (now.device_token, now.token_since, now.environment) == ("token-new", LATER, Environment.SANDBOX)
    assert (now.classes, now.mode, now.locale) == (tasks, Mode.BACKGROUND, "fr")
    assert now.subfolders == tasks
    await registrations.change(registration.id, RegistrationChange(subfolders=frozenset()), LATER)
    assert (await viewed(registrations, registration.id)).registration.subfolders == frozenset()
    assert now.state is RegistrationState.ACTIVE
    assert view.candidate_pending
    assert await dirty(engine) == {"mb-ann"}
    assert waiter.woken


async def test_a_new_candidate_replaces_one_that_still_waits(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    registration = await register(registrations)

    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"sealed-new"), LATER)

    async with transaction(engine) as connection:
        assert list(await connection.scalars(sa.select(candidate.c.sealed))) == [b"sealed-new"]


async def test_a_new_token_revives_a_registration_whose_token_was_gone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await registrations.mark(registration.id, Mark.TEST, NOW)
    (push,) = (await outbox.claim(registration.platform, 10, "push-1", LATER, NOW)).pushes
    await outbox.settle([Settlement(push, TokenGone("Unregistered"))], NOW)
    assert (await viewed(registrations, registration.id)).registration.state is RegistrationState.TOKEN_GONE

    await registrations.change(registration.id, RegistrationChange(locale="en"), LATER)
    assert (await viewed(registrations, registration.id)).registration.state is RegistrationState.TOKEN_GONE
    await registrations.change(registration.id, RegistrationChange(device_token="fresh"), LATER)

    assert (await viewed(registrations, registration.id)).registration.state is RegistrationState.ACTIVE


async def test_a_new_token_does_not_activate_what_was_never_proved(registrations: SqlRegistrationStore) -> None:
    registration = await register(registrations)

    await registrations.change(registration.id, RegistrationChange(device_token="fresh"), LATER)

    assert (await viewed(registrations, registration.id)).registration.state is RegistrationState.VERIFYING


async def test_a_new_token_need_not_wait_for_the_retry_of_the_old_one(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await registrations.mark(registration.id, Mark.TEST, NOW)
    (push,) = (await outbox.claim(registration.platform, 10, "push-1", LATER, NOW)).pushes
    await outbox.settle([Settlement(push, RetryLater("busy"), NOW + timedelta(hours=1))], NOW)

    await registrations.change(registration.id, RegistrationChange(device_token="fresh"), LATER)

    assert await outbox.next_due(registration.platform) == LATER


async def test_a_refused_registration_gets_another_chance_with_a_new_candidate(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await register(registrations)
    await watches.refuse(candidate_of(registration), NOW)

    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"right"), LATER)

    view = await viewed(registrations, registration.id)
    assert view.registration.state is RegistrationState.VERIFYING
    assert view.candidate_pending


async def test_removing_deletes_marks_and_candidate_and_leaves_the_mailbox_dirty(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, wakeups: LocalWakeups
) -> None:
    registration = await register(registrations)
    await registrations.mark(registration.id, Mark.TEST, NOW)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    waiter = wakeups.waiter(Topic.MAILBOXES)

    await registrations.remove(registration.id, NOW)

    assert await registrations.view(registration.id) is None
    assert await marks(engine) == {}
    async with transaction(engine) as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(candidate)) == 0
    assert await dirty(engine) == {"mb-ann"}
    assert waiter.woken


async def test_what_is_not_there_is_changed_removed_and_marked_without_complaint(
    registrations: SqlRegistrationStore, engine: Database
) -> None:
    missing = RegistrationId("missing")

    await registrations.change(missing, RegistrationChange(device_token="t", sealed_candidate=b"s"), NOW)
    await registrations.remove(missing, NOW)
    await registrations.mark(missing, Mark.TEST, NOW)

    assert await marks(engine) == {}


async def test_a_mark_by_hand_is_due_now_and_wakes_the_push_role(
    registrations: SqlRegistrationStore, engine: Database, wakeups: LocalWakeups
) -> None:
    registration = await register(registrations)
    waiter = wakeups.waiter(Topic.OUTBOX_APNS)

    await registrations.mark(registration.id, Mark.TEST, NOW)
    await registrations.mark(registration.id, Mark.TEST, LATER)

    (row,) = (await marks(engine)).values()
    assert (row.changes, row.generation, row.first_at, row.last_at, row.due_at) == (2, 2, NOW, LATER, NOW)
    assert waiter.woken


async def test_many_registrations_are_read_at_once_but_not_again_while_their_candidate_waits(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    first, second, waits = [await register(registrations, device=f"phone{number}") for number in range(3)]
    await watches.accept(candidate_of(first), NOW)
    await watches.refuse(candidate_of(second), NOW)

    ids = [first.id, second.id, waits.id, RegistrationId("nobody")]
    views = {id_: await viewed(registrations, id_) for id_ in ids[:3]}

    assert await registrations.look_at(ids, []) == views
    assert await registrations.look_at(ids, ids) == {**views, waits.id: None}
    assert await registrations.look_at([waits.id], [waits.id]) == {waits.id: None}


async def test_a_registration_replaces_unchecked_ones_of_the_same_device(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    proved = new_registration("ann", "proved", device_token="same")
    first = new_registration("ann", "first", device_token="same")
    pad = new_registration("ann", "pad", device_token="another")
    again = new_registration("ann", "again", device_token="same")
    await registrations.create(new_mailbox(), proved, b"sealed")
    await watches.accept(candidate_of(proved), NOW)
    for each in (first, pad, again):
        await registrations.create(new_mailbox(), each, b"sealed")

    assert await registrations.view(first.id) is None
    for each in (proved, pad, again):
        assert await registrations.view(each.id) is not None


async def test_the_id_of_a_registration_is_used_once(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    made = await register(registrations)

    for name in ("ann", "ben"):
        taken = new_registration(name, id=made.id, device_token=made.device_token)
        with pytest.raises(RegistrationExists):
            await registrations.create(new_mailbox(name), taken, b"other")

    async with transaction(engine) as connection:
        assert list(await connection.scalars(sa.select(candidate.c.sealed))) == [b"sealed"]
        assert list(await connection.scalars(sa.select(mailbox.c.id))) == ["mb-ann"]


async def test_the_proof_of_the_last_credential_is_kept(registrations: SqlRegistrationStore) -> None:
    made = await register(registrations, credential_proof=b"first")
    assert (await viewed(registrations, made.id)).registration.credential_proof == b"first"

    await registrations.change(made.id, RegistrationChange(locale="fr"), LATER)
    assert (await viewed(registrations, made.id)).registration.credential_proof == b"first"
    change = RegistrationChange(sealed_candidate=b"new", credential_proof=b"second")
    await registrations.change(made.id, change, LATER)
    assert (await viewed(registrations, made.id)).registration.credential_proof == b"second"
    await registrations.change(made.id, RegistrationChange(sealed_candidate=b"newer"), LATER)
    assert (await viewed(registrations, made.id)).registration.credential_proof == b""


def spelled(user: str, id_: str, key: str | None) -> NewMailbox:
    return NewMailbox(MailboxId(id_), "office", user, new_mailbox().device_id, SHARD, key)


async def test_a_mailbox_is_found_by_the_key_of_its_user_unless_one_has_the_very_name(
    registrations: SqlRegistrationStore,
) -> None:
    for number, (user, key) in enumerate((("Ann", "ann"), ("b", "ann@example.com"), ("ANN", None))):
        registration = new_registration(device=f"d{number}", mailbox_id=MailboxId(user))
        await registrations.create(spelled(user, user, key), registration, b"sealed")

    async def found(user: str, *keys: str, server: str = "office") -> str | None:
        mailbox = await registrations.mailbox_of(server, user, keys)
        return None if mailbox is None else mailbox.user

    assert await found("aNN", "ann", "ann@example.com") == "Ann"
    assert await found("aNN", "ann@example.com") == "b"
    assert await found("ANN", "ann") == "ANN"
    assert await found("aNN") is None
    assert await found("aNN", "ann", server="branch") is None


async def test_two_spellings_of_one_user_are_not_two_mailboxes(registrations: SqlRegistrationStore) -> None:
    first = new_registration(mailbox_id=MailboxId("one"))
    await registrations.create(spelled("Ann", "one", "ann"), first, b"sealed")
    second = new_registration(device="pad", mailbox_id=MailboxId("two"))

    with pytest.raises(MailboxExists):
        await registrations.create(spelled("ann", "two", "ann"), second, b"sealed")
    await registrations.create(spelled("ann", "two", None), second, b"sealed")
