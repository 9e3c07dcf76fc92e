"""Add what shows that an app sends the last credential of its registration again.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registration", sa.Column("credential_proof", sa.LargeBinary))
