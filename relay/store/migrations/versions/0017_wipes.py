"""Add the accounts whose device an administrator wiped.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "wipe",
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("wiped_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server", "account", name="pk_wipe"),
    )
