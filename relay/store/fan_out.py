"""What changes of mailboxes give their registrations: dirty marks, and which of these are born claimed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Row

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import MailboxId
from eas_watcher.values import quick
from relay.domain.handover import NewPush, Offer, taken
from relay.domain.model import (
    CommitEntry,
    DuePush,
    Environment,
    Mark,
    Mode,
    Platform,
    RegistrationId,
    RegistrationState,
)
from relay.domain.reasons import Cause, cause_of
from relay.store.bulk import Among
from relay.store.marks import Claim, Key, NewMark
from relay.store.moves import with_moves
from relay.store.prepared import Prepared
from relay.store.reading import UNDECODABLE, Reader, fetch, is_ours
from relay.store.rows import UNPAUSED, AnyRow, read_cause, read_pushed
from relay.store.tables import registration

_LISTENING: Final = (
    registration.c.id,
    registration.c.mailbox_id,
    registration.c.platform,
    registration.c.classes,
    registration.c.subfolders,
)
_CONCERNED: Final = sa.and_(
    Among("mailboxes", registration.c.mailbox_id),
    registration.c.state == RegistrationState.ACTIVE.value,
)
_LISTENERS: Final = Prepared(sa.select(*_LISTENING).where(_CONCERNED))


class Listener(NamedTuple):
    """A registration that may get marks, in the order of the columns of `_LISTENERS`."""

    registration_id: str
    mailbox_id: str
    platform: str
    classes: object
    subfolders: object
    """None: written by a version that knew no sub-folders."""

    def wants(self, name: str, *, sub: bool) -> bool:
        """Return True if it asked for the class of this name, and for its sub-folders if the change is in one.

        Of a row that was damaged since the watch began it is said that it wants nothing: another look names it.
        """
        names, subfolders = self.classes, self.subfolders
        if not isinstance(names, list) or name not in names:
            return False
        return not sub or (isinstance(subfolders, list) and name in subfolders)


@dataclass(frozen=True, slots=True)
class News:
    """What a group of changes gives to registrations."""

    marks: list[NewMark]
    pushes: Mapping[Key, DuePush] = field(default_factory=dict)
    """By registration and mark: what to push for the marks that a dispatcher takes over if they are new."""
    claims: Mapping[Key, Claim] = field(default_factory=dict)
    """Their claims."""


def fan_out(
    connection: sa.Connection,
    entries: Sequence[CommitEntry],
    wiped: set[MailboxId],
    offers: Mapping[Platform, Offer],
    now: datetime,
    moves: Mapping[str, object] | None = None,
) -> News:
    """Turn the changes of mailboxes into marks of their active registrations, with one query for all.

    A mailbox that is being wiped gives an `attention` mark, and nothing else. An `attention`
    mark is certain unless the mail server may be at fault. `moves` are written to PostgreSQL with the query.
    """
    changes: dict[MailboxId, list[Change]] = {}
    alarmed = dict.fromkeys(wiped, (True, Cause.WIPED.value))
    for entry in entries:
        if entry.mailbox_id not in wiped and entry.progress.changes:
            changes.setdefault(entry.mailbox_id, []).extend(entry.progress.changes)
        if entry.progress.attention:
            alarmed[entry.mailbox_id] = not entry.progress.in_doubt, _cause(entry.progress)
    mailboxes = changes.keys() | alarmed.keys()
    if not mailboxes:
        return News([])
    marks: list[NewMark] = []
    rows = _read(connection, {"mailboxes": sorted(mailboxes)}, moves, wide=bool(offers))
    for row in rows:
        listener = Listener._make(row[: len(_LISTENING)])
        marks += _new_items(listener, changes.get(MailboxId(listener.mailbox_id), ()))
        alarm = alarmed.get(MailboxId(listener.mailbox_id))
        if alarm is not None:
            certain, cause = alarm
            name = Mark.ATTENTION.value
            marks.append(NewMark(listener.registration_id, name, listener.platform, 1, certain=certain, cause=cause))
    if not offers:
        return News(marks)
    pushes = taken(_new_pushes(rows, marks, now), offers, now)
    claims = {(push.registration_id, push.mark.value): offers[push.platform] for push in pushes}
    return News(
        marks,
        {(push.registration_id, push.mark.value): push for push in pushes},
        {key: Claim(offer.owner, offer.until) for key, offer in claims.items()},
    )


def _cause(progress: Progress) -> str:
    """Return what the `attention` of a watch is about, in the word that the push has; empty: unknown."""
    condition = progress.condition
    cause = None if condition is None else cause_of(condition.state, condition.reason)
    return "" if cause is None else cause.value


def _new_items(listener: Listener, changes: Iterable[Change]) -> list[NewMark]:
    """Return the marks that changes give one registration: of its classes, and in sub-folders only where it asked."""
    found: dict[str, NewMark] = {}
    for change in changes:
        name, count, certain = change.cls.value, change.count, change.certain
        if not listener.wants(name, sub=change.sub):
            continue
        if name in found:
            count, certain = found[name].changes + count, found[name].certain or certain
        found[name] = NewMark(listener.registration_id, name, listener.platform, count, certain)
    return list(found.values())


# --- marks that are born claimed; only a process that pushes may read the columns that this takes


class Addressee(NamedTuple):
    """Where the pushes of a registration go, and what decides whether they leave at once."""

    platform: Platform
    app: str
    environment: Environment
    device_token: str
    token_since: datetime
    mode: Mode
    locale: str
    mailbox_id: MailboxId
    pushed: Mapping[str, float]
    active: bool
    """Whether it gets pushes: it is active, and no administrator paused its mailbox."""
    quarantined: bool


def _read_addressee(row: AnyRow) -> Addressee:
    return Addressee(
        Platform(row.platform),
        row.app,
        Environment(row.environment),
        row.device_token,
        row.token_since,
        Mode(row.mode),
        row.locale,
        MailboxId(row.mailbox_id),
        read_pushed(row.pushed),
        row.state == RegistrationState.ACTIVE.value and not row.paused,
        row.recheck_at is not None,
    )


_ADDRESSEES: Final = Reader(
    sa.select(
        *_LISTENING,
        registration.c.app,
        registration.c.environment,
        registration.c.device_token,
        registration.c.token_since,
        registration.c.mode,
        registration.c.locale,
        registration.c.pushed,
        registration.c.state,
        registration.c.recheck_at,
        sa.not_(UNPAUSED).label("paused"),
    ).where(_CONCERNED),
    [registration.c.id],
    _read_addressee,
)


_WITH_ADDRESSES: Final = Prepared(_ADDRESSEES.query)
_WITH_ADDRESSES_OF_MOVED: Final = with_moves(_ADDRESSEES.query)


def _read(
    connection: sa.Connection, parameters: Mapping[str, object], moves: Mapping[str, object] | None, *, wide: bool
) -> list[Row[Any]]:
    """Return the registrations of mailboxes, with where their pushes go if it can be decoded for all of them.

    Where the answer cannot be decoded, `moves` are written all the same, and are not written again.
    """
    try:
        if moves is not None:
            return _WITH_ADDRESSES_OF_MOVED.rows(connection, {**parameters, **moves})
        if wide:
            return _WITH_ADDRESSES.rows(connection, parameters)
    except UNDECODABLE as error:
        if is_ours(error):
            raise
    rows, _ = fetch(connection, _LISTENERS, [registration.c.id], parameters)
    return rows


def _new_pushes(rows: Iterable[Row[Any]], marks: Iterable[NewMark], now: datetime) -> list[NewPush]:
    """Return the pushes that marks have if they are new; rows that cannot be read are left to the claim."""
    by_id = {row.id: row for row in rows}
    found: list[NewPush] = []
    for mark in sorted(marks):
        row = by_id[mark.registration_id]
        to = _ADDRESSEES.value(row) if len(row) > len(_LISTENING) else None
        if isinstance(to, Addressee) and to.active:
            found.append(_new_push(mark, to, now))
    return found


_PUSH: Final = quick(DuePush)


def _new_push(mark: NewMark, to: Addressee, now: datetime) -> NewPush:
    seconds = to.pushed.get(mark.mark)
    push = _PUSH(
        registration_id=RegistrationId(mark.registration_id),
        mark=Mark(mark.mark),
        count=mark.changes,
        certain=mark.certain,
        generation=1,
        attempts=0,
        first_at=now,
        last_at=now,
        platform=to.platform,
        app=to.app,
        environment=to.environment,
        device_token=to.device_token,
        token_since=to.token_since,
        mode=to.mode,
        locale=to.locale,
        mailbox_id=to.mailbox_id,
        cause=read_cause(mark.cause),
        nonce="",
    )
    return NewPush(push, None if seconds is None else datetime.fromtimestamp(seconds, UTC), to.quarantined)
