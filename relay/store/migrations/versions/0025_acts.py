"""Add what administrators ask for: pauses, retries, mailboxes to forget, maintenance; and the log of their acts.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("mailbox", sa.Column("paused_at", MOMENT))
    for name in ("retry", "forgotten"):
        op.add_column("mailbox", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    paused = sa.text("paused_at IS NOT NULL")
    op.create_index("ix_mailbox_paused", "mailbox", ["paused_at"], sqlite_where=paused, postgresql_where=paused)
    op.create_table(
        "maintenance",
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("server", name="pk_maintenance"),
    )
    op.create_table(
        "act",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", MOMENT, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("who", "via", "what")),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in ("server", "subject", "detail")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("key", "digest")),
        sa.PrimaryKeyConstraint("number", name="pk_act"),
    )
    if op.get_bind().dialect.name == "sqlite":  # which has no grants
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER act_no_{event.lower()} BEFORE {event} ON act "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END"
            )
