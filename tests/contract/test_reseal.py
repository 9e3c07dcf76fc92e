"""Test that a credential sealed again replaces its earlier seal, and no other."""

from eas_watcher.names import MailboxId
from relay.domain.model import RegistrationChange
from relay.store.registrations import SqlRegistrationStore
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NOW, SHARD, activate, candidate_of, leases, register

ANN = MailboxId("mb-ann")


async def kept(watches: SqlWatchStore) -> tuple[bytes | None, list[bytes]]:
    """Read the seals of the mailbox's credential and of its candidates."""
    record = await watches.record(ANN, LATER)
    assert record is not None
    return record.sealed_credential, [candidate.sealed for candidate in record.candidates]


async def test_the_credential_gets_its_new_seal_and_the_mailbox_is_not_dirty(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)

    await watches.reseal(ANN, b"sealed", b"sealed again")

    assert await kept(watches) == (b"sealed again", [])
    assert await watches.take_dirty(await leases(watches, [SHARD]), NOW) == []


async def test_a_candidate_gets_its_new_seal_and_is_accepted_with_it(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await register(registrations)

    await watches.reseal(ANN, b"sealed", b"sealed again")
    assert await kept(watches) == (None, [b"sealed again"])
    await watches.accept(candidate_of(registration), LATER)  # by the seal before: nothing is there under it
    assert await kept(watches) == (None, [b"sealed again"])
    await watches.accept(candidate_of(registration, b"sealed again"), LATER)

    assert await kept(watches) == (b"sealed again", [])


async def test_a_newer_credential_is_not_overwritten(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await activate(registrations, watches)
    await registrations.change(registration.id, RegistrationChange(sealed_candidate=b"newer"), NOW)
    await watches.accept(candidate_of(registration, b"newer"), LATER)

    await watches.reseal(ANN, b"sealed", b"sealed again")

    assert await kept(watches) == (b"newer", [])


async def test_other_mailboxes_and_mailboxes_that_are_gone_are_left_alone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await register(registrations, "ben")

    await watches.reseal(MailboxId("mb-ben"), b"other", b"sealed again")
    await watches.reseal(MailboxId("mb-gone"), b"sealed", b"sealed again")

    assert await kept(watches) == (b"sealed", [])
