"""The schema: its tables are the same on SQLite and PostgreSQL."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

BARE: Final = 26
"""Characters of a moment's text before its time zone."""
ALIKE: Final = 256
"""Moments whose texts SQLite's statements find again: most of those of a group are alike."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(sa.types.TypeDecorator[datetime]):
    """A column of aware UTC datetimes: with time zone on PostgreSQL, as UTC text that sorts by time on SQLite.

    Raises ValueError for a naive datetime.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[datetime | None], Any]:
        """Return what turns an aware moment into UTC; for SQLite into text without the time zone."""
        return sqlite_text if dialect.name == "sqlite" else _utc_or_none

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        """Return what turns a value into a moment with its time zone, which SQLite does not keep."""
        return read_sqlite_text if dialect.name == "sqlite" else _utc_or_none

    @staticmethod
    def utc(value: datetime) -> datetime:
        """Return a moment in UTC, as PostgreSQL's driver takes it; raises ValueError for a naive datetime."""
        return _utc(value)

    @staticmethod
    def text(value: datetime) -> str:
        """Return a moment as PostgreSQL reads it; SQLite keeps the first BARE characters, without the zone.

        Raises ValueError for a naive datetime.
        """
        return _utc(value).isoformat(" ", "microseconds")


@lru_cache(ALIKE)
def sqlite_text(value: datetime | None) -> str | None:
    """Return the text that SQLite keeps of a moment; raises ValueError for a naive datetime."""
    return None if value is None else Moment.text(value)[:BARE]


@lru_cache(ALIKE)
def read_sqlite_text(value: object) -> datetime | None:
    """Return the moment that a text of SQLite is; raises ValueError for another text."""
    if value is None:
        return None
    text = f"{value}"
    try:
        return datetime.fromisoformat(f"{text}+00:00")
    except ValueError:  # a text that the relay did not write: without a time, or with its time zone
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _utc_or_none(value: datetime | None) -> datetime | None:
    return None if value is None else _utc(value)


def _utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError(f"a moment without time zone: {value!r}")
    return value.astimezone(UTC)


mailbox = sa.Table(
    "mailbox",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("device_id", sa.Text, nullable=False),
    sa.Column("shard", sa.Integer, nullable=False, index=True),
    sa.Column("sealed_credential", sa.LargeBinary),
    sa.Column("accepted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("version", sa.Integer),
    sa.Column("policy_key", sa.Text),
    sa.Column("hierarchy_key", sa.Text, nullable=False, server_default="0"),
    sa.Column("informed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("acknowledged", sa.Integer),
    sa.Column("url", sa.Text),
    sa.Column("horizon", Moment),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("since", Moment, nullable=False),
    sa.Column("next_try_at", Moment),
    sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("candidate_refusals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("candidate_refused_at", Moment),
    sa.Column("last_ping_at", Moment),
    sa.Column("heartbeat", sa.Double),
    sa.Column("last_change_at", Moment),
    sa.Column("dirty", sa.Boolean, nullable=False, server_default=sa.false(), index=True),
    sa.UniqueConstraint("server", "user"),
    sa.Column("user_key", sa.Text),
    sa.Column("paused_at", Moment),
    sa.Column("retry", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("forgotten", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_mailbox_server_user_key", "server", "user_key", unique=True),
)
"""`user_key` is what all spellings of a user have in common (`relay/domain/users.py`); null: each is a user of its own,
or another spelling was there before. `paused_at`, `retry` and `forgotten` are what an administrator asks for; the watch
role does it. `candidate_refusals` and `candidate_refused_at` are unused: they stay until a
migration drops them."""
_PAUSED: Final = mailbox.c.paused_at.is_not(None)
sa.Index("ix_mailbox_paused", mailbox.c.paused_at, sqlite_where=_PAUSED, postgresql_where=_PAUSED)

collection = sa.Table(
    "collection",
    metadata,
    sa.Column("mailbox_id", sa.Text, sa.ForeignKey("mailbox.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("collection_id", sa.Text, primary_key=True),
    sa.Column("class", sa.Text, nullable=False),
    sa.Column("sync_key", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("newest", Moment),
    sa.Column("seen", sa.JSON, nullable=False),
    sa.Column("sub", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("changed_at", Moment),
)
"""`changed_at` is when the mail server last reported a change of this collection or of one that was asked for with it;
the latest of a mailbox is its last change. It is in this row since each change writes it anyway;
in `mailbox.last_change_at` is what older versions noted, and the last change of collections that were dropped."""

hierarchy = sa.Table(
    "hierarchy",
    metadata,
    sa.Column("mailbox_id", sa.Text, sa.ForeignKey("mailbox.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("folders", sa.JSON, nullable=False),
)
"""All folders of each mailbox whose sub-folders some registration asked for. They are not in the mailbox's row, since
that is written at each change of its state. A folder is a list of its id, its parent's id, and its type."""

registration = sa.Table(
    "registration",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("mailbox_id", sa.Text, sa.ForeignKey("mailbox.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("app", sa.Text, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("device_token", sa.Text, nullable=False),
    sa.Column("token_hash", sa.Text),
    sa.Column("token_since", Moment, nullable=False),
    sa.Column("classes", sa.JSON, nullable=False),
    sa.Column("subfolders", sa.JSON),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("locale", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("candidate_refused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("proved_at", Moment),
    sa.Column("tested_at", Moment),
    sa.Column("last_push_at", Moment),
    sa.Column("last_outcome", sa.Text, nullable=False, server_default=""),
    sa.Column("pushed", sa.JSON),
    sa.Column("must_prove", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("challenge_hash", sa.LargeBinary),
    sa.Column("challenged_at", Moment),
    sa.Column("quarantined_at", Moment),
    sa.Column("quarantine_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("quarantine_remedy", sa.Text, nullable=False, server_default=""),
    sa.Column("rechecks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("recheck_at", Moment),
    sa.Column("refused_at", Moment),
    sa.Column("credential_proof", sa.LargeBinary),
    sa.Column("idle_since", Moment),
    sa.Column("seen_at", Moment),
)

"""By `token_hash` the watch role, which may not read device tokens, sees whether two registrations mean the same app on
the same device (`relay/domain/devices.py`). In rows that an older version wrote it is missing, or of the device token
before: the api role mends them."""

tombstone = sa.Table(
    "tombstone",
    metadata,
    sa.Column("registration_id", sa.Text, primary_key=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("ending", sa.Text, nullable=False),
    sa.Column("until", Moment, nullable=False, index=True),
)
"""The registrations that ended, each until a moment; nothing else of them is left."""

wipe = sa.Table(
    "wipe",
    metadata,
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("wiped_at", Moment, nullable=False),
)
"""The accounts whose device an administrator wiped, until an administrator allows them again."""

candidate = sa.Table(
    "candidate",
    metadata,
    sa.Column("registration_id", sa.Text, sa.ForeignKey("registration.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Moment),
    sa.Column("account", sa.Text, index=True),
)
"""`account` is set while a candidate waits for its try: so the api role counts those of an account. Rows that an older
version wrote have neither it nor `created_at`."""

tries = sa.Table(
    "tries",
    metadata,
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("user", sa.Text, primary_key=True),
    sa.Column("spent", sa.Integer, nullable=False, server_default="0"),
    sa.Column("strangers", sa.Integer, nullable=False, server_default="0"),
    sa.Column("owners", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_at", Moment, nullable=False),
)
"""How often credentials of an account were shown lately, by the spelling of its user: in all, as candidates of
strangers, and as candidates of active registrations. The row without account and user is the lock of its server."""

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("registration_id", sa.Text, sa.ForeignKey("registration.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("mark", sa.Text, primary_key=True),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("certain", sa.Boolean, nullable=False),
    sa.Column("first_at", Moment, nullable=False),
    sa.Column("last_at", Moment, nullable=False),
    sa.Column("due_at", Moment, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("claimed_by", sa.Text),
    sa.Column("claimed_until", Moment),
    sa.Column("paced", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("aside", sa.Text, nullable=False, server_default=""),
    sa.Column("cause", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_outbox_platform_due_at", "platform", "due_at"),
)

push_test = sa.Table(
    "push_test",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column(
        "registration_id", sa.Text, sa.ForeignKey("registration.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("asked_at", Moment, nullable=False),
    sa.Column("ended_at", Moment),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("channel", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""The last test pushes of each registration. Of those that are `queued`, the test mark in the outbox is the latest."""

challenged = sa.Table(
    "challenged",
    metadata,
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("since", Moment, nullable=False, index=True),
)
"""How many challenges each device got lately, of all registrations together, and each mailbox.

`device` is the hash of a device token, or `mailbox` with its id.
"""

shard = sa.Table(
    "shard",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.Text),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("lease_until", Moment),
)
"""`lease_until` is of owners of the version before; a newer one has a row in `node`, and its lease there."""

node = sa.Table(
    "node",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("joined_at", Moment, nullable=False),
    sa.Column("beat_at", Moment, nullable=False),
    sa.Column("alive_until", Moment, nullable=False),
    sa.Column("leaving", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""The watch processes. Its moments are those of the database's clock. An id is used once: a process that was removed,
because its lease had ended, joins under another one."""

path = sa.Table(
    "path",
    metadata,
    sa.Column("url", sa.Text, primary_key=True),
    sa.Column("interval", sa.Integer),
    sa.Column("cut_shortest", sa.Double),
    sa.Column("cut_longest", sa.Double),
    sa.Column("capacity", sa.Integer),
    sa.Column("learnt_at", Moment, nullable=False),
)

sealed_anew = sa.Table(
    "sealed_anew",
    metadata,
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
)
"""The shards whose seals of the old form were replaced, so that the watch role takes none of that form any more. The
watch role's database user may only add rows: who has that user cannot bring the old form back."""

key_holder = sa.Table(
    "key_holder",
    metadata,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("opens", sa.Text, nullable=False, server_default=""),
    sa.Column("seals", sa.Text, nullable=False, server_default=""),
    sa.Column("seen_at", Moment, nullable=False),
)
"""The processes with sealing keys: the ids of those that each opens, parted by blanks, and of the one it seals with.
They are removed when their process ends, or count no more when it has noted nothing for a while."""

event = sa.Table(
    "event",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("mailbox_id", sa.Text, nullable=False, server_default=""),
    sa.Column("registration_id", sa.Text, nullable=False, server_default=""),
    sa.Column("account", sa.Text, nullable=False, server_default=""),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False, server_default=""),
    sa.Column("through", sa.Text, nullable=False, server_default=""),
    sa.Column("result", sa.Text, nullable=False, server_default=""),
    sa.Column("code", sa.Text, nullable=False, server_default=""),
    sa.Column("count", sa.Integer, nullable=False, server_default="1"),
    sa.Index("ix_event_mailbox_id_id", "mailbox_id", "id"),
)
sa.Index(
    "ix_event_account",
    event.c.account,
    sqlite_where=event.c.account != "",
    postgresql_where=event.c.account != "",
)
"""The timeline (`relay/domain/timeline.py`), for as long as `timeline.keep_hours` says. Without foreign keys: an event
locks no other row, and those of a mailbox that is forgotten still say why."""

maintenance = sa.Table(
    "maintenance",
    metadata,
    sa.Column("server", sa.Text, primary_key=True),
    sa.Column("since", Moment, nullable=False),
)
"""The mail servers, by their names in relay.toml, that an administrator put into maintenance: nobody asks them."""

act = sa.Table(
    "act",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("via", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("server", sa.Text, nullable=False, server_default=""),
    sa.Column("subject", sa.Text, nullable=False, server_default=""),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)
"""The audit log: what administrators did. Rows are only ever added, and each is chained to the one before it.

`subject` is the keyed hash of a user, of whom nothing else is here."""

canary = sa.Table(
    "canary",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("registration_id", sa.Text),
    sa.Column("device", sa.LargeBinary),
    sa.Column("tried_at", Moment),
    sa.Column("refused_at", Moment),
    sa.Column("refusal", sa.Text, nullable=False, server_default=""),
    sa.Column("holder", sa.Text),
    sa.Column("sent_at", Moment),
    sa.Column("mail_refused_at", Moment),
)
"""The canary (`relay/domain/canary.py`): one row, with the id 1.

The api role registers its mailbox: `device` is the key of the relay's own device, which the push role decrypts with;
`refused_at` is when the mail server refused the password. One watch process, the `holder`, sends its mails."""

canary_shown = sa.Table(
    "canary_shown",
    metadata,
    sa.Column("platform", sa.Text, primary_key=True),
    sa.Column("noticed_at", Moment, primary_key=True),
    sa.Column("shown_at", Moment, nullable=False),
)
"""The pushes that the canary's devices showed, until the process that sends its mails has read them."""
