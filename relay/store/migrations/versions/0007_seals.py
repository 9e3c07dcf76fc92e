"""Note the shards whose credentials are all in the present form of seals; in a new installation, all of them.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sealed_anew",
        sa.Column("shard", sa.Integer, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("shard", name="pk_sealed_anew"),
    )
    op.execute("INSERT INTO sealed_anew (shard) SELECT number FROM shard WHERE NOT EXISTS (SELECT 1 FROM mailbox)")
