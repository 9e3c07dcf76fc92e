"""Own what each part of the process is judged by: thresholds, reasons and remedies."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.clock import Clock
from relay.domain.reasons import write_reason
from relay.ops.counts import CountsCache
from relay.ops.health import OK, Finding, Part, PartState
from relay.ops.lag import LoopLag
from relay.push.key_files import KeyFile
from relay.security.certificates import read_expiry

DATABASE_FAILED: Final = (
    "The database does not answer: check that it runs, its disk has room, and database.url is right."
)
STALE: Final = timedelta(seconds=60)
"""A database that last answered so long ago has failed; before that, it may be a restart."""
SOME: Final = 0.1  # of all mailboxes; fewer are the trouble of single users
MOST: Final = 0.5  # of all mailboxes; more are the server's trouble
RENEWAL: Final = timedelta(days=14)  # before its end that a certificate should be renewed
SLOW: Final = 0.25  # seconds a timer may be late before Pings and pushes suffer
STALLED: Final = 2.0  # seconds

ABSENT_REASONS: Final = {
    "unreachable": "Check that this host reaches the mail server: name, port 443, firewall, and its certificate.",
    "server-busy": "The mail server asks to wait: look at its load and its throttling policy.",
    "http-401-many": "The mail server refuses many credentials at once: look at its directory and its mailbox store.",
    "protocol-violation": "Something else answers in the mail server's place: check servers.NAME.url and proxies.",
    "redirected": "The mail server sends mailboxes elsewhere: add that server as another [servers.NAME].",
}
OWN_REASONS: Final = {
    "server-unknown": "relay.toml no longer has the [servers.NAME] of these mailboxes: put it back under its old name.",
    "host-not-allowed": "[autodiscover] does not list the host of these mailboxes: list it, or register them anew.",
    "seal-broken": "The private sealing key is not the one that credentials were sealed to: restore it from a backup.",
    "credential-kind": "servers.NAME.credentials does not list the kind of these credentials any more: put it back.",
}
"""For these the relay itself does not watch a mailbox."""
LOGIN_REASONS: Final = {
    "oauth-client": "The token endpoint refuses the relay: check oauth_client_id, its secret and oauth_scope.",
    "oauth-audience": "The token endpoint gives tokens for another service: check oauth_scope and oauth_audience.",
    "kerberos-keytab": "The KDC does not take the relay's own key: export the keytab of kerberos_principal anew.",
    "kerberos-clock": "The clock of the relay's host differs from the KDC's by more than five minutes: set it.",
    "kerberos-target": "No account has the mail server's service name: add it there, or set kerberos_target.",
    "kerberos-delegation": "The KDC lets the relay not act for users: allow it as docs/authentication.md says.",
    "kerberos-refused": "The KDC gives no ticket: the detail, and the KDC's log, say why.",
    "kerberos-not-offered": "The mail server offers no Negotiate: enable Windows authentication on its path.",
    "kerberos-ticket": "The mail server refuses tickets: only one account may have its service name (setspn -X).",
}
"""For these the login fails though nothing is wrong with the user's credential."""
_NOT_WATCHED: Final = (WatchState.WIPING, WatchState.WIPED, WatchState.VERIFYING)
BLOCKED_REMEDY: Final = "The mail server blocks the relay's devices: allow DeviceType PushRelay in its access rules."


def database(counts: CountsCache, clock: Clock) -> Part:
    """Judge the database by its last answers."""

    def check() -> Finding:
        newest = counts.newest
        if counts.reachable:
            return OK
        late = newest is None or clock() - newest.read_at > STALE
        return Finding(PartState.FAILED if late else PartState.DEGRADED, "does not answer", DATABASE_FAILED)

    return Part("database", check, essential=True)


def mailboxes(levels: Callable[[], Mapping[tuple[WatchState, Reason | None], int] | None], server: str = "") -> Part:
    """Judge a mail server, or all of them, by the share of mailboxes that it keeps from being watched.

    `levels` counts by state and reason; None: not known so far.
    """

    def check() -> Finding:
        known = levels()
        if not known:
            return OK
        ill = {key: n for key, n in known.items() if key[0] is WatchState.BLOCKED or _absent(*key)}
        total = sum(n for key, n in known.items() if key in ill or key[0] not in _NOT_WATCHED)
        share = sum(ill.values()) / total if total else 0.0
        if share < SOME:
            return OK
        state, reason = max(ill, key=lambda key: ill[key])
        remedy = {**ABSENT_REASONS, **OWN_REASONS, **LOGIN_REASONS}.get(reason or "", BLOCKED_REMEDY)
        text = f"{share:.0%} of {total} mailboxes are not watched, most: {state.value} {write_reason(reason)}".rstrip()
        return Finding(PartState.FAILED if share >= MOST else PartState.DEGRADED, text, remedy)

    return Part(f"server {server}" if server else "mail servers", check)


def leases(leased: Callable[[], bool]) -> Part:
    """Judge whether this process may watch anything now."""

    def check() -> Finding:
        if leased():
            return OK
        remedy = (
            "It renews them as soon as the database takes writes: check that its disk has room, and the clocks of all "
            "hosts if it does; the log line `leases not renewed` has its answer."
        )
        return Finding(PartState.FAILED, "holds no lease, so it watches nothing", remedy)

    return Part("leases", check, essential=True)


def certificate(name: str, file: Path, clock: Clock) -> Part:
    """Judge a certificate by the time it has left; `name` is its key in relay.toml."""

    def check() -> Finding:
        try:
            left = read_expiry(file) - clock()
        except (OSError, ValueError):
            return Finding(PartState.DEGRADED, "cannot be read any more", f"Put the file of {name} back.")
        if left > RENEWAL:
            return OK
        restart = " and restart the relay" if name.startswith("api.") else "; the new file is taken within seconds"
        remedy = f"Renew the certificate of {name}{restart}."
        if left <= timedelta():
            return Finding(PartState.FAILED, "has expired", remedy)
        return Finding(PartState.DEGRADED, f"expires in {left.days} days", remedy)

    return Part(f"certificate {name}", check)


def key_file(file: KeyFile[Any]) -> Part:
    """Judge a file that is watched for changes: whether what it holds now is in use."""

    def check() -> Finding:
        if not file.fault:
            return OK
        reason = f"{file.path} {file.fault}; what it held before stays in use until the relay restarts"
        remedy = "Put a good file in its place (mode 0600); it is taken within seconds. `relay check` judges it, too."
        return Finding(PartState.DEGRADED, reason, remedy)

    return Part(f"file {file.setting}", check)


def loop(lag: LoopLag) -> Part:
    """Judge the event loop by how late its timers fire."""

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


def _absent(state: WatchState, reason: Reason | None) -> bool:
    if state is WatchState.VERIFYING:
        return reason in LOGIN_REASONS
    return state is WatchState.WAITING and reason in ABSENT_REASONS
