"""Count the credentials that are shown of each account, and note when a candidate came.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tries",
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("spent", sa.Integer, nullable=False, server_default="0"),
        sa.Column("strangers", sa.Integer, nullable=False, server_default="0"),
        sa.Column("owners", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server", "account", "user", name="pk_tries"),
    )
    op.add_column("candidate", sa.Column("created_at", sa.DateTime(timezone=True)))
    op.add_column("candidate", sa.Column("account", sa.Text))
    op.create_index("ix_candidate_account", "candidate", ["account"])
