"""The timeline: content-free events of mailboxes and registrations.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    texts = ("mailbox_id", "registration_id", "account", "kind", "what", "through", "result", "code")
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False, server_default=None if name == "kind" else "") for name in texts),
        sa.Column("count", sa.Integer, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_mailbox_id_id", "event", ["mailbox_id", "id"])
    known = sa.text("account <> ''")
    op.create_index("ix_event_account", "event", ["account"], sqlite_where=known, postgresql_where=known)
