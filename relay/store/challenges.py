"""Challenges: the nonce of each registration that must prove its device, as a hash, and how many there were lately.

They are counted for each device and for each mailbox. Rows are locked in the order registration, challenged, and in
`challenged` by key.
"""

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.domain.challenge import MOST, MOST_OF_MAILBOX, WINDOW, Challenge, Spent, is_answered, spend
from relay.domain.devices import fingerprint
from relay.domain.model import DuePush, Mark, RegistrationId, RegistrationState
from relay.store.engine import Database
from relay.store.tables import challenged, outbox, registration

OTHER_DEVICE: Final = 1.0
"""Seconds until the next try of a challenge whose registration has got another device token meanwhile."""

_MINE: Final = registration.c.id == sa.bindparam("_id")
_ISSUE: Final = sa.update(registration).where(_MINE)
_OWNER: Final = sa.select(registration.c.device_token, registration.c.mailbox_id).where(_MINE)
_LOCK: Final = _OWNER.with_for_update(key_share=True)
_SPENT: Final = sa.select(challenged.c.number, challenged.c.since).where(challenged.c.device == sa.bindparam("_device"))
_CHALLENGE: Final = (
    sa.select(registration.c.state, registration.c.challenge_hash, registration.c.challenged_at)
    .where(_MINE)
    .with_for_update(key_share=True)
)
_NO_MARK: Final = sa.delete(outbox).where(
    outbox.c.registration_id == sa.bindparam("_id"), outbox.c.mark == Mark.CHALLENGE.value
)


class SqlChallengeStore:
    """The ChallengeStore of the push role."""

    def __init__(self, database: Database) -> None:
        """Keep challenges in a database."""
        self._database = database

    async def issue(self, push: DuePush, nonce_hash: bytes, now: datetime) -> float | None:
        """Note the nonce of a challenge that is about to leave; return the seconds to wait instead."""
        return await self._database.run(_issue, push, nonce_hash, now)

    async def take_back(self, push: DuePush) -> None:
        """Count a challenge no more that the provider did not take."""
        await self._database.run(_take_back, push)

    async def sweep(self, now: datetime) -> None:
        """Forget the challenges that count no more."""
        old = sa.delete(challenged).where(challenged.c.since < now - WINDOW)
        await self._database.run(lambda connection: connection.execute(old))


def _issue(connection: sa.Connection, push: DuePush, nonce_hash: bytes, now: datetime) -> float | None:
    mine = {"_id": push.registration_id}
    owner = connection.execute(_LOCK, mine).one_or_none()
    if owner is None or owner.device_token != push.device_token:
        return OTHER_DEVICE  # else the device before could prove the one that has taken its place
    spent: dict[str, Spent] = {}
    for key, most in _counted(push, owner.mailbox_id):
        row = connection.execute(_SPENT.with_for_update(key_share=True), {"_device": key}).one_or_none()
        found = spend(None if row is None else Spent(row.number, row.since), now, most)
        if not isinstance(found, Spent):
            return found
        spent[key] = found
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for key, found in spent.items():
        values = {"number": found.number, "since": found.since}
        statement = insert(challenged).values(device=key, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=values))
    connection.execute(_ISSUE.values(challenge_hash=nonce_hash, challenged_at=now), mine)
    return None


def _take_back(connection: sa.Connection, push: DuePush) -> None:
    owner = connection.execute(_OWNER, {"_id": push.registration_id}).one_or_none()
    if owner is None:
        return
    for key, _ in _counted(push, owner.mailbox_id):
        fewer = sa.update(challenged).where(challenged.c.device == key, challenged.c.number > 0)
        connection.execute(fewer.values(number=challenged.c.number - 1))


def _counted(push: DuePush, mailbox_id: str) -> list[tuple[str, int]]:
    """Return the keys under which a challenge counts, in their order, and how many each may have."""
    return sorted([(fingerprint(push.platform, push.device_token), MOST), (f"mailbox {mailbox_id}", MOST_OF_MAILBOX)])


def prove(connection: sa.Connection, registration_id: RegistrationId, nonce: str, now: datetime) -> bool:
    """Make a registration active if a nonce answers its challenge; return whether it does.

    Its mailbox must be locked. The app may ask for a test push at once: what it asked for before was a challenge.
    """
    row = connection.execute(_CHALLENGE, {"_id": registration_id}).one_or_none()
    if row is None or row.state != RegistrationState.PROVING.value:
        return False
    if not is_answered(Challenge(row.challenge_hash, row.challenged_at), nonce, now):
        return False
    connection.execute(
        _ISSUE.values(state=RegistrationState.ACTIVE.value, must_prove=False, challenge_hash=None, tested_at=None),
        {"_id": registration_id},
    )
    connection.execute(_NO_MARK, {"_id": registration_id})
    return True
