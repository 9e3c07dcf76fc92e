"""Test pushes: which ones an app asked for, and what became of them. They are written under the registration's lock."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from relay.domain.model import Mark, PushTest, PushTestState, RegistrationId
from relay.push.settlement import PushTestResult
from relay.store.reading import Reader
from relay.store.rows import AnyRow
from relay.store.tables import Moment, outbox, push_test

KEPT: Final = 5
"""Tests of a registration that are kept; older ones are deleted."""

_QUEUED: Final = push_test.c.state == PushTestState.QUEUED.value
_MINE: Final = push_test.c.registration_id == sa.bindparam("_registration")
_WAITS: Final = (
    sa.exists()
    .where(outbox.c.registration_id == push_test.c.registration_id, outbox.c.mark == Mark.TEST.value)
    .correlate(push_test)
)
_SUPERSEDE: Final = (
    sa.update(push_test)
    .where(_MINE, _QUEUED)
    .values(state=PushTestState.SUPERSEDED.value, ended_at=sa.bindparam("_now", type_=Moment))
)
_LATEST: Final = (
    sa.select(push_test.c.id).where(_MINE).order_by(push_test.c.asked_at.desc(), push_test.c.id).limit(KEPT - 1)
)
_SWEEP: Final = sa.delete(push_test).where(_MINE, push_test.c.id.not_in(_LATEST))
_END: Final = (
    sa.update(push_test)
    .where(_MINE, _QUEUED)
    .values(
        state=sa.bindparam("_state"),
        reason=sa.bindparam("_reason"),
        channel=sa.bindparam("_channel"),
        ended_at=sa.bindparam("_now", type_=Moment),
    )
)


def _read(row: AnyRow) -> PushTest:
    state = PushTestState(row.state)
    if state is PushTestState.QUEUED and not row.waits:
        state = PushTestState.EXPIRED  # its mark was dropped
    return PushTest(row.id, state, row.asked_at, row.ended_at, row.reason, row.channel)


TESTS: Final = Reader(
    sa.select(
        push_test.c.id,
        push_test.c.state,
        push_test.c.asked_at,
        push_test.c.ended_at,
        push_test.c.reason,
        push_test.c.channel,
        _WAITS.label("waits"),
    ),
    [push_test.c.id],
    _read,
)
ONE: Final = TESTS.query.where(_MINE, push_test.c.id == sa.bindparam("_id"))


def note_asked(connection: sa.Connection, registration_id: RegistrationId, id_: str, now: datetime) -> None:
    """Note a test that was asked for, in place of one that waits; delete the oldest ones."""
    connection.execute(_SWEEP, {"_registration": registration_id})
    connection.execute(_SUPERSEDE, {"_registration": registration_id, "_now": now})
    connection.execute(sa.insert(push_test), {"id": id_, "registration_id": registration_id, "asked_at": now})


def note_results(connection: sa.Connection, results: Iterable[PushTestResult], now: datetime) -> None:
    """Note what providers said about the tests that wait."""
    rows = [
        {
            "_registration": result.registration_id,
            "_state": result.state.value,
            "_reason": result.reason,
            "_channel": result.channel,
            "_now": None if result.state is PushTestState.QUEUED else now,
        }
        for result in results
    ]
    if rows:
        connection.execute(_END, rows)
