"""Keep of each registration when a mail server first accepted its credential, and when it last asked for a test push.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registration", sa.Column("proved_at", sa.DateTime(timezone=True)))
    op.add_column("registration", sa.Column("tested_at", sa.DateTime(timezone=True)))
    # Of the states, only these two never were accepted.
    op.execute("UPDATE registration SET proved_at = created_at WHERE state NOT IN ('verifying', 'credential-refused')")
