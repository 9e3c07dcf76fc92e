"""Keep of each mailbox what was said of its server's policy, and where it is if not at its server's configured URL.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mailbox", sa.Column("acknowledged", sa.Integer))
    op.add_column("mailbox", sa.Column("url", sa.Text))
