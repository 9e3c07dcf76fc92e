"""What each role's database user may do on PostgreSQL: as little as its statements need."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from relay.store.rows import MAILBOX, QUARANTINE
from relay.store.tables import (
    candidate,
    collection,
    hierarchy,
    mailbox,
    node,
    outbox,
    path,
    registration,
    sealed_anew,
    shard,
    tries,
)

API: Final = "relay_api"
WATCH: Final = "relay_watch"
PUSH: Final = "relay_push"

_FIRST: Final = ("id", "server", "user", "device_id", "shard", "state", "since", "dirty")
_UNUSED: Final = ("candidate_refusals", "candidate_refused_at")
"""Columns of mailboxes that the version before reads; a later migration drops them."""
_QUARANTINE: Final = tuple(column.name for column in QUARANTINE)
_FOR_PUSH: Final = (
    *("id", "app", "platform", "environment", "device_token", "token_since", "mode", "locale", "state"),
    *("mailbox_id", "last_push_at", "last_outcome", "pushed", *_QUARANTINE),
)
_TOKENS: Final = ("app", "environment", "quarantine_reason", "quarantine_remedy", "recheck_at")
"""What every role may read of device tokens: which app's are refused, and why."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One right of one user on one table; no columns: on the whole table."""

    user: str
    table: str
    right: str
    columns: tuple[str, ...] = ()


def _whole(user: str, table: sa.Table, *rights: str) -> tuple[Grant, ...]:
    return tuple(Grant(user, table.name, right) for right in rights)


GRANTS: Final = (
    # The api role registers and shows; of credentials it reads only whether one waits.
    Grant(API, "mailbox", "SELECT", (*(column.name for column in MAILBOX), *_UNUSED)),
    Grant(API, "mailbox", "INSERT", _FIRST),
    Grant(API, "mailbox", "UPDATE", ("dirty",)),
    *_whole(API, registration, "SELECT", "INSERT", "UPDATE", "DELETE"),
    Grant(API, "candidate", "SELECT", ("registration_id", "account")),
    *_whole(API, candidate, "INSERT", "DELETE"),
    *_whole(API, tries, "SELECT"),
    *_whole(API, outbox, "SELECT", "INSERT", "UPDATE"),
    # The watch role opens credentials; it may not read device tokens and registration secrets.
    *_whole(WATCH, mailbox, "SELECT", "UPDATE", "DELETE"),
    *_whole(WATCH, collection, "SELECT", "INSERT", "UPDATE", "DELETE"),
    *_whole(WATCH, hierarchy, "SELECT", "INSERT", "DELETE"),
    Grant(
        WATCH,
        "registration",
        "SELECT",
        ("id", "mailbox_id", "platform", "classes", "subfolders", "state", "proved_at", *_TOKENS),
    ),
    Grant(WATCH, "registration", "UPDATE", ("state", "candidate_refused", "proved_at")),
    Grant(WATCH, "registration", "DELETE"),  # with a wipe
    *_whole(WATCH, candidate, "SELECT", "DELETE"),
    Grant(WATCH, "candidate", "UPDATE", ("sealed", "account")),
    *_whole(WATCH, outbox, "SELECT", "INSERT", "UPDATE", "DELETE"),
    *_whole(WATCH, shard, "UPDATE"),
    *_whole(WATCH, tries, "SELECT", "INSERT", "UPDATE", "DELETE"),
    *_whole(WATCH, path, "SELECT", "INSERT", "UPDATE"),
    *_whole(WATCH, sealed_anew, "SELECT", "INSERT"),
    # The push role sends; of mailboxes it may count the states, for its metrics, and mark one that lost a registration.
    Grant(PUSH, "mailbox", "SELECT", ("id", "state", "reason")),
    Grant(PUSH, "mailbox", "UPDATE", ("dirty",)),
    Grant(PUSH, "registration", "SELECT", _FOR_PUSH),
    Grant(PUSH, "registration", "UPDATE", ("state", "last_push_at", "last_outcome", "pushed", *_QUARANTINE)),
    Grant(PUSH, "registration", "DELETE"),  # after the last push to a wiped one
    *_whole(PUSH, outbox, "SELECT", "UPDATE", "DELETE"),
    # Table `node` is unused: see tables.py.
    *(grant for user in (API, WATCH, PUSH) for grant in _whole(user, node, "SELECT", "INSERT", "UPDATE", "DELETE")),
    *(grant for user in (API, WATCH, PUSH) for grant in _whole(user, shard, "SELECT")),
    *(Grant(user, "alembic_version", "SELECT") for user in (API, WATCH, PUSH)),
)


def grants_sql() -> str:
    """Return the statements that give each role's user its rights and take all others away.

    The owner of the tables runs them after every upgrade; the users must exist.
    """
    users = f"{API}, {WATCH}, {PUSH}"
    lines = [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {users};",
        f"GRANT USAGE ON SCHEMA public TO {users};",
    ]
    for grant in GRANTS:
        columns = f" ({', '.join(_quoted(name) for name in grant.columns)})" if grant.columns else ""
        lines.append(f"GRANT {grant.right}{columns} ON {grant.table} TO {grant.user};")
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return f'"{name}"'
