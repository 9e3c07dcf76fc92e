"""A RegistrationStore in memory, with the results of credential checks at hand."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.devices import fingerprint
from relay.domain.errors import MailboxExists, MailboxFull, RegistrationExists, StoreUnavailable
from relay.domain.model import (
    MOST_REGISTRATIONS,
    Ending,
    Mailbox,
    Mark,
    NewMailbox,
    PushTest,
    PushTestState,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
    Tombstone,
)
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.retention import Retention
from relay.domain.tries import Load, Tries, TryLimits, account_key
from relay.store.push_tests import KEPT

RETENTION: Final = Retention()


class MemoryRegistrationStore:
    """A store that keeps registrations as the SQL store does, or fails as a lost database does."""

    def __init__(self, wakeups: Wakeups, retention: Retention = RETENTION) -> None:
        self.retention = retention
        self.wakeups = wakeups
        self.views = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.down = False
        self.failing: set[str] = set()
        """Methods that fail although the database is not down."""
        self.falls_after_create = False
        self.goes_at_change = False
        """Whether another process removes a registration before a change that is no credential."""
        self.appears = False
        """Whether another request makes the same registration first."""
        self.rivals = 0
        """The number of times that another process creates the same mailbox first."""
        self.mailboxes: dict[MailboxId, Mailbox] = {}
        self.keys: dict[MailboxId, str] = {}
        self.registrations: dict[RegistrationId, Registration] = {}
        self.candidates: dict[RegistrationId, bytes] = {}
        self.credentials: dict[MailboxId, bytes] = {}
        self.refused: set[RegistrationId] = set()
        self.tries: dict[tuple[str, str], Tries] = {}
        self.marks: list[tuple[RegistrationId, Mark]] = []
        self.proved: set[RegistrationId] = set()
        self.seen: dict[RegistrationId, datetime] = {}
        self.tombstones: dict[RegistrationId, tuple[Tombstone, datetime]] = {}
        self.tested: dict[RegistrationId, datetime] = {}
        self.nonces: dict[RegistrationId, str] = {}
        """The nonce of the last challenge of each registration, which a test sets."""
        self.tests: dict[RegistrationId, list[PushTest]] = {}

    async def mailbox_of(self, server: str, user: str, keys: Collection[str] = ()) -> Mailbox | None:
        self._reach("mailbox_of")
        found = next((m for m in self.mailboxes.values() if (m.server, m.user) == (server, user)), None)
        alike = [m for m in self.mailboxes.values() if m.server == server and self.keys.get(m.id) in keys]
        return found or min(alike, key=lambda m: (self.keys[m.id], m.id), default=None)

    async def load_of(self, server: str, account: str) -> Load:
        self._reach("load_of")
        mailboxes = {m.id for m in self.mailboxes.values() if (m.server, account_key(m.user)) == (server, account)}
        waiting = sum(self.registrations[id_].mailbox_id in mailboxes for id_ in self.candidates)
        return Load(self.tries.get((server, account), Tries()), waiting)

    async def create(self, mailbox: NewMailbox, registration: Registration, sealed_candidate: bytes) -> None:
        self._reach("create")
        if self.rivals:
            self.rivals -= 1
            self.mailboxes = {
                MailboxId(f"rival-{self.rivals}"): _new(
                    replace(mailbox, id=MailboxId(f"rival-{self.rivals}")), registration.created_at
                )
            }
        keys = () if mailbox.user_key is None else (mailbox.user_key,)
        known = await self.mailbox_of(mailbox.server, mailbox.user, keys)
        if known is not None and known.id != mailbox.id:
            raise MailboxExists(f"{mailbox.user} at {mailbox.server}")
        if self.appears:
            self.appears = False
            await self.create(mailbox, registration, sealed_candidate)
        if registration.id in self.registrations:
            raise RegistrationExists(registration.id)
        if known is None:
            self.mailboxes[mailbox.id] = _new(mailbox, registration.created_at)
            self.keys |= {} if mailbox.user_key is None else {mailbox.id: mailbox.user_key}
        for earlier in [*self.registrations.values()]:
            if (
                earlier.state is RegistrationState.VERIFYING
                and earlier.id not in self.proved
                and _device(earlier) == _device(registration)
            ):
                self._end(earlier.id, Ending.REPLACED, registration.created_at)
        await self._make_room(registration)
        self.registrations[registration.id] = registration
        self.candidates[registration.id] = sealed_candidate
        self.down = self.down or self.falls_after_create
        self.wakeups.wake(Topic.MAILBOXES)

    async def view(self, registration_id: RegistrationId) -> RegistrationView | None:
        self._reach("view")
        self.views += 1
        await self.answering.wait()
        registration = self.registrations.get(registration_id)
        if registration is None:
            return None
        return RegistrationView(
            registration,
            self.mailboxes[registration.mailbox_id],
            candidate_pending=registration_id in self.candidates,
            candidate_refused=registration_id in self.refused,
            seen_at=self.seen.get(registration_id),
        )

    async def look_at(
        self, ids: Collection[RegistrationId], seen: Collection[RegistrationId]
    ) -> Mapping[RegistrationId, RegistrationView | None]:
        found = {id_: await self.view(id_) for id_ in ids}
        return {
            id_: None if view.candidate_pending and id_ in seen else view
            for id_, view in found.items()
            if view is not None
        }

    async def change(self, registration_id: RegistrationId, change: RegistrationChange, now: datetime) -> None:
        self._reach("change")
        if self.goes_at_change and change.sealed_candidate is None:
            self._delete(registration_id)
        registration = self.registrations.get(registration_id)
        if registration is None or registration.state is RegistrationState.WIPED:
            return
        state, token_since, must_prove = registration.state, registration.token_since, registration.must_prove
        if change.device_token is not None:
            token_since = now
            moved = change.device_token != registration.device_token
            must_prove = change.proves and (moved or must_prove)
            if change.proves and moved:
                self.tested.pop(registration_id, None)
            if state in {RegistrationState.TOKEN_GONE, RegistrationState.ACTIVE, RegistrationState.PROVING}:
                state = RegistrationState.PROVING if must_prove else RegistrationState.ACTIVE
        if change.sealed_candidate is not None:
            self.candidates[registration_id] = change.sealed_candidate
            self.refused.discard(registration_id)
            state = RegistrationState.VERIFYING if state is RegistrationState.REFUSED else state
        changed = replace(
            registration,
            state=state,
            token_since=token_since,
            must_prove=must_prove,
            device_token=change.device_token or registration.device_token,
            environment=change.environment or registration.environment,
            classes=change.classes or registration.classes,
            subfolders=registration.subfolders if change.subfolders is None else change.subfolders,
            mode=change.mode or registration.mode,
            locale=change.locale or registration.locale,
            credential_proof=(
                registration.credential_proof if change.sealed_candidate is None else change.credential_proof or b""
            ),
        )
        self.registrations[registration_id] = changed
        if changed.state is RegistrationState.ACTIVE and (change.device_token or change.environment):
            self._supersede(changed)
        self.wakeups.wake(Topic.MAILBOXES)

    async def remove(self, registration_id: RegistrationId, now: datetime) -> None:
        self._reach("remove")
        registration = self.registrations.get(registration_id)
        if registration is not None and registration.state is not RegistrationState.WIPED:
            self._end(registration_id, Ending.REMOVED, now)

    async def withdraw(self, registration_id: RegistrationId) -> None:
        self._reach("withdraw")
        if registration_id not in self.candidates:
            self._delete(registration_id)

    async def tombstone(self, registration_id: RegistrationId) -> Tombstone | None:
        self._reach("tombstone")
        found = self.tombstones.get(registration_id)
        return None if found is None else found[0]

    def _supersede(self, mine: Registration) -> None:
        unproved = {RegistrationState.VERIFYING, RegistrationState.REFUSED}
        for other in [*self.registrations.values()]:
            waits = other.state in unproved and other.id in self.candidates
            if other.id != mine.id and _device(other) == _device(mine) and not waits:
                self._delete(other.id)

    async def saw(self, registration_id: RegistrationId, now: datetime) -> None:
        self._reach("saw")
        self.seen[registration_id] = now

    async def may_test(self, registration_id: RegistrationId, now: datetime, pause: timedelta) -> bool:
        self._reach("may_test")
        last = self.tested.get(registration_id)
        if registration_id not in self.registrations or (last is not None and now - pause < last <= now + pause):
            return False
        self.tested[registration_id] = now
        return True

    async def sweep(self, now: datetime) -> Mapping[Ending, int]:
        self._reach("sweep")
        self.tombstones = {id_: kept for id_, kept in self.tombstones.items() if kept[1] >= now}
        wiped = [r.id for r in self.registrations.values() if r.state is RegistrationState.WIPED and self._told(r.id)]
        old = [
            r.id
            for r in self.registrations.values()
            if r.id not in self.proved
            and r.created_at < now - self.retention.unproved
            and r.state is not RegistrationState.WIPED
        ]
        for ids, ending in ((wiped, Ending.WIPED), (old, Ending.EXPIRED)):
            for id_ in ids:
                self._end(id_, ending, now)
        return {ending: len(ids) for ids, ending in ((wiped, Ending.WIPED), (old, Ending.EXPIRED)) if ids}

    def _told(self, registration_id: RegistrationId) -> bool:
        """Return whether the phone of a wiped registration was told of the wipe, or cannot be."""
        return (registration_id, Mark.ATTENTION) not in self.marks

    def _end(self, registration_id: RegistrationId, ending: Ending, now: datetime) -> None:
        """Delete a registration, and leave a tombstone."""
        keep = self.retention.of_tombstone(proved=registration_id in self.proved)
        tombstone = Tombstone(self.registrations[registration_id].secret_hash, ending)
        self.tombstones[registration_id] = tombstone, now + keep
        self._delete(registration_id)

    def _delete(self, registration_id: RegistrationId) -> None:
        self.registrations.pop(registration_id, None)
        self.candidates.pop(registration_id, None)
        self.refused.discard(registration_id)
        self.proved.discard(registration_id)
        self.tested.pop(registration_id, None)
        self.tests.pop(registration_id, None)
        self.marks = [mark for mark in self.marks if mark[0] != registration_id]
        self.wakeups.wake(Topic.MAILBOXES)

    async def _make_room(self, new: Registration) -> None:
        same_mailbox = (r for r in self.registrations.values() if r.mailbox_id == new.mailbox_id)
        others = [r for r in same_mailbox if _device(r) != _device(new)]
        unproved = {RegistrationState.VERIFYING, RegistrationState.REFUSED}
        useless = [r for r in others if r.state in unproved and r.id not in self.candidates]
        useless.sort(key=lambda r: (r.created_at, r.id))
        surplus = max(0, len(others) - MOST_REGISTRATIONS + 1)
        if len(useless) < surplus:
            raise MailboxFull("full")
        for r in useless[:surplus]:
            self._end(r.id, Ending.EXPIRED, new.created_at)

    async def prove(self, registration_id: RegistrationId, nonce: str, now: datetime) -> bool:
        self._reach("prove")
        registration = self.registrations.get(registration_id)
        if registration is None or registration.state is not RegistrationState.PROVING or not nonce:
            return False
        if self.nonces.pop(registration_id, None) != nonce:
            return False
        self.registrations[registration_id] = replace(registration, state=RegistrationState.ACTIVE, must_prove=False)
        self.tested.pop(registration_id, None)
        self._supersede(registration)
        return True

    async def push_test(self, registration_id: RegistrationId, test: str) -> PushTest | None:
        self._reach("push_test")
        return next((each for each in self.tests.get(registration_id, []) if each.id == test), None)

    async def mark(self, registration_id: RegistrationId, mark: Mark, now: datetime, test: str = "") -> None:
        self._reach("mark")
        if registration := self.registrations.get(registration_id):
            self.marks.append((registration_id, mark))
            if test:
                before = [
                    replace(each, state=PushTestState.SUPERSEDED, ended_at=now)
                    if each.state is PushTestState.QUEUED
                    else each
                    for each in self.tests.get(registration_id, [])[1 - KEPT :]
                ]
                self.tests[registration_id] = [*before, PushTest(test, PushTestState.QUEUED, now)]
            self.wakeups.wake(Topic.outbox(registration.platform))

    def accept(self, registration_id: RegistrationId, now: datetime) -> None:
        """Accept a candidate as WatchStore does."""
        sealed = self.candidates.pop(registration_id)
        registration = self.registrations[registration_id]
        mailbox = self.mailboxes[registration.mailbox_id]
        self.credentials[mailbox.id] = sealed
        self.refused.discard(registration_id)
        self.proved.add(registration_id)
        if registration.state is not RegistrationState.TOKEN_GONE:
            accepted = RegistrationState.PROVING if registration.must_prove else RegistrationState.ACTIVE
            self.registrations[registration_id] = replace(registration, state=accepted)
            if accepted is RegistrationState.ACTIVE:
                self._supersede(registration)
        if mailbox.state in {WatchState.VERIFYING, WatchState.CREDENTIAL_REFUSED, WatchState.WIPED}:
            mailbox = replace(mailbox, state=WatchState.STARTING, reason=None, since=now)
        self.mailboxes[mailbox.id] = mailbox
        self.tries.pop((mailbox.server, account_key(mailbox.user)), None)
        self.wakeups.wake(Topic.VERDICTS)

    def wipe(self, registration_id: RegistrationId) -> None:
        """Wipe a registration, whose candidate goes, as WatchStore does."""
        self.candidates.pop(registration_id, None)
        wiped = replace(self.registrations[registration_id], state=RegistrationState.WIPED)
        self.registrations[registration_id] = wiped
        self.wakeups.wake(Topic.VERDICTS)

    def refuse(self, registration_id: RegistrationId, now: datetime) -> None:
        """Refuse a candidate as WatchStore does."""
        del self.candidates[registration_id]
        registration = self.registrations[registration_id]
        mailbox = self.mailboxes[registration.mailbox_id]
        if registration.state is not RegistrationState.VERIFYING:
            self.refused.add(registration_id)
        else:
            self.registrations[registration_id] = replace(registration, state=RegistrationState.REFUSED)
        if mailbox.id not in self.credentials:
            since = mailbox.since if mailbox.state is WatchState.CREDENTIAL_REFUSED else now
            mailbox = replace(mailbox, state=WatchState.CREDENTIAL_REFUSED, reason=Reason.HTTP_401, since=since)
        self.mailboxes[mailbox.id] = mailbox
        account = mailbox.server, account_key(mailbox.user)
        self.tries[account] = Tries(self.tries.get(account, Tries()).present(TryLimits(), now).spent + 1, now)
        self.wakeups.wake(Topic.VERDICTS)

    def forget_unused(self) -> None:
        """Delete mailboxes without registrations, as the watch role does."""
        named = {registration.mailbox_id for registration in self.registrations.values()}
        self.mailboxes = {id_: mailbox for id_, mailbox in self.mailboxes.items() if id_ in named}
        self.credentials = {id_: sealed for id_, sealed in self.credentials.items() if id_ in named}

    def _reach(self, method: str) -> None:
        if self.down or method in self.failing:
            raise StoreUnavailable("canary-host: connection refused")


def _new(mailbox: NewMailbox, now: datetime) -> Mailbox:
    return Mailbox(
        id=mailbox.id,
        server=mailbox.server,
        user=mailbox.user,
        device_id=mailbox.device_id,
        shard=mailbox.shard,
        state=WatchState.VERIFYING,
        reason=None,
        detail="",
        since=now,
        next_try_at=None,
        last_ping_at=None,
        heartbeat=None,
        last_change_at=None,
    )


def _device(registration: Registration) -> tuple[str, ...]:
    return (
        registration.mailbox_id,
        registration.platform,
        registration.app,
        registration.environment,
        fingerprint(registration.platform, registration.device_token),
    )
