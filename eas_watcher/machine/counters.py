"""The counters of a watch: what it counts, and which sign clears which counter.

A watch keeps trying, but never in a busy loop and never for the sake of a server that cannot be helped. So it counts
its failures and remedies and reads the counters where it decides how long to wait. Each method of `Counters` is one
sign, something that was done or observed, and is the only place that says which counters that sign clears:

    sign                             counts                      clears
    requested                        requests
    waited                           time                        requests
    polled                           time, polled_for,           requests, fast_pings, failures
                                     silent_for
    hierarchy_polled                                             polled_for
    listed                                                       unlisted_for
    left_out                         unlisted_for
    ping_answered                    time                        requests, unless the answer came at once
    ping_expired after a while       silent_for                  fast_pings, failures, remedies
    ping_expired too fast            fast_pings
    ping_changed after a while                                   fast_pings, failures, remedies
    ping_changed too fast            fast_pings
    ping_cut after a while           time                        failures, remedies
    ping_cut soon                    time
    ping_failed after a while                                    failures, remedies
    sync_answered                                                redirects, refusals, doubt_left
      and a new item is shown                                    silent_for, fast_pings, failures, remedies
      and other activity is shown                                silent_for, fast_pings
      and a new item is inferred                                 silent_for
    failed                           failures
    remedied                         remedies
    restarted                        restarts
    provisioned                      provisions
    provisions_used_up                                           provisions but for one, an hour later
    asked_early                      doubt_left
    refused                          refusals                    doubt_left
    refused when asked early                                     doubt_left
    redirected                       redirects
    returned                                                     redirects

`time` adds to `unlisted_for`, and ages `provisions` and `restarts`, which an hour clears.
"""

from dataclasses import dataclass
from typing import Final

from eas_watcher.values import by_slots, replace

HOUR: Final = 3600.0
CONFIRM_AFTER: Final = (60.0, 900.0)  # seconds after the first and second 401; the third one decides (lock-outs)
MOST_REFUSALS: Final = len(CONFIRM_AFTER) + 1  # in a row, over restarts; then the credential is dead, or doubtful
DOUBT_FOR: Final = (HOUR, 24 * HOUR)  # seconds after the third 401 and after each later one, if the server is in doubt
MOST_IN_DOUBT: Final = MOST_REFUSALS + len(DOUBT_FOR)  # in a row, of a server that meanwhile accepts others
UNLISTED: Final = 3 * HOUR
"""Seconds after which the folders are read, and all of them Synced, the parked ones too: some servers never report that
folders came or went [observed: SOGo 5.8, 2026-11], and a server may cease to report changes."""
PROVISIONS: Final = 3  # policy keys within an hour; then one an hour


@by_slots
@dataclass(frozen=True, slots=True)
class HourlyCount:
    """How often something happened, and for how many seconds this count has run; an hour clears it."""

    times: int = 0
    seconds: float = 0.0

    def again(self) -> "HourlyCount":
        """Count once more; the hour runs from the first time."""
        return HourlyCount(self.times + 1, self.seconds if self.times else 0.0)

    def prolonged(self) -> "HourlyCount":
        """Count once more; the hour runs from this time."""
        return HourlyCount(self.times + 1)

    def later(self, seconds: float) -> "HourlyCount":
        """Return the count after some time."""
        if not self.times or self.seconds + seconds >= HOUR:
            return NEVER
        return HourlyCount(self.times, self.seconds + seconds)


NEVER: Final = HourlyCount()


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of one watch; the table above says what clears them."""

    refusals: int = 0
    """How many times in a row the credential was refused (401)."""
    doubt_left: float = 0.0
    """Seconds that were left of a wait in doubt when a sign of the server ended it early; 0: it ended in time."""
    failures: int = 0
    """Failures in a row; they set the backoff."""
    remedies: int = 0
    """Remedies in a row that were applied at once, without a wait."""
    requests: int = 0
    """Requests since the last wait: a pause, or a Ping that the server held."""
    fast_pings: int = 0
    """Pings in a row that were answered suspiciously fast while no Sync showed anything."""
    silent_for: float = 0.0
    """Seconds of expired Pings and of polling since the start, or since a Sync showed an item."""
    polled_for: float = 0.0
    """Seconds of polling since polling last caused a FolderSync."""
    unlisted_for: float = 0.0
    """Seconds of Pings and pauses since the hierarchy was read; more, if it is to be read sooner."""
    redirects: int = 0
    """Redirects since the last answered Sync."""
    provisions: HourlyCount = NEVER
    """Policy keys granted within an hour."""
    restarts: HourlyCount = NEVER
    """Starts from sync key 0, with no more than an hour between two of them."""

    def requested(self) -> "Counters":
        """Count a request."""
        return replace(self, requests=self.requests + 1)

    def waited(self, seconds: float) -> "Counters":
        """Count the time of a pause."""
        return replace(self._aged(seconds), requests=0)

    def polled(self, seconds: float) -> "Counters":
        """Count the time of a pause between two Syncs that stand in for a Ping."""
        return replace(
            self.waited(seconds),
            polled_for=self.polled_for + seconds,
            silent_for=self.silent_for + seconds,
            fast_pings=0,
            failures=0,
        )

    def hierarchy_polled(self) -> "Counters":
        """Clear the polling time: the hierarchy is read because of it."""
        return replace(self, polled_for=0.0)

    def listed(self) -> "Counters":
        """Clear the time since the hierarchy was read: it was, or is to be read some hours later."""
        return replace(self, unlisted_for=0.0)

    def left_out(self, seconds: float) -> "Counters":
        """Have the hierarchy read within so many seconds: the watch then tries the folders again that it left out."""
        return replace(self, unlisted_for=max(self.unlisted_for, UNLISTED - seconds))

    def ping_answered(self, held: float, *, at_once: bool) -> "Counters":
        """Count the time of a Ping that was answered, whatever its status."""
        aged = self._aged(held)
        return aged if at_once else replace(aged, requests=0)

    def ping_expired(self, held: float, *, fast: bool) -> "Counters":
        """Count a Ping that the server held to its end, or ended too fast."""
        if fast:
            return replace(self, fast_pings=self.fast_pings + 1)
        return replace(self, silent_for=self.silent_for + held, fast_pings=0, failures=0, remedies=0)

    def ping_changed(self, *, fast: bool) -> "Counters":
        """Count a Ping that ended with changes, after a while or too fast."""
        if fast:
            return replace(self, fast_pings=self.fast_pings + 1)
        if not (self.fast_pings or self.failures or self.remedies):
            return self  # as nearly always
        return replace(self, fast_pings=0, failures=0, remedies=0)

    def ping_cut(self, survived: float, *, held: bool) -> "Counters":
        """Count the time of a Ping whose connection was lost, after the server had `held` it for a while or soon."""
        aged = self._aged(survived)
        return replace(aged, failures=0, remedies=0) if held else aged

    def ping_failed(self) -> "Counters":
        """Clear the failures before a Ping that the server held for a while, and then ended with an error."""
        return replace(self, failures=0, remedies=0)

    def sync_answered(self, *, news: bool = False, activity: bool = False, inferred: bool = False) -> "Counters":
        """Clear what an answered Sync disproves.

        `news`: it shows a new item. `activity`: it shows what a user does elsewhere, e.g. reading and deleting, which
        is a good reason for a Ping to end at once. `inferred`: a new item is only inferred from a lost sync state. That
        is no sign of health: it would come round again with the state.
        """
        faults = self.failures, self.remedies, self.refusals, self.doubt_left, self.redirects
        if not any((*faults, self.silent_for, self.fast_pings)):
            return self  # as often: after another mail, with no Ping that expired in between
        return replace(
            self,
            redirects=0,
            refusals=0,
            doubt_left=0.0,
            silent_for=0.0 if news or activity or inferred else self.silent_for,
            fast_pings=0 if news or activity else self.fast_pings,
            failures=0 if news else self.failures,
            remedies=0 if news else self.remedies,
        )

    def failed(self) -> "Counters":
        """Count a failure."""
        return replace(self, failures=self.failures + 1)

    def remedied(self) -> "Counters":
        """Count a remedy."""
        return replace(self, remedies=self.remedies + 1)

    def restarted(self) -> "Counters":
        """Count a start from sync key 0."""
        return replace(self, restarts=self.restarts.prolonged())

    def provisioned(self) -> "Counters":
        """Count a policy key that the server granted."""
        return replace(self, provisions=self.provisions.again())

    def provisions_used_up(self) -> "Counters":
        """Allow one more policy key in an hour, and none after it before an hour without any has passed."""
        return replace(self, provisions=HourlyCount(PROVISIONS - 1, -HOUR))

    def asked_early(self, left: float) -> "Counters":
        """Note that a doubtful credential is shown `left` seconds before its time."""
        return replace(self, doubt_left=left)

    def refused(self) -> "Counters":
        """Count a refused credential; one that was shown early waits on as if it had not been shown."""
        return replace(self, refusals=self.refusals + (not self.doubt_left), doubt_left=0.0)

    def redirected(self) -> "Counters":
        """Count a redirect that the watch follows."""
        return replace(self, redirects=self.redirects + 1)

    def returned(self) -> "Counters":
        """Clear the redirects: the watch gives up following them and returns to the configured URL."""
        return replace(self, redirects=0)

    def _aged(self, seconds: float) -> "Counters":
        unlisted_for = self.unlisted_for + seconds
        if not self.provisions.times and not self.restarts.times:
            return replace(self, unlisted_for=unlisted_for)  # as nearly always
        provisions, restarts = self.provisions.later(seconds), self.restarts.later(seconds)
        return replace(self, unlisted_for=unlisted_for, provisions=provisions, restarts=restarts)
