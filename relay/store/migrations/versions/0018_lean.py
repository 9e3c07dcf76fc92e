"""Let a change of a row cost less: checks of SQLite in its tables instead of triggers, room in PostgreSQL's pages.

Of SQLite's tables only the text changes, which SQLite reads again [SQLite: ALTER TABLE, Making Other Kinds Of Table
Schema Changes]. Conditions with a sub-query, on lists, stay triggers.

PostgreSQL writes the new version of a row into the same page, without new entries in its indexes, if there is room. A
mark is written twice before it is deleted. Pages that are there already get the room as they are filled again.

Frozen: later changes are later migrations.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

CLASSES = ("email", "calendar", "contacts", "tasks", "notes")
PLATFORMS = ("apns", "fcm", "webpush")
STATES = ("verifying", "starting", "watching", "waiting", "credential-refused", "blocked", "wiping", "wiped")
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "mailbox": {"state": STATES},
    "collection": {"class": CLASSES},
    "registration": {
        "platform": PLATFORMS,
        "environment": ("production", "sandbox"),
        "mode": ("alert", "background"),
        "state": ("verifying", "active", "credential-refused", "token-gone", "wiped"),
    },
    "outbox": {
        "platform": PLATFORMS,
        "mark": (*CLASSES, "attention", "test"),
        "cause": ("", "wiped", "credential", "blocked"),
    },
    "shard": {},
}
NUMBERS = {"mailbox": {"version": (121, 140, 141, 160, 161), "acknowledged": (1, 2, 3, 4)}}
RANGES = {
    "mailbox": {"shard": (0, 255), "refusals": (0, 1_000_000)},
    "collection": {"tries": (0, 1_000_000)},
    "outbox": {"count": (0, 10**15), "generation": (0, 10**15), "attempts": (0, 1_000_000)},
    "shard": {"number": (0, 255), "epoch": (0, 10**15)},
}
FILLED = {"mailbox": 85, "collection": 70, "registration": 85, "outbox": 50}
"""How much of a page new rows fill, in percent."""


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for table, percent in FILLED.items():
            op.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")
        return
    op.execute("PRAGMA writable_schema = ON")
    for table in NAMES:
        find = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table")
        text = connection.execute(find, {"table": table}).scalar_one()
        checks = _checks(table)
        added = "".join(f",\n\tCONSTRAINT ck_{table}_{column} CHECK ({check})" for column, check in checks.items())
        head, _, tail = text.rpartition(")")
        change = sa.text("UPDATE sqlite_master SET sql = :sql WHERE type = 'table' AND name = :table")
        connection.execute(change, {"sql": f"{head.rstrip()}{added}\n){tail}", "table": table})
    op.execute("PRAGMA writable_schema = RESET")
    for table in NAMES:
        for column in _checks(table):
            for event in ("insert", "update"):
                # That the schema changed, other connections learn from these.
                op.execute(f"DROP TRIGGER ck_{table}_{column}_{event}")


def _checks(table: str) -> dict[str, str]:
    texts = {column: ", ".join(f"'{name}'" for name in names) for column, names in NAMES[table].items()}
    numbers = {column: ", ".join(map(str, values)) for column, values in NUMBERS.get(table, {}).items()}
    return {
        **{column: f'"{column}" IN ({values})' for column, values in (texts | numbers).items()},
        **{
            # Where the value is missing this is neither true nor false, which passes.
            column: f'"{column}" IS NULL OR (typeof("{column}") = \'integer\' AND "{column}" BETWEEN {low} AND {high})'
            for column, (low, high) in RANGES.get(table, {}).items()
        },
    }
