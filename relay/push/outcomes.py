"""What an outcome means for the breakers of its provider, for the counters, and for its mark: the settlement."""

import logging
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Final

from eas_watcher.breaker import Failure
from relay.domain.clock import Clock
from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, OutcomeKind, PushEnd, Reach, Refused, RetryLater, Shadowed, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.push import backoff
from relay.push.breaker import OWN, ProviderBreakers
from relay.push.stats import ChannelFault, Outage, PushStats

log = logging.getLogger(__name__)

TRIES: Final = 5
"""How often a push that breaks its sender is tried before its mark is parked."""
PARKED: Final = 3600.0
"""Seconds until a parked mark is tried again; an upgrade may mend it."""
OWN_FAULT: Final = (
    "the provider takes pushes to other phones and none to this one: let the app register again if it lasts"
)
"""The remedy for a phone whose pushes alone fail."""
BROKEN: Final = RetryLater("internal-error")
"""The outcome of a push whose sender raises."""


class OutcomeHandler:
    """Handles the outcomes of one platform."""

    def __init__(
        self,
        platform: Platform,
        breakers: ProviderBreakers,
        stats: PushStats,
        clock: Clock,
        random: Random,
        time: Callable[[], float],
    ) -> None:
        """Record outcomes in these breakers and statistics; `time` is `loop.time`."""
        self._platform = platform
        self._breakers = breakers
        self._stats = stats
        self._clock = clock
        self._random = random
        self._time = time

    def handle(self, push: DuePush, outcome: PushEnd) -> Settlement:
        """Note what an outcome shows of its channel and its environment; return how its mark is settled."""
        if isinstance(outcome, Shadowed):
            self._stats.shadowed += 1
            self._note_reach(push, Reach.HERE)
            return Settlement(push, outcome)
        self._stats.channels.add((push.app, push.environment))
        if not (isinstance(outcome, RetryLater) and outcome.reach is Reach.HERE):
            self._stats.outcomes[OutcomeKind.of(outcome)] += 1
        match outcome:
            case Delivered() | TokenGone():
                self._environment_serves(push)
                self._channel_works(push)
                if isinstance(outcome, Delivered):
                    self._stats.lowered += outcome.lowered
                else:
                    fields = {"registration": push.registration_id, "reason": outcome.reason}
                    log.info("device token gone", extra=fields)
                return Settlement(push, outcome)
            case RetryLater(provider=True):
                return self._environment_failed(push, outcome)
            case RetryLater(reach=reach):
                self._note_reach(push, reach)
                return self._later(push, outcome)
            case Refused(channel=True, reach=reach):
                self._note_environment(push, reach)
                self._channel_faulty(push, outcome)
                return Settlement(push, outcome, self._clock(), counted=False)
            case Refused(reach=reach):
                self._note_reach(push, reach)
                return self._refused(push, outcome)

    def _refused(self, push: DuePush, outcome: Refused) -> Settlement:
        fields = {"registration": push.registration_id, "reason": outcome.reason, "remedy": outcome.remedy}
        log.warning("push refused", extra=fields)
        return self._settle_in(push, outcome, backoff.recheck(1, self._random, passing=outcome.passing))

    def _settle_in(self, push: DuePush, outcome: PushEnd, seconds: float, *, counted: bool = True) -> Settlement:
        return Settlement(push, outcome, self._clock() + timedelta(seconds=seconds), counted)

    def _later(self, push: DuePush, outcome: RetryLater) -> Settlement:
        if outcome is BROKEN and push.attempts + 1 >= TRIES:
            fields = {"platform": self._platform, "registration": push.registration_id, "mark": push.mark}
            log.error("push set aside", extra=fields | {"reason": outcome.reason})
            again = self._clock() + timedelta(seconds=PARKED)
            return Settlement(push, outcome, again, parked=outcome.reason)
        if outcome.after is not None and outcome.reach is Reach.HERE:
            # It was not tried. Its lane is blocked or limited by now, so the pushes held back do not return in step.
            return self._settle_in(push, outcome, outcome.after, counted=False)
        if outcome.after is not None:
            return self._settle_in(push, outcome, backoff.at_least(outcome.after, self._random))
        return self._settle_in(push, outcome, backoff.retry(push.attempts + 1, self._random))

    def _environment_failed(self, push: DuePush, outcome: RetryLater) -> Settlement:
        """Note a failure of the provider as a whole; while its environment is away, no try of a mark is counted."""
        breaker, environment, now = self._breakers.environment(push), push.environment, self._time()
        was_away = breaker.away
        self._breakers.channel(push).undecided(push, now)
        answered = outcome.reach >= Reach.ANSWERED
        first = self._stats.doubts.get(environment)
        since = self._clock() if first is None else first.since
        self._stats.doubts[environment] = Outage(environment, outcome.reason, outcome.remedy, since)
        contradicted = self._breakers.contradicted(push) if answered else 0
        if contradicted and not was_away:
            breaker.undecided(push, now)
            own = contradicted >= OWN and outcome.after is None
            return (
                self._refused(push, Refused(outcome.reason, OWN_FAULT, passing=True))
                if own
                else self._later(push, outcome)
            )
        certain = outcome.after is not None and not answered
        failure = Failure(outcome.reason, certain=certain, retry_after=outcome.after)
        source = push.registration_id if answered else None
        if breaker.failed(push, source, failure, now) and not was_away:
            fields = {"platform": self._platform, "environment": environment}
            log.warning("push provider away", extra=fields | {"reason": outcome.reason, "remedy": outcome.remedy})
        if not breaker.away:
            return self._later(push, outcome)
        known = self._stats.outages.get(environment)
        since = self._clock() if known is None else known.since
        self._stats.outages[environment] = Outage(environment, outcome.reason, outcome.remedy, since)
        # The first failure counts: from then on the mark does not take the turn of those that have not failed.
        return Settlement(push, outcome, self._clock(), counted=answered and not push.attempts)

    def _note_reach(self, push: DuePush, reach: Reach) -> None:
        """Note what the end of one push shows of its environment and its channel; the next push may show the rest."""
        self._note_environment(push, reach)
        if reach >= Reach.CHECKED:
            self._channel_works(push)
        else:
            self._breakers.channel(push).undecided(push, self._time())

    def _note_environment(self, push: DuePush, reach: Reach) -> None:
        if reach >= Reach.ANSWERED:
            self._environment_serves(push)
        else:
            self._breakers.environment(push).undecided(push, self._time())

    def _environment_serves(self, push: DuePush) -> None:
        self._breakers.answered(push)
        self._stats.doubts.pop(push.environment, None)
        breaker = self._breakers.environment(push)
        if not breaker.calm and breaker.answered(push, self._time()):
            self._stats.outages.pop(push.environment, None)
            log.info("push provider is back", extra={"platform": self._platform, "environment": push.environment})

    def _channel_faulty(self, push: DuePush, refused: Refused) -> None:
        channel = (push.app, push.environment)
        failure = Failure(refused.reason, certain=True)
        self._breakers.channel(push).failed(push, None, failure, self._time())
        known = self._stats.faults.get(channel)
        since = self._clock() if known is None else known.since
        self._stats.faults[channel] = ChannelFault(*channel, refused.reason, refused.remedy, since)
        if known is None or known.reason != refused.reason:
            fields = {"platform": self._platform, "app": push.app, "environment": push.environment}
            log.error("push channel faulty", extra=fields | {"reason": refused.reason, "remedy": refused.remedy})

    def _channel_works(self, push: DuePush) -> None:
        breaker = self._breakers.channel(push)
        if not breaker.calm and breaker.answered(push, self._time()):
            del self._stats.faults[push.app, push.environment]
            fields = {"platform": self._platform, "app": push.app, "environment": push.environment}
            log.info("push channel works again", extra=fields)
