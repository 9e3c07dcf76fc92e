"""The database: whether it answers, fits this version, lets the role work, and holds credentials that open."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.server.idle_timeout import Lesson
from relay.doctor.finding import Finding, Subject
from relay.domain.clock import Clock
from relay.domain.errors import (
    DatabaseMoved,
    DatabaseRefuses,
    KeyLost,
    NotificationsLost,
    SchemaNewer,
    SessionsShared,
    StoreUnavailable,
)
from relay.domain.model import Role
from relay.security.sealing import foreign
from relay.settings import Settings
from relay.store.clock import DatabaseClock
from relay.store.engine import Database, connect_arguments, open_database, refusals
from relay.store.idle_timeouts import SqlIdleTimeoutStore
from relay.store.migrate import pending
from relay.store.ops import SqlOpsStore
from relay.store.privileges import excess, missing
from relay.store.seals import seal_heads
from relay.store.sessions import check_sessions
from relay.store.survey import ServerSurvey, survey, watch_processes

SUBJECT: Final = "database.url"
SHOWN: Final = 4
"""Rights that a line names."""
LESSONS: Final = timedelta(days=30)
"""Age at which what was learnt of a path says nothing about today."""
OPENS: Final = frozenset({Role.ALL, Role.WATCH})

GRANT: Final = "run docs/postgresql-grants.sql as the owner of the database, after `relay migrate`"
AWAY: Final = "check that it runs, and database.url, database.password_file, and firewalls on the way"
ALONE: Final = "from your backup, or name its file in sealing.former_private_key_files: credentials open with it alone"
OTHER_KEY: Final = f"`relay keys list` names the key: restore it {ALONE}"


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says about the mail servers."""

    findings: tuple[Finding, ...]
    servers: Mapping[str, ServerSurvey] = field(default_factory=lambda: MappingProxyType({}))
    lessons: Mapping[str, Lesson] = field(default_factory=lambda: MappingProxyType({}))
    """What was learnt about the paths to them, by URL."""
    processes: int = 0
    """How many processes watch mailboxes now."""

    @property
    def mailboxes(self) -> int:
        """The number of mailboxes that one process watches, 0 if it is not known."""
        return -(-sum(each.mailboxes for each in self.servers.values()) // max(1, self.processes))


async def look_at_database(settings: Settings, clocks: PeerClocks, now: Clock) -> Known:
    """Return what the database says; nothing is written. `clocks` gets the time of PostgreSQL."""
    subject = Subject("database", SUBJECT)
    database = settings.database
    if database.file is not None and not database.file.exists():
        return Known((subject.good(f"{database.file} is made at the first start"),))
    try:
        if database.file is None:
            # First: behind a pooler that shares sessions any other statement may fail by itself.
            await check_sessions(connect_arguments(database.dsn, database.ca_file))
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(open_database(database.dsn, database.ca_file, reads=True))
            with refusals():
                return await _look(settings, opened, clocks, now)
    except (SessionsShared, NotificationsLost) as error:
        wrong, _, remedy = str(error).partition(": ")
        return Known((Subject("pooler", SUBJECT).bad(wrong, remedy),))
    except StoreUnavailable as error:
        return Known((subject.bad(f"does not answer: {error}", AWAY),))
    except DatabaseRefuses as error:
        return Known((subject.bad(str(error).partition(". ")[0], GRANT),))


async def _look(settings: Settings, database: Database, clocks: PeerClocks, now: Clock) -> Known:
    subject = Subject("database", SUBJECT)
    await SqlOpsStore(database).reachable()
    embedded = settings.database.file is not None
    if not embedded:
        await DatabaseClock(database, clocks).look()
    try:
        lacks = await pending(database)
    except (DatabaseMoved, SchemaNewer) as error:
        wrong, _, remedy = str(error).partition(": ")
        return Known((subject.bad(wrong, remedy),))
    if lacks:
        if embedded:
            return Known((subject.note("lacks migrations of this version", "nothing: the next start makes them"),))
        return Known((subject.bad("lacks migrations of this version", "stop the relay and run `relay migrate`"),))
    findings = [subject.good("answers, and has the schema of this version")]
    if settings.role is not Role.ALL and not embedded:
        lacking = await missing(database, settings.role)
        findings += judge_rights(settings.role, lacking, await excess(database, settings.role))
        if lacking:
            return Known(tuple(findings))
    if settings.role not in OPENS:
        return Known(tuple(findings))
    findings.append(_judge_keys(settings, await seal_heads(database)))
    lessons = await SqlIdleTimeoutStore(database).lessons(now() - LESSONS)
    processes = await watch_processes(database, now())
    return Known(tuple(findings), await survey(database), lessons, processes)


def judge_rights(role: Role, lacking: Sequence[str], too_many: Sequence[str]) -> list[Finding]:
    """Return the findings about the rights of a role's database user."""
    subject = Subject("grants", SUBJECT)
    found = []
    if lacking:
        found.append(subject.bad(f"the database user of role {role} {_some(lacking)}", GRANT))
    if too_many:
        found.append(subject.note(f"the database user of role {role} {_some(too_many)}", f"it needs less: {GRANT}"))
    return found or [subject.good(f"the database user has the rights of role {role}, and no others")]


def _some(phrases: Sequence[str]) -> str:
    more = [f"and {len(phrases) - SHOWN} more"] if len(phrases) > SHOWN else []
    return ", ".join([*phrases[:SHOWN], *more])


def _judge_keys(settings: Settings, heads: Mapping[bytes, int]) -> Finding:
    """Return the finding about the credentials: whether the sealing key opens them."""
    sealing = settings.sealing
    subject = Subject("seals", "sealing.private_key_file")
    keys = frozenset[bytes]() if sealing.private is None else sealing.private.ids
    total = sum(heads.values())
    if lost := foreign(heads, keys):
        error = KeyLost(lost.number, sealing.private_key_file, lost.keys)
        return subject.bad(str(error).partition(". ")[0], f"restore that key {ALONE}")
    others = sum(count for head, count in heads.items() if head[1:9] not in keys and head[:1] == b"\x02")
    if others:
        return subject.bad(f"{others} of {total} stored credentials were sealed for another key", OTHER_KEY)
    if not total:
        return subject.good("no credential is stored yet")
    return subject.good(f"opens the {total} stored credentials")
