"""The remedies: what each failure asks of a watch.

Some remedies are applied at once (provision, read the hierarchy, start from key 0), but only `IMMEDIATE` times in a
row. From then on each waits its backoff first, so that no server can drive a watch into a busy loop. Remedies that cost
the server much, or have failed too often, are in the end tried once an hour, because servers block clients that repeat
them.
"""

from collections.abc import Container
from types import MappingProxyType
from typing import Final

from eas_watcher import backoff
from eas_watcher.autodiscover.urls import eas_location, host_and_port
from eas_watcher.errors import (
    AccessDenied,
    CredentialVoid,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    ServerRenewed,
    StateLost,
    TooManyCollections,
    Unauthorized,
    Unreachable,
    VersionRefused,
    Withheld,
)
from eas_watcher.machine.counters import CONFIRM_AFTER, DOUBT_FOR, MOST_IN_DOUBT, MOST_REFUSALS, PROVISIONS
from eas_watcher.machine.memory import WIPES, Condition, Progress, WatchState, restart
from eas_watcher.machine.state import AcknowledgeWipe, Doubt, Ended, Move, Pause, Pausing, Record, Watch, Wiping
from eas_watcher.names import NO_SYNC_KEY
from eas_watcher.reasons import Reason
from eas_watcher.values import replace

IMMEDIATE: Final = 3  # remedies in a row without a wait between them
REDIRECTS: Final = 3  # in a row
REPEATED: Final = 4  # added to the starts from key 0 within an hour to get their backoff; the second waits 160 s
HOPELESS: Final = 6  # remedies in a row after which only one try an hour is left
RECHECK: Final = 3600.0  # seconds between tries while the server denies access
SELDOM: Final = 6 * 3600.0  # seconds; where an administrator must allow the device or remove another
DAILY: Final = 24 * 3600.0  # seconds; where an administrator must change the account itself
RECHECKS: Final = MappingProxyType(
    {Reason.KERBEROS_TICKET: CONFIRM_AFTER[-1]}  # the directory may be down, and a ticket costs little
    | dict.fromkeys((Reason.EAS_129, Reason.EAS_131, Reason.EAS_177), SELDOM)
    | dict.fromkeys((Reason.EAS_123, Reason.EAS_124, Reason.EAS_125, Reason.HTTP_456, Reason.HTTP_457), DAILY)
)
"""Reason of AccessDenied -> seconds between tries, where it is not RECHECK."""


def remedy(watch: Watch, error: EasError) -> Watch | Move:
    """Return what an error asks for: a watch that goes on at once, or a move that waits or ends."""
    match error:
        case Unauthorized():
            return _refused(watch, error)
        case Withheld(seconds=seconds):
            doubtful = watch.counters.refusals >= MOST_REFUSALS
            return pause(watch, error, Reason.HTTP_401_DOUBTFUL if doubtful else Reason.HTTP_401, seconds)
        case CredentialVoid(reason=reason):
            return end(watch, Condition(WatchState.CREDENTIAL_REFUSED, reason, detail=str(error)))
        case RemoteWipeRequested(account_only=account_only):
            return wipe(watch, account_only=account_only)
        case AccessDenied(reason=Reason.HTTP_404) if watch.redirected:
            return at_once(_return(watch), error, Reason.HTTP_404)
        case AccessDenied(reason=Reason.HTTP_403):
            return _forbidden(watch, error)
        case AccessDenied(reason=reason):
            return pause(watch, error, reason, RECHECKS.get(reason, RECHECK), shown=WatchState.BLOCKED)
        case Redirected():
            return _redirected(watch, error)
        case NotProvisioned() if watch.counters.provisions.times >= PROVISIONS:
            watch = replace(watch, provision_due=True, counters=watch.counters.provisions_used_up())
            return pause(watch, error, Reason.POLICY_LOOP, RECHECK)
        case NotProvisioned():
            return at_once(replace(watch, provision_due=True), error, Reason.NOT_PROVISIONED, at_last=RECHECK)
        case HierarchyChanged():
            return at_once(replace(watch, hierarchy_due=True), error, Reason.HIERARCHY_CHANGED)
        case VersionRefused():
            return at_once(_drop_version(watch), error, Reason.VERSION_REFUSED, at_last=RECHECK)
        case StateLost():
            return start_over(_forget_keys(watch), error, Reason.STATE_LOST)
        case ServerRenewed():
            return start_over(_forget_keys(_ask_options(watch)), error, Reason.SERVER_RENEWED)
        case RequestRefused() if watch.counters.remedies or watch.counters.restarts.times:
            return pause(watch, error, Reason.REQUEST_REFUSED, RECHECK)
        case RequestRefused():
            return start_over(_forget_keys(watch), error, Reason.REQUEST_REFUSED)
        case TooManyCollections(limit=limit):
            fewer = max(1, limit or min(watch.max_collections, len(watch.watched)) // 2)
            return at_once(replace(watch, max_collections=fewer), error, Reason.TOO_MANY_COLLECTIONS)
        case ServerBusy(again=True) if not watch.counters.remedies:
            return at_once(watch, error, Reason.SERVER_BUSY)
        case ServerBusy(suspect=True) if watch.counters.failures >= IMMEDIATE:
            return pause(_forget_hierarchy(watch), error, Reason.SERVER_BUSY)
        case ServerBusy(full=True):
            # The Pings that are too many end within minutes; a wait that grows with each failure would outlast them.
            return pause(watch, error, Reason.SERVER_BUSY, failures=min(watch.counters.failures + 1, IMMEDIATE))
        case ServerBusy(retry_after=seconds):
            return pause(watch, error, Reason.SERVER_BUSY, _named_wait(watch, seconds))
        case Unreachable(stale=True) if not watch.counters.remedies:
            # Some servers silently close kept connections [observed: SOGo 5.8, 2026-11]; the next request opens one.
            return at_once(watch.resync_all(), error, error.reason)
        case Unreachable():
            return pause(_return(watch) if watch.counters.failures >= IMMEDIATE else watch, error, error.reason)
        case ProtocolViolation():
            return pause(watch, error, Reason.PROTOCOL_VIOLATION)
        case _:
            return pause(watch, error, Reason.FAILED)


def may_provision(watch: Watch) -> bool:
    """Return True if a Provision may still be the remedy of a 403."""
    return watch.partnership.version is not None and not watch.provision_due and not watch.counters.remedies


def redirect_target(error: Redirected, hosts: Container[str], followed: int) -> str:
    """Return the URL of a redirect that may be followed after `followed` others in a row [MS-ASHTTP 3.1.5.2.2].

    Raises Redirected, with the reason, if the operator does not allow the host or there were too many redirects.
    """
    url = eas_location(error.location, hosts)
    if url is None:
        host = host_and_port(error.location) or "a URL that is not https or not sound"
        raise Redirected(error.location, f"the server sends the mailbox to {host}, which the settings do not allow")
    if followed >= REDIRECTS:
        raise Redirected(error.location, f"servers sent the mailbox on and on, at last to {host_and_port(url)}")
    return url


def at_once(watch: Watch, error: EasError, reason: Reason, at_last: float | None = None) -> Watch | Move:
    """Go on at once; after several remedies in a row, after a backoff; after many, after `at_last` seconds if given."""
    before = watch.counters.remedies
    watch = replace(watch, counters=watch.counters.remedied())
    if before >= IMMEDIATE:
        return pause(watch, error, reason, at_last if before >= HOPELESS else None)
    return replace(watch, counters=watch.counters.failed())


def start_over(watch: Watch, error: EasError, reason: Reason) -> Watch | Move:
    """Start from key 0: at once, or after a long backoff if that was done within the hour, in the end once an hour.

    A start costs the server much, and some servers block a device that repeats it [MS-ASHTTP 3.1.5.2.1].
    """
    watch = replace(watch, counters=watch.counters.restarted())
    restarts = watch.counters.restarts.times
    if restarts == 1:
        return at_once(watch, error, reason, at_last=RECHECK)
    watch = replace(watch, counters=watch.counters.remedied())
    return pause(watch, error, reason, RECHECK if restarts > HOPELESS else None, failures=REPEATED + restarts)


def pause(
    watch: Watch,
    error: EasError,
    reason: Reason,
    seconds: float | None = None,
    *,
    shown: WatchState = WatchState.WAITING,
    failures: int | None = None,
    doubt: Doubt | None = None,
) -> Move:
    """Record why the watch waits, and wait; `failures` replaces the counted failures for the backoff.

    A wait in `doubt` may end early; the phones hear of the doubt when it begins.
    """
    counters = watch.counters.failed()
    failures = failures or counters.failures
    counters = counters.waited(backoff.least(failures) if seconds is None else seconds)
    watch = replace(watch, counters=counters, shown=shown)
    condition = Condition(shown, reason, detail=str(error))
    tried = tuple(c for c in watch.watched if c.drain is None and c.tries and c.sync_key != NO_SYNC_KEY)
    progress = Progress(condition=condition, collections=tried, refusals=counters.refusals or None)
    if doubt is not None and doubt.begins:
        progress = replace(progress, attention=True, in_doubt=True)
    return Pausing(watch), [Pause(progress, failures, seconds, doubt=doubt)]


def wipe(watch: Watch, *, account_only: bool) -> Move:
    """Record that a wipe is under way, then acknowledge it; a relay that starts after a crash goes on with it.

    After the acknowledgement the server refuses the device. Without the record, a relay that starts then would keep
    what must be destroyed.
    """
    watch = replace(watch, shown=WatchState.WIPING)
    begun = Progress(condition=Condition(WatchState.WIPING, WIPES[account_only]))
    return Wiping(watch, account_only), [Record(begun), AcknowledgeWipe(account_only)]


def end(watch: Watch, condition: Condition) -> Move:
    """End the watch for good, with an `attention` push: it needs its user."""
    watch = replace(watch, shown=condition.state)
    return Ended(watch), [Record(Progress(condition=condition, refusals=watch.counters.refusals, attention=True))]


def _named_wait(watch: Watch, seconds: float | None) -> float | None:
    """Return the wait that the server named; None, the backoff, if it repeatedly named a shorter time."""
    if (
        seconds is not None
        and watch.counters.failures >= IMMEDIATE
        and seconds < backoff.least(watch.counters.failures + 1)
    ):
        return None
    return seconds


def _refused(watch: Watch, error: Unauthorized) -> Move:
    """Wait for one of two spaced confirmations; the third refusal is the user's fault, or the server's.

    Some servers answer 401 when only their backend is down [observed: SOGo 5.8, Z-Push 2.7.1, 2026-11].
    """
    left = watch.counters.doubt_left
    watch = replace(watch, counters=watch.counters.refused())
    refusals = watch.counters.refusals
    if refusals < MOST_REFUSALS:
        reason = Reason.HTTP_401_MANY if error.shared else Reason.HTTP_401
        return pause(watch, error, reason, CONFIRM_AFTER[refusals - 1])
    if error.others_accepted and not (error.shared and refusals < MOST_IN_DOUBT):
        return end(watch, Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, detail=str(error)))
    return _doubt(watch, error, left)


def _doubt(watch: Watch, error: Unauthorized, left: float) -> Move:
    """Wait for a sign of the server, or an hour, then a day; a try that a sign caused does not prolong the wait."""
    refusals, window = watch.counters.refusals, watch.policy.lockout_window
    seconds = left or DOUBT_FOR[min(refusals - MOST_REFUSALS, len(DOUBT_FOR) - 1)]
    meanwhile = "though it accepted others" if error.others_accepted else "while it refused everyone who was asked"
    doubtful = Unauthorized(f"{error}; it refused this credential {refusals} times, {meanwhile}")
    doubt = Doubt(window, error.others_accepted, begins=refusals == MOST_REFUSALS and not left)
    return pause(watch, doubtful, Reason.HTTP_401_DOUBTFUL, max(seconds, window), doubt=doubt)


def _redirected(watch: Watch, error: Redirected) -> Watch | Move:
    """Follow a redirect, or wait an hour at the configured URL."""
    try:
        url = redirect_target(error, watch.policy.hosts, watch.counters.redirects)
    except Redirected as stopped:
        return pause(_give_up_redirects(watch), stopped, Reason.REDIRECTED, RECHECK)
    # The new server may offer other versions, so OPTIONS comes first; its answer also records the URL.
    partnership = replace(watch.partnership, version=None, url=url)
    return replace(watch, partnership=partnership, counters=watch.counters.redirected())


def _give_up_redirects(watch: Watch) -> Watch:
    """Return to the configured URL and follow redirects from there again."""
    return _return(replace(watch, counters=watch.counters.returned()))


def _return(watch: Watch) -> Watch:
    """Return to the configured URL, if the mailbox was redirected."""
    if not watch.redirected:
        return watch
    return replace(watch, partnership=replace(watch.partnership, version=None, url=None))


def _forbidden(watch: Watch, error: AccessDenied) -> Watch | Move:
    """Provision once: with old versions a 403 may mean a policy or a wipe [MS-ASCMD 2.2.2]; then try hourly."""
    due = replace(watch, provision_due=True)
    if may_provision(watch):
        return at_once(due, error, Reason.HTTP_403)
    return pause(due, error, Reason.HTTP_403, RECHECK, shown=WatchState.BLOCKED)


def _drop_version(watch: Watch) -> Watch:
    """Choose the version again; another one, if the server refuses this one repeatedly."""
    version = watch.partnership.version
    refused = watch.refused_versions
    if version is not None and watch.counters.remedies:
        refused |= {version}
    return replace(_ask_options(watch), refused_versions=refused)


def _ask_options(watch: Watch) -> Watch:
    """Ask the server by OPTIONS what it offers."""
    return replace(watch, partnership=replace(watch.partnership, version=None))


def _forget_hierarchy(watch: Watch) -> Watch:
    """Read all folders again; the keys of the collections may still be valid."""
    partnership = replace(watch.partnership, hierarchy_key=NO_SYNC_KEY)
    return replace(watch, partnership=partnership, hierarchy_due=True)


def _forget_keys(watch: Watch) -> Watch:
    """Start every key from 0, but remember since when items are new."""
    return _forget_hierarchy(replace(watch, collections=tuple(restart(c) for c in watch.collections)))
