"""Add when a device token was refused last, so that a quarantine of a wrong clock shows.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registration", sa.Column("refused_at", sa.DateTime(timezone=True)))
