"""Test shadow mode on each kind of database: what it settles, and which mail server it asks for."""

from datetime import timedelta

import pytest

from relay.domain.model import RegistrationId
from relay.domain.outcome import LastOutcome, Shadowed
from relay.store.outbox import SqlOutboxStore
from tests.contract.outbox_sites import OutboxSite
from tests.contract.samples import NOW

MINUTE = timedelta(minutes=1)


async def test_a_mark_that_was_held_back_is_gone_and_its_registration_says_why(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()

    await site.settle(await site.claim(), Shadowed())

    assert await site.marks() == {}
    found = await site.registered(registration)
    assert (found.last_outcome, found.last_push_at) == (LastOutcome.of(Shadowed()), None)


async def test_what_came_while_a_push_was_held_back_stays(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    pushes = await site.claim()
    await site.change(now=NOW + MINUTE)

    await site.settle(pushes, Shadowed(), NOW + MINUTE)

    [push] = await site.claim(NOW + 2 * MINUTE)
    assert (push.count, push.first_at, push.last_at) == (2, NOW + MINUTE, NOW + MINUTE)


@pytest.mark.parametrize("site_url", ["sqlite", "postgres"], indirect=True)
async def test_the_mail_server_of_a_registration_is_found(site: OutboxSite) -> None:
    registration = await site.activate()
    assert isinstance(site.outbox, SqlOutboxStore)

    assert await site.outbox.server_of(registration.id) == "office"
    assert await site.outbox.server_of(RegistrationId("nobody")) is None
