"""Deliveries: what becomes of marks whose pushes were taken and of their registrations, without reading either.

This does what `settlement` decides for a push that the provider took, where nothing happened since the claim: the mark
has not grown, and the registration still has the device token, and no quarantine. All else is left to `settlement`.

On PostgreSQL it is one statement for each mark and a transaction by itself, so a group costs one answer of the server
instead of six. It locks in the order of `outbox`: each part that locks asks for all rows of the part before. A
registration that was changed after the statement began is updated if it still fits; a mark that was is not found at its
place. What is not found is settled in several statements.

On SQLite it is three statements for each mark: values of rows are compared, but none is read as one of ours.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from relay.domain.model import DuePush, Mark, RegistrationId
from relay.domain.outcome import DELIVERED, Delivered
from relay.domain.ports.outbox import Settlement
from relay.store.bulk import array, in_order, unnest
from relay.store.parts import is_among, place, within
from relay.store.prepared import Prepared, execute_text, write_json
from relay.store.rows import write_outcome
from relay.store.tables import Moment, outbox, registration, sqlite_text


def are_deliveries(settlements: Sequence[Settlement]) -> bool:
    """Return True if all pushes were taken, each mark has one, and none is a test, whose result is noted elsewhere."""
    keys = {(each.push.registration_id, each.push.mark) for each in settlements if isinstance(each.outcome, Delivered)}
    return len(keys) == len(settlements) and all(mark is not Mark.TEST for _, mark in keys)


def by_mark(settlements: Sequence[Settlement]) -> Iterable[Sequence[Settlement]]:
    """Return settlements in groups of one mark."""
    groups: dict[Mark, list[Settlement]] = {}
    for each in settlements:
        groups.setdefault(each.push.mark, []).append(each)
    return groups.values()


def deliveries(group: Sequence[Settlement], now: datetime) -> dict[str, object]:
    """Return the parameters of `RECORD_DELIVERIES` for a group of one mark."""
    pushes: list[DuePush] = [each.push for each in group]
    mark = pushes[0].mark.value
    return {
        "registration_id": [push.registration_id for push in pushes],
        "generation": [push.generation for push in pushes],
        "first_at": [Moment.utc(push.first_at) for push in pushes],
        "environment": [push.environment for push in pushes],
        "device_token": [push.device_token for push in pushes],
        "_mark": mark,
        "_pushed": {mark: now.timestamp()},
        "_now": now,
    }


def read_deliveries(rows: Sequence[Any]) -> set[RegistrationId]:
    """Return the registrations whose marks are done; `outbox.settle_marks` is for the others."""
    return {row.registration_id for row in rows}


def _statement() -> sa.Select[Any]:
    recipients = (
        sa.select(registration.c.id)
        .where(registration.c.id == sa.func.any(array("registration_id", registration.c.id.type)))
        .order_by(*in_order(registration.c.id))
        .with_for_update(key_share=True)
        .cte("recipients")
    )
    address = sa.tuple_(registration.c.id, registration.c.environment, registration.c.device_token)
    sent = unnest(
        {
            "registration_id": outbox.c.registration_id,
            "environment": registration.c.environment,
            "device_token": registration.c.device_token,
        }
    )
    # A damaged value is left to `settle_marks`, which says so.
    form = sa.func.json_typeof(registration.c.pushed)
    before = sa.case((form == "object", sa.cast(registration.c.pushed, JSONB)), else_=sa.literal({}, JSONB))
    updated = (
        sa.update(registration)
        .where(
            registration.c.id == within(sa.select(recipients.c.id)),
            is_among(address, sa.select(sent)),
            registration.c.quarantined_at.is_(None),
            registration.c.pushed.is_(None) | (form == "object") | (form == "null"),
        )
        .values(
            last_outcome=write_outcome(DELIVERED),
            last_push_at=sa.bindparam("_now", type_=Moment),
            pushed=sa.cast(before.op("||")(sa.bindparam("_pushed", type_=JSONB)), sa.JSON),
        )
        .returning(registration.c.id)
        .cte("updated")
    )
    waiting = (
        sa.select(place(outbox.name), outbox.c.registration_id, outbox.c.generation, outbox.c.first_at)
        .where(
            outbox.c.registration_id == within(sa.select(updated.c.id)),
            outbox.c.mark == sa.bindparam("_mark"),
        )
        .order_by(*in_order(outbox.c.registration_id))
        .with_for_update(key_share=True)
        .cte("waiting")
    )
    columns = ("registration_id", "generation", "first_at")
    known = unnest({name: outbox.c[name] for name in columns})
    same = is_among(sa.tuple_(*(waiting.c[name] for name in columns)), sa.select(known))
    done = (
        sa.delete(outbox)
        .where(place(outbox.name).element == within(sa.select(waiting.c.place).where(same)))
        .returning(outbox.c.registration_id)
        .cte("done")
    )
    return sa.select(done)


RECORD_DELIVERIES: Final = Prepared(_statement())
"""Settles deliveries of one mark, as `read_deliveries` tells; for PostgreSQL only."""


# --- on SQLite

_UNCHANGED: Final = """
SELECT o.registration_id, o.generation, o.first_at, r.environment, r.device_token
FROM json_each(?) j CROSS JOIN outbox o CROSS JOIN registration r
WHERE o.registration_id = j.value AND o.mark = ? AND r.id = j.value AND r.quarantined_at IS NULL
    AND (r.pushed IS NULL OR CASE WHEN json_valid(r.pushed) THEN json_type(r.pushed) IN ('object', 'null') END)
"""
_DELIVERED: Final = """
UPDATE registration SET last_outcome = ?, last_push_at = ?,
    pushed = json_set(CASE WHEN json_type(pushed) = 'object' THEN pushed ELSE '{}' END, ?, json(?))
WHERE id IN (SELECT value FROM json_each(?))
"""
_DONE: Final = "DELETE FROM outbox WHERE registration_id IN (SELECT value FROM json_each(?)) AND mark = ?"


def deliver(connection: sa.Connection, group: Sequence[Settlement], now: datetime) -> bool:
    """Settle deliveries of one mark on SQLite; return False, with nothing done, if `settle_marks` must do so."""
    pushes = [each.push for each in group]
    mark, ids = pushes[0].mark.value, write_json([push.registration_id for push in pushes])
    known = {
        (
            push.registration_id,
            push.generation,
            sqlite_text(push.first_at),
            push.environment.value,
            push.device_token,
        )
        for push in pushes
    }
    found, _ = execute_text(connection, _UNCHANGED, (ids, mark), fetch=True)
    if known.symmetric_difference(found):
        return False
    path, seconds = f'$."{mark}"', repr(now.timestamp())
    execute_text(connection, _DELIVERED, (write_outcome(DELIVERED), sqlite_text(now), path, seconds, ids))
    execute_text(connection, _DONE, (ids, mark))
    return True
