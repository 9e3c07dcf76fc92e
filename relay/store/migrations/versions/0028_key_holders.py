"""Note which processes have which sealing keys.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_holder",
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("opens", sa.Text, nullable=False, server_default=""),
        sa.Column("seals", sa.Text, nullable=False, server_default=""),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
