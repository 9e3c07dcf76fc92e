"""Add what an `attention` is about to its mark, in a word that the push has; empty for other marks.

PostgreSQL has a check constraint; on SQLite triggers refuse the same words.

Frozen: later changes are later migrations. A version that adds a word replaces the check.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

WORDS = "'', 'wiped', 'credential', 'blocked'"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("cause", sa.Text, nullable=False, server_default=""))
    if op.get_bind().dialect.name == "postgresql":
        op.create_check_constraint("ck_outbox_cause", "outbox", f"cause IN ({WORDS})")
        return
    fails = "SELECT RAISE(ABORT, 'CHECK constraint failed: ck_outbox_cause')"
    for event in ("INSERT", "UPDATE OF cause"):
        name = f"ck_outbox_cause_{event.partition(' ')[0].lower()}"
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON outbox WHEN NEW.cause NOT IN ({WORDS}) BEGIN {fails}; END")
