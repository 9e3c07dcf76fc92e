"""Add what all spellings of a user have in common, so that one user has one mailbox.

Of mailboxes that differ in case alone, the one with a credential gets it; the others stay as they are.

Frozen: later changes are later migrations.
"""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mailbox", sa.Column("user_key", sa.Text))
    names = ("id", "server", "user", "user_key", "sealed_credential")
    mailbox = sa.table("mailbox", *(sa.Column(name, sa.Text) for name in names))
    connection = op.get_bind()
    bare = mailbox.c.sealed_credential.is_(None)
    rows = connection.execute(sa.select(mailbox.c.id, mailbox.c.server, mailbox.c.user).order_by(bare, mailbox.c.id))
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        first.setdefault((row.server, unicodedata.normalize("NFC", row.user.casefold())), row.id)
    if first:
        filled = sa.update(mailbox).where(mailbox.c.id == sa.bindparam("_id")).values(user_key=sa.bindparam("_key"))
        connection.execute(filled, [{"_id": id_, "_key": key} for (_, key), id_ in first.items()])
    op.create_index("ix_mailbox_server_user_key", "mailbox", ["server", "user_key"], unique=True)
