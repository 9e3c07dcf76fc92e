"""Keep who asked for sub-folders, which collections are some, and the hierarchy that they are found in.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registration", sa.Column("subfolders", sa.JSON))
    op.add_column("collection", sa.Column("sub", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "hierarchy",
        sa.Column("mailbox_id", sa.Text, nullable=False),
        sa.Column("folders", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("mailbox_id", name="pk_hierarchy"),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailbox.id"], name="fk_hierarchy_mailbox", ondelete="CASCADE"),
    )
