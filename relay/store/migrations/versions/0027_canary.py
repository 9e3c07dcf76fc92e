"""Add the canary: its registration and device, who sends its mails, and what its devices showed.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "canary",
        sa.Column("id", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("registration_id", sa.Text),
        sa.Column("device", sa.LargeBinary),
        sa.Column("tried_at", MOMENT),
        sa.Column("refused_at", MOMENT),
        sa.Column("refusal", sa.Text, nullable=False, server_default=""),
        sa.Column("holder", sa.Text),
        sa.Column("sent_at", MOMENT),
        sa.Column("mail_refused_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_canary"),
    )
    op.create_table(
        "canary_shown",
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("noticed_at", MOMENT, nullable=False),
        sa.Column("shown_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("platform", "noticed_at", name="pk_canary_shown"),
    )
