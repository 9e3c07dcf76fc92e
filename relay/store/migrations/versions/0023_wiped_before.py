"""Note the accounts that were wiped before wipes were noted.

The key of an account is the present one: it must be the one that later registrations are compared with.
"""

import sqlalchemy as sa
from alembic import op

from relay.domain.tries import account_key
from relay.store.tables import Moment

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    mailbox = sa.table("mailbox", *(sa.column(name, sa.Text) for name in ("server", "user", "state")), _moment("since"))
    wipe = sa.table("wipe", *(sa.column(name, sa.Text) for name in ("server", "account", "user")), _moment("wiped_at"))
    connection = op.get_bind()
    noted = {(row.server, row.account) for row in connection.execute(sa.select(wipe.c.server, wipe.c.account))}
    rows = connection.execute(sa.select(mailbox).where(mailbox.c.state.in_(["wiping", "wiped"])).order_by("since"))
    found = {(row.server, account_key(row.user)): row for row in rows}
    values = [
        {"server": server, "account": account, "user": row.user, "wiped_at": row.since}
        for (server, account), row in found.items()
        if (server, account) not in noted
    ]
    if values:
        connection.execute(sa.insert(wipe), values)


def _moment(name: str) -> "sa.ColumnClause[object]":
    return sa.column(name, Moment)
