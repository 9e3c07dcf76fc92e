"""Keep what was learnt of the path to each mail server: which heartbeat survives, and what cuts longer ones.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "path",
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("interval", sa.Integer, nullable=False),
        sa.Column("cut_shortest", sa.Double),
        sa.Column("cut_longest", sa.Double),
        sa.Column("learnt_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("url", name="pk_path"),
    )
