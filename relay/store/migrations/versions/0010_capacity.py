"""Keep how many Pings each mail server holds at once; the heartbeat that survives may be unknown then.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("path") as path:
        path.add_column(sa.Column("capacity", sa.Integer))
        path.alter_column("interval", existing_type=sa.Integer, nullable=True)
