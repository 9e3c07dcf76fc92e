"""Own what a mail server is judged by: the door that its mailboxes pass, and the path that leads to it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ServerAdmission
from relay.domain.clock import Clock
from relay.domain.reasons import REASONS
from relay.ops.health import OK, Finding, Part, PartState

BRIEF: Final = timedelta(minutes=1)
"""A server that is away no longer may just be starting again."""
BACK: Final = "Nothing: they come by themselves; raise servers.{name}.return_rate if the server can take more at once."
CUT: Final = (
    "Pushes are not late by it. To save requests, let firewalls, balancers and proxies on the way keep idle "
    "connections for 30 minutes."
)


def mail_server(name: str, door: Callable[[], ServerAdmission | None], clock: Clock) -> Part:
    """Judge a configured server; `door` gives the door to it, None while nothing was asked of it."""

    def check() -> Finding:
        known = door()
        return OK if known is None else _judge(name, known, clock)

    return Part(f"server {name}", check)


def _judge(name: str, door: ServerAdmission, clock: Clock) -> Finding:
    if door.state == "away":
        state = PartState.FAILED if clock() - door.since > BRIEF else PartState.DEGRADED
        text = f"is away ({door.detail}): one mailbox probes, {door.waiting} wait"
        return Finding(state, text, REASONS[Reason.UNREACHABLE].remedy)
    if door.refusals.suspected:
        text = f"refuses the credentials of {len(door.refusals)} of {door.watched} mailboxes at once: no user was told"
        return Finding(PartState.FAILED, text, REASONS[Reason.HTTP_401_MANY].remedy)
    if door.state == "returning":
        text = f"is back: {door.waiting} of {door.watched} mailboxes still wait for their turn"
        return Finding(PartState.DEGRADED, text, BACK.format(name=name))
    if door.state == "starting" and door.waiting:
        text = f"takes its mailboxes one after the other: {door.waiting} of {door.watched} still wait for their turn"
        return Finding(PartState.OK, text, BACK.format(name=name))
    cut = door.path.describe(name)
    return Finding(PartState.OK, cut, CUT) if cut else OK
