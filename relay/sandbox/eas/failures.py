"""The scripted failures of the simulated EAS server: which failure, for which command, how many times."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class AnswerHttp:
    """Answer with the given HTTP status, headers and body, as a gateway in front of the server does.

    The server does not check the password. `seconds` is the time until the answer.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    seconds: float = 0.0
    kind: Literal["http"] = "http"


@dataclass(frozen=True, slots=True)
class AnswerStatus:
    """Answer with a Status in the document of the command, without executing the command.

    `seconds` is the time until the answer, `heartbeat` the HeartbeatInterval in the answer to a Ping.
    """

    status: int
    seconds: float = 0.0
    heartbeat: int | None = None
    kind: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connection `seconds` after the request arrived, without executing the command.

    If `applied`, execute the command and cut the connection instead of answering: the answer is lost.
    """

    applied: bool = False
    seconds: float = 0.0
    kind: Literal["cut"] = "cut"


@dataclass(frozen=True, slots=True)
class Delay:
    """Execute the command `seconds` after the request arrived."""

    seconds: float
    kind: Literal["delay"] = "delay"


@dataclass(frozen=True, slots=True)
class Stall:
    """Never answer, and keep the connection open, as if the server had vanished from the network."""

    kind: Literal["stall"] = "stall"


@dataclass(frozen=True, slots=True)
class Garble:
    """Execute the command, and send the first half of its answer as if it were complete."""

    kind: Literal["garble"] = "garble"


@dataclass(frozen=True, slots=True)
class Crash:
    """Fail while writing the answer: HTTP 500, and a cut document with an invalid key.

    [observed: Z-Push 2.7.1, 2026-11]
    """

    kind: Literal["crash"] = "crash"


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the stream of the request over HTTP/2 `seconds` after it arrived; over HTTP/1.1 cut its connection.

    `error` is the error code: 13 asks for HTTP/1.1, 7 says that the request was not processed [RFC 9113 7].
    """

    error: int = 2
    seconds: float = 0.0
    kind: Literal["reset"] = "reset"


Failure: TypeAlias = AnswerHttp | AnswerStatus | Cut | Delay | Stall | Garble | Crash | Reset


@dataclass(frozen=True, slots=True)
class FailurePlan:
    """A failure, the command that it is for, and how many requests fail."""

    failure: Failure
    command: str | None = None
    """A command, or OPTIONS; None: any."""
    times: int = 1


class FailureScript:
    """The plans of all users, in the order they were added; the first one that matches a request is used."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: list[tuple[str | None, FailurePlan]] = []

    def add(self, user: str | None, plan: FailurePlan) -> None:
        """Add a plan for one user, or for all users if `user` is None."""
        self._plans.append((user, plan))

    def clear(self) -> None:
        """Forget all plans."""
        self._plans.clear()

    def take(self, user: str, command: str) -> Failure | None:
        """Return the failure of a request and count it; None: no failure."""
        for position, (planned_user, plan) in enumerate(self._plans):
            if planned_user in {None, user} and plan.command in {None, command}:
                if plan.times > 1:
                    self._plans[position] = planned_user, replace(plan, times=plan.times - 1)
                else:
                    del self._plans[position]
                return plan.failure
        return None
