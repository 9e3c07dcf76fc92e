"""Own what a verdict on a candidate credential changes."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.model import Candidate, RegistrationState
from relay.store.tables import candidate, mailbox, registration

_WAITS_FOR_CREDENTIAL = (WatchState.VERIFYING.value, WatchState.CREDENTIAL_REFUSED.value, WatchState.WIPED.value)


async def accept(connection: AsyncConnection, proved: Candidate, now: datetime, url: str | None = None) -> bool:
    """Make a proved candidate the mailbox's credential; return False when it was replaced meanwhile.

    A wipe destroys the candidates that wait: one that is still there came afterwards, by somebody who registered anew,
    and the mailbox starts from nothing with it. Whether the device may come back, the server says.
    """
    if not await _lock(connection, proved.mailbox_id) or not await _drop(connection, proved):
        return False
    waiting = mailbox.c.state.in_(_WAITS_FOR_CREDENTIAL)
    # A wait that follows a refused password ends with it; one that the server asked for is kept.
    at_once = waiting | (mailbox.c.refusals > 0)
    await connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == proved.mailbox_id)
        .values(
            sealed_credential=proved.sealed,
            accepted=True,
            url=mailbox.c.url if url is None else url,
            refusals=0,
            candidate_refusals=0,
            candidate_refused_at=None,
            dirty=True,
            next_try_at=sa.case((at_once, None), else_=mailbox.c.next_try_at),
            since=sa.case((waiting, now), else_=mailbox.c.since),
            reason=sa.case((waiting, ""), else_=mailbox.c.reason),
            detail=sa.case((waiting, ""), else_=mailbox.c.detail),
            state=sa.case((waiting, WatchState.STARTING.value), else_=mailbox.c.state),
        )
    )
    # A registration whose app is gone from the device waits for a new token, whatever its credential.
    gone = registration.c.state == RegistrationState.TOKEN_GONE.value
    await connection.execute(
        sa.update(registration)
        .where(registration.c.id == proved.registration_id)
        .values(
            state=sa.case((gone, registration.c.state), else_=RegistrationState.ACTIVE.value), candidate_refused=False
        )
    )
    return True


async def refuse(connection: AsyncConnection, refused: Candidate, now: datetime) -> None:
    """Drop a refused candidate and count it; one that was replaced meanwhile is only counted."""
    if not await _lock(connection, refused.mailbox_id):
        return
    await connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == refused.mailbox_id)
        .values(candidate_refusals=mailbox.c.candidate_refusals + 1, candidate_refused_at=now)
    )
    if not await _drop(connection, refused):
        return
    state = registration.c.state
    never = state.in_((RegistrationState.VERIFYING.value, RegistrationState.REFUSED.value))
    await connection.execute(
        sa.update(registration)
        .where(registration.c.id == refused.registration_id)
        .values(state=sa.case((never, RegistrationState.REFUSED.value), else_=state), candidate_refused=~never)
    )
    await connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == refused.mailbox_id, mailbox.c.sealed_credential.is_(None))
        .where(mailbox.c.state != WatchState.WIPED.value)
        .values(
            state=WatchState.CREDENTIAL_REFUSED.value,
            reason=Reason.HTTP_401.value,
            detail="",
            next_try_at=None,
            since=sa.case((mailbox.c.state == WatchState.CREDENTIAL_REFUSED.value, mailbox.c.since), else_=now),
        )
    )


async def reseal(connection: AsyncConnection, mailbox_id: MailboxId, before: bytes, after: bytes) -> None:
    """Put one seal in the place of another, where it is still kept."""
    if not await _lock(connection, mailbox_id):
        return
    await connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id == mailbox_id, mailbox.c.sealed_credential == before)
        .values(sealed_credential=after)
    )
    own = sa.select(registration.c.id).where(registration.c.mailbox_id == mailbox_id)
    await connection.execute(
        sa.update(candidate)
        .where(candidate.c.registration_id.in_(own), candidate.c.sealed == before)
        .values(sealed=after)
    )


async def _lock(connection: AsyncConnection, mailbox_id: MailboxId) -> bool:
    """Lock the mailbox's row before anything else of it; return whether it exists."""
    query = sa.select(mailbox.c.id).where(mailbox.c.id == mailbox_id).with_for_update(key_share=True)
    return await connection.scalar(query) is not None


async def _drop(connection: AsyncConnection, judged: Candidate) -> bool:
    """Delete a candidate; return False when another one is in its place, or none."""
    statement = sa.delete(candidate).where(
        candidate.c.registration_id == judged.registration_id, candidate.c.sealed == judged.sealed
    )
    return await connection.scalar(statement.returning(candidate.c.registration_id)) is not None
