"""Note the last change of a mailbox in the row of the collection that changed, which is written with each change.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("collection", sa.Column("changed_at", sa.DateTime(timezone=True)))
