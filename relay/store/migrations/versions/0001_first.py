"""Lay the first schema: seven tables, and 256 shards that nobody owns.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "mailbox",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("device_id", sa.Text, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("sealed_credential", sa.LargeBinary),
        sa.Column("accepted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("version", sa.Integer),
        sa.Column("policy_key", sa.Text),
        sa.Column("hierarchy_key", sa.Text, nullable=False, server_default="0"),
        sa.Column("informed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("next_try_at", MOMENT),
        sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
        sa.Column("candidate_refusals", sa.Integer, nullable=False, server_default="0"),
        sa.Column("candidate_refused_at", MOMENT),
        sa.Column("last_ping_at", MOMENT),
        sa.Column("heartbeat", sa.Double),
        sa.Column("last_change_at", MOMENT),
        sa.Column("dirty", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id", name="pk_mailbox"),
        sa.UniqueConstraint("server", "user", name="uq_mailbox_server_user"),
    )
    op.create_index("ix_mailbox_shard", "mailbox", ["shard"])
    op.create_index("ix_mailbox_dirty", "mailbox", ["dirty"])
    op.create_table(
        "collection",
        sa.Column("mailbox_id", sa.Text, nullable=False),
        sa.Column("collection_id", sa.Text, nullable=False),
        sa.Column("class", sa.Text, nullable=False),
        sa.Column("sync_key", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("newest", MOMENT),
        sa.Column("seen", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailbox.id"], name="fk_collection_mailbox", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("mailbox_id", "collection_id", name="pk_collection"),
    )
    op.create_table(
        "registration",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("mailbox_id", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("app", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("device_token", sa.Text, nullable=False),
        sa.Column("token_since", MOMENT, nullable=False),
        sa.Column("classes", sa.JSON, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("locale", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("candidate_refused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_push_at", MOMENT),
        sa.Column("last_outcome", sa.Text, nullable=False, server_default=""),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailbox.id"], name="fk_registration_mailbox", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_registration"),
    )
    op.create_index("ix_registration_mailbox_id", "registration", ["mailbox_id"])
    op.create_table(
        "candidate",
        sa.Column("registration_id", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["registration_id"], ["registration.id"], name="fk_candidate_registration", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("registration_id", name="pk_candidate"),
    )
    op.create_table(
        "outbox",
        sa.Column("registration_id", sa.Text, nullable=False),
        sa.Column("mark", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("certain", sa.Boolean, nullable=False),
        sa.Column("first_at", MOMENT, nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", MOMENT),
        sa.ForeignKeyConstraint(
            ["registration_id"], ["registration.id"], name="fk_outbox_registration", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("registration_id", "mark", name="pk_outbox"),
    )
    op.create_index("ix_outbox_platform_due_at", "outbox", ["platform", "due_at"])
    op.create_table(
        "shard",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("owner", sa.Text),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lease_until", MOMENT),
        sa.PrimaryKeyConstraint("number", name="pk_shard"),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("heartbeat_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_node"),
    )
    shard = sa.table("shard", sa.column("number", sa.Integer))
    op.bulk_insert(shard, [{"number": number} for number in range(256)])
