"""Keep when each class was last pushed, why a token is refused, and which marks wait for their pace or are set aside.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registration", sa.Column("pushed", sa.JSON))
    op.add_column("registration", sa.Column("quarantined_at", sa.DateTime(timezone=True)))
    op.add_column("registration", sa.Column("quarantine_reason", sa.Text, nullable=False, server_default=""))
    op.add_column("registration", sa.Column("quarantine_remedy", sa.Text, nullable=False, server_default=""))
    op.add_column("registration", sa.Column("rechecks", sa.Integer, nullable=False, server_default="0"))
    op.add_column("registration", sa.Column("recheck_at", sa.DateTime(timezone=True)))
    op.add_column("outbox", sa.Column("paced", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("outbox", sa.Column("aside", sa.Text, nullable=False, server_default=""))
