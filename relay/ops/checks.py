"""The checks of the parts that every process has: thresholds, reasons and remedies."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DEVICE_TYPE
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.reasons import Reason
from relay.domain.clock import Clock
from relay.domain.model import SHARDS
from relay.domain.reasons import Concern, row_of, write_reason
from relay.ops.counts import CountsCache
from relay.ops.health import OK, Finding, Part, PartState
from relay.ops.lag import LoopLag
from relay.push.key_files import KeyFile
from relay.security.certificates import read_expiry
from relay.watch.shares import Unfair

DATABASE_FAILED: Final = (
    "The database does not answer: check that it runs, its disk has room, and database.url is right."
)
STALE: Final = timedelta(seconds=60)
"""A database without an answer for so long has failed; before that, it may be restarting."""
SOME: Final = 0.1  # of all mailboxes; fewer are a problem of single users
MOST: Final = 0.5  # of all mailboxes; more are a problem of the server
RENEWAL: Final = timedelta(days=14)  # before the end of a certificate, when it should be renewed
SPRAYED: Final = 0.4  # of the refused logins that a server bears; more are hardly slips of single users
SLOW: Final = 0.25  # seconds a timer may be late before Pings and pushes suffer
STALLED: Final = 2.0  # seconds

_NOT_MEANT: Final = (
    *(WatchState.WIPING, WatchState.WIPED, WatchState.VERIFYING, WatchState.CREDENTIAL_REFUSED, WatchState.PAUSED),
)
"""States of mailboxes that wait for their users, an administrator, or a first credential, and not for a watch."""
SHOWN: Final = 5
"""Rights too many that health names; the log has all."""
CLOSE: Final = (
    "Give each role its own database user, system user and folder: run docs/postgresql-grants.sql and correct what it "
    "names, keep the private sealing key where the watch role alone can read it, and restart. See docs/install.md."
)
ALLOW: Final = f"Allow DeviceType {DEVICE_TYPE} in its access rules; see docs/exchange-admin.md."


def database(counts: CountsCache, clock: Clock) -> Part:
    """Return the part of the database, checked by its last answers."""

    def check() -> Finding:
        newest = counts.newest
        if counts.reachable:
            return OK
        late = newest is None or clock() - newest.read_at > STALE
        return Finding(PartState.FAILED if late else PartState.DEGRADED, "does not answer", DATABASE_FAILED)

    return Part("database", check, essential=True)


def mailboxes(levels: Callable[[], Mapping[tuple[WatchState, Reason | None], int] | None]) -> Part:
    """Return the part of all mail servers, checked by the share of mailboxes that are not watched.

    `levels` returns counts by state and reason; None: not counted yet.
    """

    def check() -> Finding:
        known = {key: n for key, n in (levels() or {}).items() if key[1] is not Reason.MAINTENANCE}
        if not known:
            return OK
        ill = {key: n for key, n in known.items() if _ill(*key)}
        meant = {key: n for key, n in known.items() if key in ill or key[0] not in _NOT_MEANT}
        unwatched = {key: n for key, n in meant.items() if key[0] is not WatchState.WATCHING}
        total, waiting = (
            sum(meant.values()),
            sum(n for key, n in unwatched.items() if key[0] is not WatchState.STARTING),
        )
        number = sum(ill.values())
        if number < SOME * total or not number:
            # No fault of the server is known; but where hardly any mailbox is watched, all is not well.
            if waiting < MOST * total or not waiting:
                return OK
            number = 0
        state, reason = max(ill or unwatched, key=lambda key: unwatched[key])
        row = row_of(state, reason)
        remedy = f"{row.remedy} {ALLOW}" if row.access_rule else row.remedy
        why = f"{unwatched[state, reason]} of them {state.value} {write_reason(reason)}".rstrip()
        text = f"{sum(unwatched.values())} of {total} mailboxes are not watched, {why}"
        failed = number and max(number, waiting) >= MOST * total
        return Finding(PartState.FAILED if failed else PartState.DEGRADED, text, remedy)

    return Part("mail servers", check)


def credential_checks(levels: Callable[[], Mapping[tuple[WatchState, Reason | None], int] | None]) -> Part:
    """Return the part of new mailboxes, checked by the share whose credential the mail server does not judge.

    On the first day that is all of them, if the server's URL, name or CA is wrong. `levels` is that of `mailboxes`.
    """

    def check() -> Finding:
        known = levels() or {}
        stuck = {key: n for key, n in known.items() if _unproved(*key)}
        number = sum(stuck.values())
        total = number + sum(n for (state, _), n in known.items() if state not in _NOT_MEANT)
        if not stuck or number < SOME * total:
            return OK
        state, reason = max(stuck, key=lambda key: stuck[key])
        row = row_of(state, reason)
        remedy = f"{row.remedy} {ALLOW}" if row.access_rule else row.remedy
        text = f"{number} new mailboxes wait, most: {write_reason(reason)}; {total - number} others have been accepted"
        return Finding(PartState.FAILED if number >= MOST * total else PartState.DEGRADED, text, remedy)

    return Part("credential checks", check)


def refused_logins(server: str, counts: CountsCache) -> Part:
    """Return the part of the credentials that a mail server refuses, checked by the share of the budget they take."""

    def check() -> Finding:
        newest = counts.newest
        found = None if newest is None else newest.refused_logins.get(server)
        if found is None or found.refused < SPRAYED * found.most:
            return OK
        text = f"{found.refused} credentials of apps were refused within {found.minutes} minutes"
        remedy = (
            "Look in the log of the reverse proxy from where they come, and bar it: somebody tries passwords. "
            f"If many users mistype at once, raise servers.{server}.refused_logins."
        )
        if found.wait:
            return Finding(PartState.FAILED, f"{text}: new ones wait", remedy)
        return Finding(PartState.DEGRADED, text, remedy)

    return Part(f"refused logins {server}", check)


def own_rights(excess: Sequence[str]) -> Part:
    """Return the part of what this process may do that its role does not need, as it was at its start."""
    shown = "; ".join([*excess[:SHOWN], *([f"and {len(excess) - SHOWN} more"] if len(excess) > SHOWN else [])])
    found = Finding(PartState.DEGRADED, f"may do more than its role needs: {shown}", CLOSE) if excess else OK
    return Part("own rights", lambda: found)


def leases(leased: Callable[[], bool]) -> Part:
    """Return the part that fails when this process may watch no mailbox."""

    def check() -> Finding:
        if leased():
            return OK
        remedy = (
            "It renews them as soon as the database takes writes: check that its disk has room; the log line "
            "`leases not renewed` has its answer."
        )
        return Finding(PartState.FAILED, "holds no lease, so it watches nothing", remedy)

    return Part("leases", check, essential=True)


def shards(found: Callable[[], Unfair | None]) -> Part:
    """Return the part that fails when mailboxes belong to no watch process; `found` is what is wrong for a while."""

    def check() -> Finding:
        wrong = found()
        if wrong is None:
            return OK
        if wrong.unowned:
            remedy = (
                "Their watch process has ended and no other one took them: look for `leases not renewed` and faults in "
                "the logs of the watch processes, and start another one."
            )
            return Finding(PartState.FAILED, f"{wrong.unowned} of {SHARDS} shards belong to no watch process", remedy)
        who = [f"{node} has {number}" for node, number in filter(None, (wrong.most, wrong.fewest))]
        remedy = (
            "They are shared again as fast as their mailboxes start: compare relay_server_waiting and "
            "servers.NAME.return_rate. If nothing moves, restart the process that has too many."
        )
        return Finding(PartState.DEGRADED, f"{SHARDS} shards are shared unevenly: {', '.join(who)}", remedy)

    return Part("shards", check)


def certificate(name: str, file: Path, clock: Clock) -> Part:
    """Return the part of a certificate, checked by the time it has left; `name` is its key in relay.toml."""

    def check() -> Finding:
        try:
            left = read_expiry(file) - clock()
        except (OSError, ValueError):
            return Finding(PartState.DEGRADED, "cannot be read any more", f"Put the file of {name} back.")
        if left > RENEWAL:
            return OK
        remedy = f"Renew the certificate of {name}; the new file is taken within seconds."
        if left <= timedelta():
            ahead = " If it is still valid, the clock of this host is ahead: set it."
            return Finding(PartState.FAILED, "has expired", remedy + ahead)
        return Finding(PartState.DEGRADED, f"expires in {_span(left.total_seconds())}", remedy)

    return Part(f"certificate {name}", check)


def key_file(file: KeyFile[Any]) -> Part:
    """Return the part of a file that is watched for changes: whether its present content is in use."""

    def check() -> Finding:
        if not file.fault:
            return OK
        reason = f"{file.path} {file.fault}; what it held before stays in use until the relay restarts"
        remedy = "Put a good file there, closed to others; it is taken within seconds. `relay check` judges it, too."
        return Finding(PartState.DEGRADED, reason, remedy)

    return Part(f"file {file.setting}", check)


def loop(lag: LoopLag) -> Part:
    """Return the part of the event loop, checked by how late its timers fire."""

    def check() -> Finding:
        worst = lag.worst
        if worst < SLOW:
            return OK
        remedy = (
            "The process has too much to do: give it a faster processor, or split the roles and add watch processes."
        )
        return Finding(
            PartState.FAILED if worst >= STALLED else PartState.DEGRADED, f"timers fire {worst:.2f} s late", remedy
        )

    return Part("event loop", check)


def clock(clocks: PeerClocks) -> Part:
    """Return the part of this host's clock, checked by the dates in the answers of mail servers and providers."""

    def check() -> Finding:
        found = clocks.difference
        if found is None:
            return OK
        where = "ahead of" if found.ahead > 0 else "behind"
        text = f"the clock of this host is {_span(abs(found.ahead))} {where} that of {found.peer}"
        if found.others:
            text += f"; it differs from those of other peers: {found.others}"
        remedy = "Set the clock of this host, and keep it right by NTP (timedatectl)."
        if found.agree:
            text += f"; it agrees with those of other peers: {found.agree}"
            remedy = f"Compare both clocks with the true time: that of {found.peer} may be wrong."
        return Finding(PartState.DEGRADED, text, remedy)

    return Part("clock", check)


def _span(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), (1, "seconds"))
    return f"{int(seconds) // size} {unit}"


_UNITS: Final = ((86400, "days"), (3600, "hours"), (60, "minutes"))


def _ill(state: WatchState, reason: Reason | None) -> bool:
    """Return True if many mailboxes of this kind are a fault of the mail server or of the relay's settings."""
    match state:
        case WatchState.BLOCKED:
            return True
        case WatchState.WAITING:
            return row_of(state, reason).concern is Concern.SERVER
        case _:
            return False


def _unproved(state: WatchState, reason: Reason | None) -> bool:
    """Return True for mailboxes without an accepted credential whose server was asked, or should have been, in vain."""
    return state is WatchState.VERIFYING and reason not in {None, Reason.NOT_ASKED, Reason.MAINTENANCE}
