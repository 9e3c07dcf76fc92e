"""Add the test pushes of registrations, so that an app can ask what became of one.

Frozen: later changes are later migrations. A version that adds a state replaces the check.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "push_test",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("registration_id", sa.Text, nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("state", sa.Text, nullable=False, server_default="queued"),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("channel", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id", name="pk_push_test"),
        sa.ForeignKeyConstraint(
            ["registration_id"], ["registration.id"], name="fk_push_test_registration", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'delivered', 'refused', 'superseded', 'expired')", name="ck_push_test_state"
        ),
    )
    op.create_index("ix_push_test_registration_id", "push_test", ["registration_id"])
