"""Test what the database keeps of the canary, on both databases and with the rights of each role."""

from datetime import timedelta

from relay.domain.canary import Reading, Shown, Turn
from relay.domain.model import Platform, RegistrationId
from relay.domain.ports.canary import CanaryRegistration
from relay.store.canary import SqlCanaryStore
from relay.store.engine import Database
from relay.store.registrations import SqlRegistrationStore
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NOW, activate

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ID = RegistrationId("a-registration-of-canary")


async def test_one_process_sends_a_mail_in_an_interval_and_another_one_takes_over(engine: Database) -> None:
    store = SqlCanaryStore(engine)

    assert await store.claim("one", NOW, MINUTE) is Turn.NOW
    assert await store.claim("one", NOW + MINUTE / 2, MINUTE) is Turn.LATER
    assert await store.claim("two", NOW + 1.5 * MINUTE, MINUTE) is Turn.ANOTHERS
    assert await store.claim("one", NOW + 1.5 * MINUTE, MINUTE) is Turn.NOW
    assert await store.claim("two", NOW + 3 * MINUTE, MINUTE) is Turn.ANOTHERS
    assert await store.claim("two", NOW + 3.5 * MINUTE, MINUTE) is Turn.NOW
    assert await store.claim("one", NOW + 4.5 * MINUTE, MINUTE) is Turn.ANOTHERS
    # A moment of a clock that was ahead holds nothing back.
    assert await store.claim("two", NOW - HOUR, MINUTE) is Turn.NOW


async def test_one_process_registers_at_a_time(engine: Database) -> None:
    store = SqlCanaryStore(engine)
    assert await store.registration() == CanaryRegistration()
    assert await store.device() is None

    assert await store.may_try(NOW, MINUTE)
    assert not await store.may_try(NOW + MINUTE / 2, MINUTE)
    await store.refused("credential-refused", NOW)
    assert await store.registration() == CanaryRegistration(None, NOW)
    await store.refused("unreachable", None)
    assert await store.registration() == CanaryRegistration(None, NOW)

    assert await store.may_try(NOW + MINUTE, MINUTE)
    await store.registered(ID, b"the key of a device")
    assert await store.registration() == CanaryRegistration(ID, None)
    assert await store.device() == (ID, b"the key of a device")


async def test_a_mailbox_that_is_not_there_has_its_reason(engine: Database) -> None:
    store = SqlCanaryStore(engine)
    assert await store.reading("main", "ann", ["ann"], NOW) == Reading(watched=False, why="not-registered")

    await store.may_try(NOW, MINUTE)
    await store.refused("credential-refused", NOW)
    assert await store.reading("main", "ann", ["ann"], NOW) == Reading(watched=False, why="credential-refused")


async def test_what_devices_showed_is_kept_until_the_next_mail_and_the_first_word_counts(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    store = SqlCanaryStore(engine)
    own = await activate(registrations, watches)
    view = await registrations.view(own.id)
    assert view is not None
    server, user = view.mailbox.server, view.mailbox.user
    for noticed, shown in ((-1, 0), (1, 2), (1, 5), (3, 4)):
        await store.shown(Platform.WEBPUSH, Shown(NOW + noticed * MINUTE, NOW + shown * MINUTE))
    await store.shown(Platform.APNS, Shown(NOW + MINUTE, NOW + 7 * MINUTE))

    found = await store.reading(server, user, [], NOW)

    assert found.shown == {
        Platform.WEBPUSH: Shown(NOW + MINUTE, NOW + 2 * MINUTE),
        Platform.APNS: Shown(NOW + MINUTE, NOW + 7 * MINUTE),
    }
    assert (found.watched, found.why) == (False, "starting")
    assert (await store.reading(server, user, [], NOW + HOUR)).shown == {}
    await store.claim("one", NOW, MINUTE)
    assert (await store.reading(server, user, [], NOW)).shown == {}, "they were deleted"


async def test_a_refused_credential_for_sending_is_kept_until_one_is_taken(engine: Database) -> None:
    store = SqlCanaryStore(engine)
    await store.claim("one", NOW, MINUTE)
    assert await store.mail_refused_at() is None

    await store.mail_refused(NOW)
    assert await store.mail_refused_at() == NOW
    await store.mail_refused(None)
    assert await store.mail_refused_at() is None
