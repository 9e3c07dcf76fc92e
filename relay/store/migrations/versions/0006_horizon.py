"""Keep of each mailbox when the newest mail came that was known as its hierarchy was read last.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mailbox", sa.Column("horizon", sa.DateTime(timezone=True)))
