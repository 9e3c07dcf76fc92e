"""The columns that each reader asks for, and the values they become."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy import Row

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.memory import WIPES, Collection, Condition, Memory, Partnership, WatchState
from eas_watcher.machine.seen import END, SeenIds
from eas_watcher.names import (
    CollectionClass,
    CollectionId,
    DeviceId,
    MailboxId,
    PolicyKey,
    ProtocolVersion,
    ServerId,
    SyncKey,
)
from eas_watcher.reasons import Reason
from eas_watcher.values import quick
from relay.domain.model import (
    DuePush,
    Environment,
    Mailbox,
    Mark,
    Mode,
    Platform,
    Quarantine,
    Registration,
    RegistrationId,
    RegistrationState,
)
from relay.domain.outcome import LastOutcome
from relay.domain.reasons import Cause, read_detail, read_reason
from relay.push.settlement import MarkUpdate, PendingMark, Recipient, RegistrationUpdate
from relay.store.prepared import write_json
from relay.store.tables import Moment, collection, mailbox, maintenance, outbox, registration

LONGEST_WAIT: Final = 4000.0
"""Seconds; a watch waits an hour and 10 % at most, so a later next try was written while the clock was wrong."""

AnyRow: TypeAlias = Row[*tuple[Any, ...]]

OF_MAILBOX: Final = (
    mailbox.c.id,
    mailbox.c.server,
    mailbox.c.user,
    mailbox.c.device_id,
    mailbox.c.shard,
    mailbox.c.state,
    mailbox.c.reason,
    mailbox.c.detail,
    mailbox.c.since,
    mailbox.c.next_try_at,
    mailbox.c.last_ping_at,
    mailbox.c.heartbeat,
    mailbox.c.last_change_at,
)
"""What the api and watch roles may read of the row of a mailbox."""
CHANGED: Final = (
    sa.select(sa.func.max(collection.c.changed_at)).where(collection.c.mailbox_id == mailbox.c.id).scalar_subquery()
).label("changed_at")
"""When the collections of a mailbox changed last."""
MAILBOX: Final = (*OF_MAILBOX, CHANGED)
"""What `read_mailbox` needs."""

MAINTAINED: Final = (
    sa.select(maintenance.c.since).where(maintenance.c.server == mailbox.c.server).scalar_subquery()
).label("maintained_at")
"""Since when the server of a mailbox is in maintenance; null: it is not."""
SHOWN: Final = (*MAILBOX, mailbox.c.paused_at, MAINTAINED)
"""What `read_shown` needs."""
STEERING: Final = (mailbox.c.paused_at, mailbox.c.retry, mailbox.c.forgotten, MAINTAINED)
"""What administrators ask of the watch role."""
UNPAUSED: Final = (
    sa.select(mailbox.c.paused_at)
    .where(mailbox.c.id == registration.c.mailbox_id)
    .correlate(registration)
    .scalar_subquery()
    .is_(None)
)
"""True of a registration whose mailbox is not paused.

Each mailbox is looked up by its key. For a list of all that are paused PostgreSQL would read the whole table at each
claim, also if none is.
"""

PARTNERSHIP: Final = (
    mailbox.c.version,
    mailbox.c.policy_key,
    mailbox.c.hierarchy_key,
    mailbox.c.informed,
    mailbox.c.acknowledged,
    mailbox.c.url,
    mailbox.c.horizon,
    mailbox.c.refusals,
)
"""What only the watch role needs of it, except its credential."""

QUARANTINE: Final = (
    registration.c.quarantined_at,
    registration.c.quarantine_reason,
    registration.c.quarantine_remedy,
    registration.c.rechecks,
    registration.c.recheck_at,
    registration.c.refused_at,
)

REGISTRATION: Final = (
    registration.c.id.label("registration_id"),
    registration.c.mailbox_id,
    registration.c.secret_hash,
    registration.c.app,
    registration.c.platform,
    registration.c.environment,
    registration.c.device_token,
    registration.c.token_since,
    registration.c.classes,
    registration.c.subfolders,
    registration.c.mode,
    registration.c.locale,
    registration.c.state.label("registration_state"),
    registration.c.created_at,
    registration.c.last_push_at,
    registration.c.last_outcome,
    registration.c.credential_proof,
    registration.c.must_prove,
    *QUARANTINE,
)

RECIPIENT: Final = (
    registration.c.id,
    registration.c.environment,
    registration.c.device_token,
    registration.c.token_since,
    registration.c.state,
    registration.c.pushed,
    *QUARANTINE,
)

DUE: Final = (
    outbox.c.registration_id,
    outbox.c.mark,
    outbox.c.count.label("changes"),
    outbox.c.certain,
    outbox.c.generation,
    outbox.c.attempts,
    outbox.c.first_at,
    outbox.c.last_at,
    outbox.c.platform,
    registration.c.app,
    registration.c.environment,
    registration.c.device_token,
    registration.c.token_since,
    registration.c.mode,
    registration.c.locale,
    registration.c.mailbox_id,
    outbox.c.cause,
    outbox.c.paced,
    registration.c.pushed,
    registration.c.recheck_at,
)

PENDING: Final = (
    outbox.c.registration_id,
    outbox.c.mark,
    outbox.c.count.label("changes"),
    outbox.c.generation,
    outbox.c.first_at,
    outbox.c.last_at,
    outbox.c.attempts,
    outbox.c.paced,
)

COLLECTION: Final = tuple(column for column in collection.c if column is not collection.c.changed_at)
"""What the watch role needs of a collection."""
_CLASS: Final = list(collection.c.keys()).index("class")

FREE: Final[Mapping[str, None]] = {"claimed_by": None, "claimed_until": None}
"""The columns of a mark's claim when there is none."""


def read_mailbox(row: AnyRow) -> Mailbox:
    """Read the columns MAILBOX."""
    return Mailbox(
        id=MailboxId(row.id),
        server=row.server,
        user=row.user,
        device_id=DeviceId(row.device_id),
        shard=row.shard,
        state=WatchState(row.state),
        reason=read_reason(row.reason),
        detail=read_detail(row.reason, row.detail),
        since=row.since,
        next_try_at=row.next_try_at,
        last_ping_at=row.last_ping_at,
        heartbeat=row.heartbeat,
        last_change_at=read_last_change(row),
    )


def read_last_change(row: AnyRow) -> datetime | None:
    """Return when a mailbox changed last, of its column and CHANGED."""
    return max(filter(None, (row.last_change_at, row.changed_at)), default=None)


def read_halt(row: AnyRow) -> Condition | None:
    """Read of the columns STEERING what keeps the watch role from asking the mail server; None: nothing."""
    if row.paused_at is not None:
        return Condition(WatchState.PAUSED)
    return None if row.maintained_at is None else Condition(WatchState.WAITING, Reason.MAINTENANCE)


def read_shown(row: AnyRow) -> Mailbox:
    """Read the columns SHOWN: a mailbox as people see it, who want to know that nobody watches it, and why.

    What was begun with a wipe goes before; what the watch left in the row is there again afterwards.
    """
    found = read_mailbox(row)
    if found.state in {WatchState.WIPING, WatchState.WIPED}:
        return found
    if row.paused_at is not None:
        return replace(found, state=WatchState.PAUSED, reason=None, detail="", since=row.paused_at, next_try_at=None)
    if row.maintained_at is None or found.state.ended:
        return found
    state = found.state if found.state is WatchState.VERIFYING else WatchState.WAITING
    return replace(found, state=state, reason=Reason.MAINTENANCE, detail="", since=row.maintained_at, next_try_at=None)


def shown_condition() -> tuple[sa.ColumnElement[str], sa.ColumnElement[str]]:
    """Return state and reason of a mailbox as `read_shown` reads them, for statements that count or choose."""
    state, reason = mailbox.c.state, mailbox.c.reason
    wiped = state.in_((WatchState.WIPING.value, WatchState.WIPED.value))
    paused = mailbox.c.paused_at.is_not(None)
    maintained = MAINTAINED.element.is_not(None) & (state != WatchState.CREDENTIAL_REFUSED.value)
    waits = sa.case((state == WatchState.VERIFYING.value, state), else_=WatchState.WAITING.value)
    return (
        sa.case((wiped, state), (paused, WatchState.PAUSED.value), (maintained, waits), else_=state).label("state"),
        sa.case((wiped, reason), (paused, ""), (maintained, Reason.MAINTENANCE.value), else_=reason).label("reason"),
    )


def read_registration(row: AnyRow) -> Registration:
    """Read the columns REGISTRATION."""
    return Registration(
        id=RegistrationId(row.registration_id),
        mailbox_id=MailboxId(row.mailbox_id),
        secret_hash=row.secret_hash,
        app=row.app,
        platform=Platform(row.platform),
        environment=Environment(row.environment),
        device_token=row.device_token,
        token_since=row.token_since,
        classes=read_classes(row.classes),
        subfolders=read_classes(row.subfolders),
        mode=Mode(row.mode),
        locale=row.locale,
        state=RegistrationState(row.registration_state),
        created_at=row.created_at,
        last_push_at=row.last_push_at,
        last_outcome=LastOutcome.read(row.last_outcome),
        quarantine=_read_quarantine(row),
        credential_proof=row.credential_proof or b"",
        must_prove=row.must_prove,
    )


def _read_quarantine(row: AnyRow) -> Quarantine | None:
    if row.quarantined_at is None:
        return None
    if row.recheck_at is None:
        raise ValueError("recheck_at: missing in a quarantine")
    return Quarantine(
        row.quarantined_at,
        row.quarantine_reason,
        row.quarantine_remedy,
        row.recheck_at,
        row.rechecks,
        row.refused_at,
    )


def write_quarantine(value: Quarantine | None) -> dict[str, object]:
    """Turn a quarantine into the columns QUARANTINE; None ends it."""
    return {
        "quarantined_at": None if value is None else value.since,
        "quarantine_reason": "" if value is None else value.reason,
        "quarantine_remedy": "" if value is None else value.remedy,
        "rechecks": 0 if value is None else value.rechecks,
        "recheck_at": None if value is None else value.recheck_at,
        "refused_at": None if value is None else value.refused_at,
    }


def read_memory(row: AnyRow) -> Memory:
    """Read the columns MAILBOX and PARTNERSHIP into the memory that a watch starts from, without what is elsewhere.

    Collections, classes and hierarchy are in other tables; the wait depends on the time.
    """
    partnership = Partnership(
        version=None if row.version is None else ProtocolVersion(row.version),
        policy_key=None if row.policy_key is None else PolicyKey(row.policy_key),
        hierarchy_key=SyncKey(row.hierarchy_key),
        informed=row.informed,
        acknowledged=None if row.acknowledged is None else Acknowledgement(row.acknowledged),
        url=row.url,
        horizon=row.horizon,
    )
    wiping = row.state == WatchState.WIPING.value
    return Memory(partnership, refusals=row.refusals, wipe=row.reason == WIPES[True] if wiping else None)


def rest_of_wait(next_try_at: datetime | None, now: datetime) -> float:
    """Return how many seconds are left until a watch's next try; 0 for a moment written while the clock was wrong."""
    wait = 0.0 if next_try_at is None else max(0.0, (next_try_at - now).total_seconds())
    return 0.0 if wait > LONGEST_WAIT else wait


def read_collection(row: AnyRow) -> Collection:
    """Read the columns COLLECTION."""
    return Collection(
        id=CollectionId(row.collection_id),
        cls=CollectionClass(row[_CLASS]),  # its name is a keyword
        sync_key=SyncKey(row.sync_key),
        tries=row.tries,
        newest=row.newest,
        seen=SeenIds.of(map(ServerId, read_texts("seen", row.seen))),
        sub=row.sub,
    )


def write_collection(owner: MailboxId, value: Collection) -> list[object]:
    """Turn a collection into its row, in the order of COLLECTION."""
    newest = None if value.newest is None else Moment.text(value.newest)
    return [owner, value.id, value.cls.value, value.sync_key, value.tries, newest, list(value.seen), value.sub]


def write_seen(value: SeenIds) -> str:
    """Turn the ids of items into JSON, as `write_json` does; nearly always there is nothing to escape."""
    text = value.text[1:-1].replace(END, '", "')
    plain = text.isascii() and text.isprintable() and "\\" not in text and text.count('"') == 2 * (len(value) - 1)
    return f'["{text}"]' if value.text and plain else write_json(list(value))


def write_hierarchy(owner: MailboxId, folders: Iterable[Folder]) -> dict[str, object]:
    """Turn a hierarchy into its row."""
    return {"mailbox_id": owner, "folders": [[folder.id, folder.parent, folder.type] for folder in folders]}


def read_hierarchy(row: AnyRow) -> tuple[Folder, ...]:
    """Read the folders of a mailbox."""
    return tuple(_read_folder(*value) for value in row.folders)


def _read_folder(id_: object, parent: object, folder_type: object) -> Folder:
    if not (isinstance(id_, str) and isinstance(parent, str) and isinstance(folder_type, int)):
        raise TypeError("folders: not two texts and a number")
    return Folder(CollectionId(id_), CollectionId(parent), folder_type)


def write_partnership(value: Partnership) -> dict[str, object]:
    """Turn a partnership into its columns."""
    return {
        "version": None if value.version is None else value.version.value,
        "policy_key": value.policy_key,
        "hierarchy_key": value.hierarchy_key,
        "informed": value.informed,
        "acknowledged": None if value.acknowledged is None else value.acknowledged.value,
        "url": value.url,
        "horizon": value.horizon,
    }


class DueMark(NamedTuple):
    """A mark that is due, and what decides whether it leaves now."""

    push: DuePush
    pushed_at: datetime | None
    """When its class was last pushed to this registration."""
    paced: bool
    """Whether its pace has put it off before."""
    quarantined: bool


_MARKS: Final = {each.value: each for each in Mark}
_PLATFORMS: Final = {each.value: each for each in Platform}
_ENVIRONMENTS: Final = {each.value: each for each in Environment}
_MODES: Final = {each.value: each for each in Mode}
_STATES: Final = {each.value: each for each in RegistrationState}
"""The members of each enumeration by name: to look one up is far cheaper than to call its class, which says what is
wrong with an unknown name."""

_DUE_PUSH: Final = quick(DuePush)
_RECIPIENT: Final = quick(Recipient)
_PENDING_MARK: Final = quick(PendingMark)


def read_due(row: AnyRow) -> DueMark:
    """Read the columns DUE."""
    (
        registration_id,
        mark,
        count,
        certain,
        generation,
        attempts,
        first_at,
        last_at,
        platform,
        app,
        environment,
        device_token,
        token_since,
        mode,
        locale,
        mailbox_id,
        cause,
        paced,
        pushed,
        recheck_at,
    ) = row
    seconds = read_pushed(pushed).get(mark)
    pushed_at = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    push = _DUE_PUSH(
        registration_id=registration_id,
        mark=_MARKS.get(mark) or Mark(mark),
        count=count,
        certain=certain,
        generation=generation,
        attempts=attempts,
        first_at=first_at,
        last_at=last_at,
        platform=_PLATFORMS.get(platform) or Platform(platform),
        app=app,
        environment=_ENVIRONMENTS.get(environment) or Environment(environment),
        device_token=device_token,
        token_since=token_since,
        mode=_MODES.get(mode) or Mode(mode),
        locale=locale,
        mailbox_id=mailbox_id,
        cause=read_cause(cause),
        nonce="",
    )
    return DueMark(push, pushed_at, paced, recheck_at is not None)


_CAUSES: Final = {each.value: each for each in Cause}


def read_cause(name: str) -> Cause | None:
    """Read what an `attention` is about; None for a word that only a newer version knows: the push does without it."""
    return _CAUSES.get(name)


_NUMBERS: Final = frozenset({int, float, bool})
"""The types of JSON that Python counts as numbers."""


def read_pushed(value: object) -> Mapping[str, float]:
    """Read when each mark was last delivered; null: none was."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not _NUMBERS.issuperset(map(type, value.values())):
        raise TypeError("pushed: no moments by marks")
    return value


def read_recipient(row: AnyRow) -> Recipient:
    """Read the columns RECIPIENT."""
    return _RECIPIENT(
        id=row.id,
        environment=_ENVIRONMENTS.get(row.environment) or Environment(row.environment),
        device_token=row.device_token,
        token_since=row.token_since,
        state=_STATES.get(row.state) or RegistrationState(row.state),
        pushed=read_pushed(row.pushed),
        quarantine=_read_quarantine(row),
    )


def read_pending(row: AnyRow) -> PendingMark:
    """Read the columns PENDING, but for the key."""
    return _PENDING_MARK(row.changes, row.generation, row.first_at, row.last_at, row.attempts, row.paced)


def write_outcome(outcome: LastOutcome | None) -> str:
    """Turn a last outcome into its column."""
    return "" if outcome is None else outcome.line


def write_registration_update(update: RegistrationUpdate, before: Recipient) -> dict[str, object]:
    """Turn what changed of a registration into its columns, with its key."""
    row: dict[str, object] = {"_id": before.id, "last_outcome": write_outcome(update.last_outcome)}
    if update.last_push_at is not None:
        row["last_push_at"] = update.last_push_at
    if update.pushed != before.pushed:  # also by a push that shadow mode held back
        row["pushed"] = update.pushed
    if update.quarantine != before.quarantine:
        row |= write_quarantine(update.quarantine)
    return row


def write_mark_update(update: MarkUpdate) -> dict[str, object]:
    """Turn the new values of a mark into its columns, with its key; its claim ends."""
    return {
        "_registration_id": update.registration_id,
        "_mark": update.mark.value,
        **FREE,
        "count": update.count,
        "first_at": update.first_at,
        "due_at": update.due_at,
        "attempts": update.attempts,
        "paced": update.paced,
        "aside": update.parked,
    }


def read_classes(names: object) -> frozenset[CollectionClass]:
    """Read a registration's classes, or those whose sub-folders it asked for; old rows have none of the latter.

    Classes that only a newer version knows are left out; `strange_classes` names them. Raises TypeError.
    """
    return frozenset(_CLASSES[name] for name in read_texts("classes", names or []) if name in _CLASSES)


def strange_classes(names: object) -> list[str]:
    """Return the names among a registration's classes that this version does not know; raises TypeError."""
    return sorted(name for name in read_texts("classes", names or []) if name not in _CLASSES)


_CLASSES: Final = {cls.value: cls for cls in CollectionClass}


def read_texts(name: str, value: object) -> list[str]:
    """Return a JSON value that must be a list of texts; raises TypeError."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name}: not a list of texts")
    return value


def write_classes(classes: Iterable[CollectionClass]) -> list[str]:
    """Turn classes into their column."""
    return sorted(cls.value for cls in classes)
