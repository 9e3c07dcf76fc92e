"""Own the failure scripts of the simulated EAS server: what goes wrong, for which command, how many times."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class AnswerHttp:
    """Answer with an HTTP status, headers and body of the owner's choice, as a gateway may do before the server.

    Not even the password is looked at. `seconds` is how long the answer takes.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    seconds: float = 0.0
    kind: Literal["http"] = "http"


@dataclass(frozen=True, slots=True)
class AnswerStatus:
    """Answer with a Status in the command's document; the command is not looked at.

    `seconds` is how long the answer takes, `heartbeat` the HeartbeatInterval that a Ping's answer carries with it.
    """

    status: int
    seconds: float = 0.0
    heartbeat: int | None = None
    kind: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connection, `seconds` after the request came, without looking at the command.

    With `applied` the command is carried out, and the connection is cut when its answer is due: the answer is lost.
    """

    applied: bool = False
    seconds: float = 0.0
    kind: Literal["cut"] = "cut"


@dataclass(frozen=True, slots=True)
class Delay:
    """Carry the command out `seconds` later than it came."""

    seconds: float
    kind: Literal["delay"] = "delay"


@dataclass(frozen=True, slots=True)
class Stall:
    """Never answer, and keep the connection open, as a server does that was lost without a word."""

    kind: Literal["stall"] = "stall"


@dataclass(frozen=True, slots=True)
class Garble:
    """Carry the command out and send the first half of its answer as if it were all."""

    kind: Literal["garble"] = "garble"


@dataclass(frozen=True, slots=True)
class Crash:
    """Break down while the answer is written: HTTP 500, and half a document with a key that is not valid.

    [observed: Z-Push 2.7.1, 2026-11]
    """

    kind: Literal["crash"] = "crash"


Failure: TypeAlias = AnswerHttp | AnswerStatus | Cut | Delay | Stall | Garble | Crash


@dataclass(frozen=True, slots=True)
class FailurePlan:
    """Hold a failure, and for which and how many requests it is meant."""

    failure: Failure
    command: str | None = None
    """A command, or OPTIONS; None: any."""
    times: int = 1


class FailureScript:
    """Hold the plans of all mailboxes in the order they were made; the first that fits is used."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: list[tuple[str | None, FailurePlan]] = []

    def add(self, user: str | None, plan: FailurePlan) -> None:
        """Add a plan for one user, or for everybody."""
        self._plans.append((user, plan))

    def clear(self) -> None:
        """Forget all plans."""
        self._plans.clear()

    def take(self, user: str, command: str) -> Failure | None:
        """Return what goes wrong with a request, and count it; None: nothing."""
        for position, (whose, plan) in enumerate(self._plans):
            if whose in {None, user} and plan.command in {None, command}:
                if plan.times > 1:
                    self._plans[position] = whose, replace(plan, times=plan.times - 1)
                else:
                    del self._plans[position]
                return plan.failure
        return None
