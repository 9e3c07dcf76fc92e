"""The health of one mail server, by its admission and by what is known about its workers and the path to it."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeAlias

from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ServerAdmission
from relay.domain.clock import Clock
from relay.domain.counted import counted
from relay.domain.reasons import REASONS
from relay.ops.health import OK, Finding, Part, PartState

Used: TypeAlias = Callable[[], Mapping[str, tuple[int, int]]]
"""Returns the number of connections to a server, and of requests on them, by the version of HTTP."""

PROTOCOLS: Final = MappingProxyType({"http/1.1": "HTTP/1.1", "h2": "HTTP/2"})
BRIEF: Final = timedelta(minutes=1)
"""A server that is away for a shorter time may just be restarting."""
BACK: Final = "Nothing: they come by themselves; raise servers.{name}.return_rate if the server can take more at once."
FEW: Final = (
    "Give the mail server more workers, at least one for each mailbox and some for the users' own phones (SOGo: "
    'WOWorkersCount; PHP-FPM: pm.max_children), or set servers.{name}.mode = "poll".'
)
CUT: Final = (
    "Pushes are not late by it. To save requests, let firewalls, balancers and proxies on the way keep idle "
    "connections for 30 minutes."
)


def mail_server(
    name: str,
    admission: Callable[[], ServerAdmission | None],
    clock: Clock,
    used: Used | None = None,
    maintained: Callable[[str], datetime | None] = lambda _: None,
) -> Part:
    """Return the part of a configured server; `admission` returns None until the first request to the server.

    `used` returns the connections to it, `maintained` since when it is in maintenance.
    """

    def check() -> Finding:
        since = maintained(name)
        if since is not None:
            text = f"is in maintenance since {since:%Y-%m-%d %H:%M} UTC: its mailboxes are not watched"
            return Finding(PartState.DEGRADED, text, f"When it is over: `relay maintenance {name} off`.")
        known = admission()
        found = OK if known is None else _judge(name, known, clock)
        return Finding(PartState.OK, _describe(used())) if found == OK and used is not None else found

    return Part(f"server {name}", check)


def _judge(name: str, admission: ServerAdmission, clock: Clock) -> Finding:
    if admission.state == "away":
        state = PartState.FAILED if clock() - admission.since > BRIEF else PartState.DEGRADED
        away = "is away" if admission.reason is Reason.UNREACHABLE else "cannot be asked through its proxy"
        text = f"{away} ({admission.detail}): one mailbox probes, {admission.waiting} wait"
        return Finding(state, text, REASONS[admission.reason].remedy)
    if admission.refusals.suspected:
        refused = f"{admission.refusals.refused_now} of {admission.watched} mailboxes"
        told = f"{len(admission.doubtful)} users were told that maybe the server is at fault"
        text = f"refuses the credentials of {refused} at once: {told if admission.doubtful else 'no user was told'}"
        return Finding(PartState.FAILED, text, REASONS[Reason.HTTP_401_MANY].remedy)
    doubtful, wait = len(admission.doubtful), admission.doubtful.expected_wait
    if doubtful and wait is not None:
        others = admission.doubtful.others_accepted
        meanwhile = "though it accepted others" if others else "while it refused everyone who was asked"
        next_at = clock() + timedelta(seconds=wait)
        text = (
            f"refused the credentials of {doubtful} of {admission.watched} mailboxes three times or more, {meanwhile}: "
            f"asked again at {next_at:%Y-%m-%d %H:%M} UTC, or when it accepts others or changes"
        )
        state = PartState.FAILED if doubtful * 2 >= admission.watched else PartState.DEGRADED
        return Finding(state, text, REASONS[Reason.HTTP_401_DOUBTFUL].remedy)
    few = admission.capacity.describe(name)
    return Finding(PartState.DEGRADED, few, FEW.format(name=name)) if few else _judge_serving(name, admission)


def _judge_serving(name: str, admission: ServerAdmission) -> Finding:
    waiting = f"{admission.waiting_mailboxes} of {admission.watched}"
    if admission.state == "returning":
        text = f"is back: {waiting} mailboxes still wait for their turn"
        return Finding(PartState.DEGRADED, text, BACK.format(name=name))
    if admission.state == "starting" and admission.waiting_mailboxes:
        text = f"takes its mailboxes one after the other: {waiting} still wait for their turn"
        return Finding(PartState.OK, text, BACK.format(name=name))
    cut = admission.path.describe(name)
    return Finding(PartState.OK, cut, CUT) if cut else OK


def _describe(used: Mapping[str, tuple[int, int]]) -> str:
    """Return how the relay speaks to a server; empty without a connection."""
    spoken = [
        f"{counted(requests, 'request')} on {counted(connections, 'connection')} over {PROTOCOLS[protocol]}"
        for protocol, (connections, requests) in used.items()
        if connections
    ]
    return " and ".join(spoken)
