"""What a mail server's breaker counts: which failures concern the server, and the rules.

One mailbox's trouble does not make its server away: its store may be offline, its user throttled. A request that no
server took (a refused connection, TLS) does, and so do several mailboxes that fail within a short time while fewer are
answered. A mailbox that was let through since the server was last away may send freely: the rate is one of mailboxes,
not of requests.

A connection that carries many requests (HTTP/2) fails all of them at once. That is one failure, of the connection, and
not one for each mailbox; and a request that such a connection did not take was refused by a server that is there.
"""

from collections.abc import Hashable
from typing import Final

from eas_watcher import backoff
from eas_watcher.breaker import ByRate, Failure, Rules
from eas_watcher.errors import EasError, ServerBusy, Unreachable

DISTINCT: Final = 3  # mailboxes that must fail within WINDOW
WINDOW: Final = 30.0  # seconds
FIRST: Final = 2.0
"""Seconds until the first probe: what cut all connections (a firewall, a restart of a proxy) is often over at once, and
one request of one mailbox is no storm. The next ones follow after twice the time each."""
CEILING: Final = 60.0  # seconds between two probes: one request a minute hurts no server, and soon shows its return


def rules(rate: float) -> Rules:
    """Return the rules of a server to which `rate` mailboxes per second may start or return."""
    return Rules(
        first=FIRST,
        ceiling=CEILING,
        spread=backoff.SPREAD,
        sources=DISTINCT,
        window=WINDOW,
        in_a_row=False,
        probe_decides=True,
        returns=ByRate(rate),
    )


def concerns_server(error: EasError) -> bool:
    """Return whether a failure says something about the server, and not only about the mailbox that asked."""
    if error.elsewhere:
        return False
    if isinstance(error, Unreachable):
        return not error.stale
    return isinstance(error, ServerBusy) and error.shared


def read_failure(error: EasError) -> Failure:
    """Return what a failure that concerns the server says about it."""
    certain = isinstance(error, Unreachable) and not error.reached and not error.connection
    return Failure(str(error), certain, error.retry_after if isinstance(error, ServerBusy) else None)


def source_of(error: EasError, mailbox: Hashable) -> Hashable:
    """Return what failed: the connection that many requests shared, or the request of a mailbox."""
    shared = isinstance(error, Unreachable) and error.connection
    return ("connection", shared) if shared else mailbox
