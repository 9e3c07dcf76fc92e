"""Let registrations prove their devices: the state `proving`, the mark `challenge`, nonces as hashes, and their limits.

Registrations that are there count as proved. PostgreSQL gets new check constraints; of SQLite's tables only the text of
the checks changes, which SQLite reads again [SQLite: ALTER TABLE, Making Other Kinds Of Table Schema Changes].

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ADDED = {
    ("registration", "state"): (("verifying", "active", "credential-refused", "token-gone", "wiped"), "proving"),
    ("outbox", "mark"): (("email", "calendar", "contacts", "tasks", "notes", "attention", "test"), "challenge"),
}
"""The names that each column takes, and the new one."""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for (table, column), (names, name) in ADDED.items():
            op.drop_constraint(f"ck_{table}_{column}", table)
            op.create_check_constraint(f"ck_{table}_{column}", table, _check(column, (*names, name)))
    else:
        _rewrite_checks()
    op.add_column("registration", sa.Column("must_prove", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("registration", sa.Column("challenge_hash", sa.LargeBinary))
    op.add_column("registration", sa.Column("challenged_at", MOMENT))
    op.create_table(
        "challenged",
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("device", name="pk_challenged"),
    )
    op.create_index("ix_challenged_since", "challenged", ["since"])


def _rewrite_checks() -> None:
    """Replace the checks in the texts of SQLite's tables; other connections learn it from the new columns."""
    connection = op.get_bind()
    op.execute("PRAGMA writable_schema = ON")
    for (table, column), (names, name) in ADDED.items():
        values = {"before": _check(column, names), "after": _check(column, (*names, name)), "table": table}
        change = "UPDATE sqlite_master SET sql = replace(sql, :before, :after) WHERE type = 'table' AND name = :table"
        connection.execute(sa.text(change), values)
    op.execute("PRAGMA writable_schema = RESET")


def _check(column: str, names: tuple[str, ...]) -> str:
    texts = ", ".join(f"'{name}'" for name in names)
    return f'"{column}" IN ({texts})'
