"""Add the hash of each device token, by which one app on one device has one registration of a mailbox.

Device tokens of APNs are written in lower case. Of active registrations that mean the same app on the same device, the
one that the app used last stays; the others made the phone ring twice.

Frozen: later changes are later migrations.
"""

import hashlib
import json
import re

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SLICE = 1000
FID = re.compile(r'\{"fid":"([A-Za-z0-9_-]{16,64})"\}|([cdef][A-Za-z0-9_-]{21}):.*', re.ASCII | re.DOTALL)
"""A Firebase Installation ID as it is stored, or a registration token that begins with one."""
KEY = ("mailbox_id", "platform", "app", "environment", "token_hash")


def upgrade() -> None:
    op.add_column("registration", sa.Column("token_hash", sa.Text))
    columns = ("id", *KEY, "device_token", "token_since", "created_at", "state")
    moments = {"token_since", "created_at"}
    registration = sa.table(
        "registration",
        *(sa.column(name, sa.DateTime(timezone=True) if name in moments else sa.Text) for name in columns),
    )
    connection = op.get_bind()
    lower = sa.update(registration).where(registration.c.platform == "apns")
    connection.execute(lower.values(device_token=sa.func.lower(registration.c.device_token)))
    query = sa.select(registration.c.id, registration.c.platform, registration.c.device_token)
    rows = [{"_id": row.id, "_hash": _hash(row.platform, row.device_token)} for row in connection.execute(query)]
    filled = sa.update(registration).where(registration.c.id == sa.bindparam("_id"))
    for start in range(0, len(rows), SLICE):
        connection.execute(filled.values(token_hash=sa.bindparam("_hash")), rows[start : start + SLICE])
    _delete_twins(connection, registration)


def _hash(platform: str, token: str) -> str:
    text = token
    if platform == "fcm":
        found = FID.fullmatch(token)
        text = found[1] or found[2] if found else token
    if platform == "webpush":
        try:
            text = str(json.loads(token)["endpoint"])
        except (KeyError, TypeError, ValueError, RecursionError):
            text = token
    return hashlib.sha256(f"{platform} {text}".encode("utf-8", "surrogatepass")).hexdigest()


def _delete_twins(connection: sa.Connection, registration: sa.TableClause) -> None:
    """Delete the active registrations that have a later one of the same app on the same device, of the same mailbox."""
    later = registration.alias("later")
    # Ids are unique, so of two rows one is always the later one.
    is_later = sa.or_(
        later.c.token_since > registration.c.token_since,
        sa.and_(
            later.c.token_since == registration.c.token_since,
            sa.or_(
                later.c.created_at > registration.c.created_at,
                sa.and_(later.c.created_at == registration.c.created_at, later.c.id > registration.c.id),
            ),
        ),
    )
    same = (later.c[name] == registration.c[name] for name in KEY)
    twin = sa.exists().where(later.c.state == "active", is_later, *same)
    query = sa.select(registration.c.id, registration.c.mailbox_id).where(registration.c.state == "active", twin)
    found = connection.execute(query).all()
    mailbox = sa.table("mailbox", sa.column("id"), sa.column("dirty", sa.Boolean))
    for row in found:
        connection.execute(sa.update(mailbox).where(mailbox.c.id == row.mailbox_id).values(dirty=True))
        connection.execute(sa.delete(registration).where(registration.c.id == row.id))
