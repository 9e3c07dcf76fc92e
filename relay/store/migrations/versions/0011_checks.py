"""Let no column of names or counts hold what this version does not know, and drop the table that nothing uses.

PostgreSQL has check constraints. SQLite could add them only by building the tables anew, under the foreign keys that
refer to them, so triggers refuse the same values there.

Frozen: later changes are later migrations. A version that adds a name replaces the check of its column.
"""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CLASSES = ("email", "calendar", "contacts", "tasks", "notes")
PLATFORMS = ("apns", "fcm", "webpush")
NAMES = {
    ("mailbox", "state"): (
        *("verifying", "starting", "watching", "waiting", "credential-refused", "blocked", "wiping", "wiped"),
    ),
    ("collection", "class"): CLASSES,
    ("registration", "platform"): PLATFORMS,
    ("registration", "environment"): ("production", "sandbox"),
    ("registration", "mode"): ("alert", "background"),
    ("registration", "state"): ("verifying", "active", "credential-refused", "token-gone", "wiped"),
    ("outbox", "platform"): PLATFORMS,
    ("outbox", "mark"): (*CLASSES, "attention", "test"),
}
NUMBERS = {
    ("mailbox", "version"): (121, 140, 141, 160, 161),
    ("mailbox", "acknowledged"): (1, 2, 3, 4),
}
RANGES = {
    ("mailbox", "shard"): (0, 255),
    ("mailbox", "refusals"): (0, 1_000_000),
    ("collection", "tries"): (0, 1_000_000),
    ("outbox", "count"): (0, 10**15),
    ("outbox", "generation"): (0, 10**15),
    ("outbox", "attempts"): (0, 1_000_000),
    ("shard", "number"): (0, 255),
    ("shard", "epoch"): (0, 10**15),
}
LISTS = (("registration", "classes"), ("registration", "subfolders"))
KEYS = {
    "mailbox": ("id",),
    "collection": ("mailbox_id", "collection_id"),
    "registration": ("id",),
    "outbox": ("registration_id", "mark"),
    "shard": ("number",),
}


def upgrade() -> None:
    op.drop_table("node")
    postgresql = op.get_bind().dialect.name == "postgresql"
    checks = _on_postgresql() if postgresql else _on_sqlite()
    if postgresql:
        _require(checks)
    for (table, column), condition in checks.items():
        if postgresql:
            op.create_check_constraint(f"ck_{table}_{column}", table, condition)
            continue
        fails = f"SELECT RAISE(ABORT, 'CHECK constraint failed: ck_{table}_{column}')"
        new = condition.replace(f'"{column}"', f'NEW."{column}"')
        for event in ("INSERT", f'UPDATE OF "{column}"'):
            name = f"ck_{table}_{column}_{event.partition(' ')[0].lower()}"
            op.execute(f'CREATE TRIGGER {name} BEFORE {event} ON "{table}" WHEN NOT ({new}) BEGIN {fails}; END')


def _texts(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _on_postgresql() -> dict[tuple[str, str], str]:
    known = ", ".join(f'"{name}"' for name in CLASSES)
    return {
        **{key: f'"{key[1]}" IN ({_texts(names)})' for key, names in NAMES.items()},
        **{key: f'"{key[1]}" IN ({", ".join(map(str, numbers))})' for key, numbers in NUMBERS.items()},
        **{key: f'"{key[1]}" BETWEEN {low} AND {high}' for key, (low, high) in RANGES.items()},
        **{key: f"json_typeof(\"{key[1]}\") = 'array' AND \"{key[1]}\"::jsonb <@ '[{known}]'::jsonb" for key in LISTS},
    }


def _on_sqlite() -> dict[tuple[str, str], str]:
    integer = "typeof(\"{0}\") = 'integer'"
    # NULL passes as it does in a check constraint; a column that must have a value says so itself.
    return {
        **{key: f'"{key[1]}" IN ({_texts(names)})' for key, names in NAMES.items()},
        **{key: f'"{key[1]}" IN ({", ".join(map(str, numbers))})' for key, numbers in NUMBERS.items()},
        **{
            key: f'"{key[1]}" IS NULL OR ({integer.format(key[1])} AND "{key[1]}" BETWEEN {low} AND {high})'
            for key, (low, high) in RANGES.items()
        },
        **{key: _list_on_sqlite(key[1]) for key in LISTS},
    }


def _list_on_sqlite(column: str) -> str:
    strange = f"item.type <> 'text' OR item.value NOT IN ({_texts(CLASSES)})"
    none = f'NOT EXISTS (SELECT 1 FROM json_each("{column}") AS item WHERE {strange})'  # noqa: S608  # names of ours
    array = f"json_type(\"{column}\") = 'array'"
    return f'"{column}" IS NULL OR CASE WHEN NOT json_valid("{column}") THEN 0 WHEN {array} THEN {none} ELSE 0 END'


def _require(checks: dict[tuple[str, str], str]) -> None:
    """Raise CommandError with the rows that PostgreSQL would refuse to check."""
    found = []
    for (table, column), condition in checks.items():
        key = " || '/' || ".join(f'"{name}"::text' for name in KEYS[table])
        query = f'SELECT {key} FROM public."{table}" WHERE NOT ({condition}) LIMIT 5'  # noqa: S608  # names of ours
        found += [f"{table} {name} ({column})" for name in op.get_bind().execute(sa.text(query)).scalars()]
    if found:
        raise CommandError(", ".join(found))
