"""Add since when a registration is of no use, and when its app was seen last; for those that are there, now.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("registration", sa.Column("idle_since", MOMENT))
    op.add_column("registration", sa.Column("seen_at", MOMENT))
    postgresql = op.get_bind().dialect.name == "postgresql"
    now = "now()" if postgresql else "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
    op.execute(f"UPDATE registration SET seen_at = {now}")  # noqa: S608  # texts of ours
