"""What the relay knows of each Firebase project: whether it takes pushes now, how many, and how its pushes ended.

Quotas and access tokens are those of one project. With several projects, a quota that is used up or a token that Google
does not give delays the apps of its own project only. Every moment is `loop.time()` in seconds.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from eas_watcher.breaker import Failure
from relay.domain.model import DuePush, Environment, Lane
from relay.domain.outcome import Delivered, Outcome, OutcomeKind, Reach, RetryLater, TokenGone
from relay.domain.ports.outbox import Capacity
from relay.push.breaker import LaneBreaker, environment_rules
from relay.push.fcm.config import FcmAccount

PROBE_WAIT: Final = 5.0  # seconds a push waits while another one probes its project
BUSY_WAIT: Final = 0.1  # seconds a push waits while its project has no free slot; `capacities` prevents most of these


@dataclass(slots=True)
class ProjectState:
    """One project."""

    apps: tuple[str, ...]
    breaker: LaneBreaker
    in_flight: int = 0
    """Pushes that were sent and have not ended."""
    remedy: str = ""
    """What an operator can do about the newest failure."""
    outcomes: Counter[OutcomeKind] = field(default_factory=Counter)
    """How the pushes ended that were sent."""

    @property
    def away(self) -> bool:
        """True if the project takes no push now."""
        return self.breaker.away


class Projects:
    """All projects, by the tables of their accounts in relay.toml."""

    def __init__(self, accounts: Sequence[FcmAccount], in_flight: int, random: Random) -> None:
        """Give each project half of `in_flight` pushes at once at most; one that is alone gets all."""
        self.several: Final = len(accounts) > 1
        """True if there is more than one project. A project that is alone never rests: what it answers is said of FCM
        as a whole, and the breaker of the provider waits for it."""
        self._slots = max(1, in_flight // 2) if self.several else in_flight
        rules = environment_rules(self._slots)
        self._states = {
            account.table: ProjectState(tuple(sorted(account.apps)), LaneBreaker(rules, random)) for account in accounts
        }

    @property
    def states(self) -> Mapping[str, ProjectState]:
        """All projects, by table."""
        return self._states

    def capacities(self, now: float) -> Iterator[Capacity]:
        """List the apps whose project takes no push now, one that probes it, or not many more."""
        if not self.several:
            return
        for state in self._states.values():
            busy = state.in_flight * 2 >= self._slots
            for app in state.apps:
                lane = Lane(Environment.PRODUCTION, app)
                limits = list(state.breaker.capacities(lane, state.in_flight, now))
                if not limits and busy:
                    limits = [Capacity(lane, max(0, self._slots - state.in_flight))]
                yield from limits

    def admit(self, table: str, push: DuePush, now: float) -> RetryLater | None:
        """Return the outcome of a push that must wait; None: send it now, and call `ended` with its outcome."""
        state = self._states[table]
        retried = push.attempts > 0
        if self.several:
            if state.breaker.capacity(state.in_flight, now, retried=retried) == 0:
                due = state.breaker.due(retried=retried)
                wait = PROBE_WAIT if due is None else max(BUSY_WAIT, due - now)
                reason = f"fcm-project-rests: {state.breaker.detail}" if state.away else "fcm-project-busy"
                return RetryLater(reason, wait, state.remedy, reach=Reach.HERE)
            if state.in_flight >= self._slots:
                return RetryLater("fcm-project-busy", BUSY_WAIT, reach=Reach.HERE)
            state.breaker.began(push, now, retried=retried)
        state.in_flight += 1
        return None

    def ended(self, table: str, push: DuePush, outcome: Outcome | None, now: float, *, of_project: bool) -> None:
        """Note how a push ended that `admit` let through; None: it was cancelled, or its sender broke.

        `of_project`: what made it fail concerns all apps of its project, and no other project.
        """
        state = self._states[table]
        state.in_flight -= 1
        if outcome is not None:
            state.outcomes[OutcomeKind.of(outcome)] += 1
        if not self.several:
            return
        if isinstance(outcome, RetryLater) and of_project:
            answered = outcome.reach >= Reach.ANSWERED
            certain = outcome.after is not None and not answered
            state.remedy = outcome.remedy
            failure = Failure(outcome.reason, certain=certain, retry_after=outcome.after)
            # The phone may be the reason of an answer to its push, and never of a token that Google does not give.
            state.breaker.failed(push, push.registration_id if answered else None, failure, now)
        elif isinstance(outcome, Delivered | TokenGone) or (outcome is not None and outcome.reach >= Reach.ANSWERED):
            state.breaker.answered(push, now)
        else:
            state.breaker.undecided(push, now)

    def hurry(self, table: str, now: float) -> None:
        """Let a project be tried at once: its service account has changed."""
        self._states[table].breaker.hurry(now)
