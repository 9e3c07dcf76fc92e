"""Own the remedies: what each failure asks of a watch.

Some remedies are done at once (provision, read the hierarchy, start from key 0), but only `IMMEDIATE` times in a row:
then each waits its backoff first, so that no server can drive a watch into a busy loop. Those that cost the server much
or that have no hope left wait an hour each at last, for servers block clients that repeat them.
"""

from collections.abc import Container
from dataclasses import replace
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
)
from eas_watcher.machine.counters import CONFIRM_AFTER, MOST_REFUSALS, PROVISIONS
from eas_watcher.machine.memory import WIPES, Condition, Progress, WatchState, restart
from eas_watcher.machine.state import AcknowledgeWipe, Ended, Move, Pause, Pausing, Record, Watch, Wiping
from eas_watcher.names import NO_SYNC_KEY
from eas_watcher.reasons import Reason

IMMEDIATE: Final = 3  # remedies in a row without a wait between them
REDIRECTS: Final = 3  # in a row
REPEATED: Final = 4  # failures that a second start from key 0 within the hour stands for with the first: 160 s
HOPELESS: Final = 6  # remedies in a row after which only an hourly try is left
RECHECK: Final = 3600.0  # seconds between tries while the server denies access
SELDOM: Final = 6 * 3600.0  # seconds; where an administrator must allow the device or remove others
DAILY: Final = 24 * 3600.0  # seconds; where somebody must see to the account itself
RECHECKS: Final = MappingProxyType(
    {Reason.KERBEROS_TICKET: CONFIRM_AFTER[-1]}  # its directory may be down, and a ticket is soon shown
    | dict.fromkeys((Reason.EAS_129, Reason.EAS_131, Reason.EAS_177), SELDOM)
    | dict.fromkeys((Reason.EAS_123, Reason.EAS_124, Reason.EAS_125, Reason.HTTP_456, Reason.HTTP_457), DAILY)
)
"""Reason of AccessDenied -> seconds between tries, where it is not RECHECK."""


def remedy(watch: Watch, error: EasError) -> Watch | Move:
    """Tell what an error asks for: a watch to go on with at once, or a move that waits or ends."""
    match error:
        case Unauthorized():
            return _refused(watch, error)
        case CredentialVoid(reason=reason):
            return end(watch, Condition(WatchState.CREDENTIAL_REFUSED, reason, detail=str(error)))
        case RemoteWipeRequested(account_only=account_only):
            return wipe(watch, account_only=account_only)
        case AccessDenied(reason=Reason.HTTP_404) if watch.strayed:
            return at_once(_go_home(watch), error, Reason.HTTP_404)
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
            return at_once(_distrust_version(watch), error, Reason.VERSION_REFUSED, at_last=RECHECK)
        case StateLost():
            return start_over(_forget_keys(watch), error, Reason.STATE_LOST)
        case ServerRenewed():
            return start_over(_forget_keys(_ask_again(watch)), error, Reason.SERVER_RENEWED)
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
        case ServerBusy(retry_after=seconds):
            return pause(watch, error, Reason.SERVER_BUSY, _as_told(watch, seconds))
        case Unreachable(stale=True) if not watch.counters.remedies:
            # Some servers close kept connections without a word [observed: SOGo 5.8, 2026-11]; the next one is fresh.
            return at_once(watch.in_doubt(), error, Reason.UNREACHABLE)
        case Unreachable():
            return pause(_go_home(watch) if watch.counters.failures >= IMMEDIATE else watch, error, Reason.UNREACHABLE)
        case ProtocolViolation():
            return pause(watch, error, Reason.PROTOCOL_VIOLATION)
        case _:
            return pause(watch, error, Reason.FAILED)


def may_provision(watch: Watch) -> bool:
    """Tell whether to provision may still be the remedy of a 403."""
    return watch.partnership.version is not None and not watch.provision_due and not watch.counters.remedies


def at_once(watch: Watch, error: EasError, reason: Reason, at_last: float | None = None) -> Watch | Move:
    """Go on at once, unless remedies have not helped so far: then after a backoff, or `at_last` after those seconds."""
    before = watch.counters.remedies
    watch = replace(watch, counters=watch.counters.remedied())
    if before >= IMMEDIATE:
        return pause(watch, error, reason, at_last if before >= HOPELESS else None)
    return replace(watch, counters=watch.counters.failed())


def start_over(watch: Watch, error: EasError, reason: Reason) -> Watch | Move:
    """Start from key 0, at once unless that was done within the hour: then after a long backoff, hourly at last.

    It costs the server much, and some block a device that does so again and again [MS-ASHTTP 3.1.5.2.1].
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
) -> Move:
    """Show why the watch waits, and wait; `failures` sets the backoff apart from the failures counted so far."""
    counters = watch.counters.failed()
    failures = failures or counters.failures
    counters = counters.waited(backoff.least(failures) if seconds is None else seconds)
    watch = replace(watch, counters=counters, shown=shown)
    condition = Condition(shown, reason, detail=str(error))
    tried = tuple(c for c in watch.watched if c.drain is None and c.tries and c.sync_key != NO_SYNC_KEY)
    progress = Progress(condition=condition, collections=tried, refusals=counters.refusals or None)
    return Pausing(watch), [Pause(progress, failures, seconds)]


def wipe(watch: Watch, *, account_only: bool) -> Move:
    """Acknowledge a wipe; that it is under way is recorded first, so that whoever starts after a crash goes on with it.

    After the acknowledgement the server refuses the device: a start that knew nothing would keep all that is to go.
    """
    watch = replace(watch, shown=WatchState.WIPING)
    begun = Progress(condition=Condition(WatchState.WIPING, WIPES[account_only]))
    return Wiping(watch, account_only), [Record(begun), AcknowledgeWipe(account_only)]


def end(watch: Watch, condition: Condition) -> Move:
    """Stop for good and tell the phones that the watch needs their user."""
    watch = replace(watch, shown=condition.state)
    return Ended(watch), [Record(Progress(condition=condition, refusals=watch.counters.refusals, attention=True))]


def _as_told(watch: Watch, seconds: float | None) -> float | None:
    """Wait as told, but a server that has named a short time again and again gets the longer backoff."""
    if (
        seconds is not None
        and watch.counters.failures >= IMMEDIATE
        and seconds < backoff.least(watch.counters.failures + 1)
    ):
        return None
    return seconds


def _refused(watch: Watch, error: Unauthorized) -> Move:
    """Stop everything; two spaced confirmations, for some servers say 401 when only their backend is down."""
    watch = replace(watch, counters=watch.counters.refused())
    refusals = watch.counters.refusals
    if refusals >= MOST_REFUSALS:
        return end(watch, Condition(WatchState.CREDENTIAL_REFUSED, Reason.HTTP_401, detail=str(error)))
    reason = Reason.HTTP_401_MANY if error.shared else Reason.HTTP_401
    return pause(watch, error, reason, CONFIRM_AFTER[refusals - 1])


def redirect_target(error: Redirected, hosts: Container[str], followed: int) -> str:
    """Return the URL where a mailbox goes on after `followed` redirects in a row [MS-ASHTTP 3.1.5.2.2].

    Raises Redirected, which says why, unless the URL is at a host that the operator named and not one too many.
    """
    url = eas_location(error.location, hosts)
    if url is None:
        host = host_and_port(error.location) or "a URL that is not https or not sound"
        raise Redirected(error.location, f"the server sends the mailbox to {host}, which the settings do not allow")
    if followed >= REDIRECTS:
        raise Redirected(error.location, f"servers sent the mailbox on and on, at last to {host_and_port(url)}")
    return url


def _redirected(watch: Watch, error: Redirected) -> Watch | Move:
    """Follow a redirect, or wait an hour at the configured URL."""
    try:
        url = redirect_target(error, watch.policy.hosts, watch.counters.redirects)
    except Redirected as stopped:
        return pause(_give_up_redirects(watch), stopped, Reason.REDIRECTED, RECHECK)
    # What the new server offers may differ; the answer to OPTIONS has the URL kept too.
    partnership = replace(watch.partnership, version=None, url=url)
    return replace(watch, partnership=partnership, counters=watch.counters.redirected())


def _give_up_redirects(watch: Watch) -> Watch:
    """Return to the configured URL and follow redirects from there again."""
    return _go_home(replace(watch, counters=watch.counters.returned()))


def _go_home(watch: Watch) -> Watch:
    """Return to the configured URL, if the mailbox was sent elsewhere."""
    if not watch.strayed:
        return watch
    return replace(watch, partnership=replace(watch.partnership, version=None, url=None))


def _forbidden(watch: Watch, error: AccessDenied) -> Watch | Move:
    """Provision once: with old versions a 403 may stand for a policy or a wipe [MS-ASCMD 2.2.2]; else re-check."""
    due = replace(watch, provision_due=True)
    if may_provision(watch):
        return at_once(due, error, Reason.HTTP_403)
    return pause(due, error, Reason.HTTP_403, RECHECK, shown=WatchState.BLOCKED)


def _distrust_version(watch: Watch) -> Watch:
    """Choose the version again; another one, if the server refuses this one not just once."""
    version = watch.partnership.version
    distrusted = watch.distrusted
    if version is not None and watch.counters.remedies:
        distrusted |= {version}
    return replace(_ask_again(watch), distrusted=distrusted)


def _ask_again(watch: Watch) -> Watch:
    """Let OPTIONS tell anew what the server offers."""
    return replace(watch, partnership=replace(watch.partnership, version=None))


def _forget_hierarchy(watch: Watch) -> Watch:
    """Read all folders anew; the keys of the collections may be good."""
    partnership = replace(watch.partnership, hierarchy_key=NO_SYNC_KEY)
    return replace(watch, partnership=partnership, hierarchy_due=True)


def _forget_keys(watch: Watch) -> Watch:
    """Start from nothing with this server, remembering from when on items are new."""
    return _forget_hierarchy(replace(watch, collections=tuple(restart(c) for c in watch.collections)))
