from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.breaker import (
    EARLY,
    Away,
    Breaker,
    ByRate,
    BySlots,
    Failure,
    Returning,
    Rules,
    Serving,
    State,
    Tally,
    Turn,
)
from eas_watcher.retry_after import LONGEST
from tests.unit.eas_watcher.running import Middle

SERVER: Final = Rules(
    5.0, 60.0, 0.3, sources=3, window=30.0, in_a_row=False, probe_decides=True, returns=ByRate(per_second=20.0)
)
"""Like a mail server's: many sources, of which some may be ill on their own; gradual return at a rate."""
ENVIRONMENT: Final = Rules(2.0, 60.0, 0.3, failures=5, lasting=10.0, returns=BySlots(first=2, full=5))
"""Like a provider environment's: failures in a row, whatever their source; gradual return by slots."""
CHANNEL: Final = Rules(30.0, 300.0)
"""Like a channel's: one fault is enough, and one success ends it for all."""
SERVICE: Final = Rules(30.0, 300.0, sources=3)
"""Like a push service's: several phones in a row."""
ALL: Final = {"server": SERVER, "environment": ENVIRONMENT, "channel": CHANNEL, "service": SERVICE}

MIDDLE: Final = Middle()
LOST: Final = Failure("lost")
REFUSED: Final = Failure("refused", certain=True)
ANN: Final = Tally(0.0, 1, frozenset({"ann"}))

Event = Callable[[Breaker], Breaker]


def fails(*sources: Hashable, failure: Failure = LOST, now: float = 0.0, probe: bool = False) -> Event:
    def event(breaker: Breaker) -> Breaker:
        for source in sources:
            breaker = breaker.failed(source, failure, now, MIDDLE, probe=probe)
        return breaker

    return event


def busy(seconds: float, *sources: Hashable, now: float = 0.0, probe: bool = False) -> Event:
    return fails(*sources, failure=Failure("busy", retry_after=seconds), now=now, probe=probe)


def answers(times: int = 1, now: float = 0.0, *, probe: bool = False) -> Event:
    def event(breaker: Breaker) -> Breaker:
        for _ in range(times):
            breaker = breaker.answered(now, probe=probe)
        return breaker

    return event


def lost(now: float) -> Event:
    return lambda breaker: breaker.probe_lost(now)


def hurries(now: float) -> Event:
    return lambda breaker: breaker.hurried(now)


def asks(now: float) -> Event:
    return lambda breaker: breaker.admit(now, MIDDLE)[0]


def play(rules: Rules, state: State, *events: Event) -> State:
    breaker = Breaker(rules, state)
    for event in events:
        breaker = event(breaker)
    return breaker.state


def away(until: float, tries: int = 1, detail: str = "lost", **fields: Any) -> Away:
    return Away(detail, until, tries, **fields)


GOES_AWAY: Final[dict[str, tuple[Rules, list[Event], State]]] = {
    "one certain failure": (SERVER, [fails("ann", failure=REFUSED, now=100.0)], away(105.0, detail="refused")),
    "one source, however often": (SERVER, [fails(*["ann"] * 50)], Serving(replace(ANN, failures=50))),
    "several sources": (SERVER, [fails("ann", "ben", "cleo")], away(5.0)),
    "one source less": (SERVER, [fails("ann", "ben")], Serving(Tally(0.0, 2, frozenset({"ann", "ben"})))),
    "sources within the window": (SERVER, [fails("ann", "ben"), fails("cleo", now=30.0)], away(35.0)),
    "sources beyond the window": (
        SERVER,
        [fails("ann", "ben"), fails("cleo", now=31.0)],
        Serving(Tally(31.0, 1, frozenset({"cleo"}))),
    ),
    "fewer sources than answers": (
        SERVER,
        [fails("ann"), answers(4), fails("ben", "cleo", "dora")],
        Serving(Tally(0.0, 4, frozenset({"ann", "ben", "cleo", "dora"}), answers=4)),
    ),
    "more sources than answers": (SERVER, [fails("ann"), answers(4), fails("ben", "cleo", "dora", "emil")], away(5.0)),
    "answers before any failure": (SERVER, [answers(9), fails("ann", "ben", "cleo")], away(5.0)),
    "the latest moment that was named": (
        SERVER,
        [busy(100.0, "ann"), busy(600.0, "ben"), fails("cleo")],
        away(630.0, leave_alone_until=630.0),
    ),
    "a moment before the own wait is over": (
        SERVER,
        [busy(1.0, "a", "b", "c")],
        away(5.0, 1, "busy", leave_alone_until=1.05),
    ),
    "a moment in a year": (
        CHANNEL,
        [busy(1e9, "ann")],
        away(LONGEST * 1.05, 1, "busy", leave_alone_until=LONGEST * 1.05),
    ),
    "failures in a row": (ENVIRONMENT, [fails(*[None] * 5)], away(2.0)),
    "one failure in a row less": (ENVIRONMENT, [fails(*[None] * 4)], Serving(Tally(0.0, 4, frozenset({None})))),
    "an answer in between": (
        ENVIRONMENT,
        [fails(*[None] * 4), answers(), fails(*[None] * 4), answers()],
        Serving(),
    ),
    "two failures that take long": (ENVIRONMENT, [fails(None), fails(None, now=10.0)], away(12.0)),
    "two failures that take less": (
        ENVIRONMENT,
        [fails(None), fails(None, now=9.9)],
        Serving(Tally(0.0, 2, frozenset({None}))),
    ),
    "an answer between two failures that take long": (
        ENVIRONMENT,
        [fails(None), answers(now=1.0), fails(None, now=20.0), fails(None, now=21.0)],
        Serving(Tally(20.0, 2, frozenset({None}))),
    ),
    "one fault": (CHANNEL, [fails(None, now=100.0)], away(130.0)),
    "several phones in a row": (SERVICE, [fails("ann", "ben", now=0.0), fails("cleo", now=3600.0)], away(3630.0)),
    "several phones with an answer between": (
        SERVICE,
        [fails("ann", "ben"), answers(), fails("cleo")],
        Serving(Tally(0.0, 1, frozenset({"cleo"}))),
    ),
}


@pytest.mark.parametrize(("rules", "events", "after"), GOES_AWAY.values(), ids=GOES_AWAY)
def test_failures_that_agree_show_that_the_party_is_away(rules: Rules, events: list[Event], after: State) -> None:
    assert play(rules, Serving(), *events) == after


PROBING: Final = away(0.0, probing=True)

STAYS_AWAY: Final[dict[str, tuple[Rules, State, list[Event], State]]] = {
    "requests under way fail": (SERVER, away(10.0, 3), [fails("a", "b", "c", failure=REFUSED, now=1.0)], away(10.0, 3)),
    "and name a later moment": (
        SERVER,
        away(5.0),
        [busy(600.0, "ann", now=1.0)],
        away(631.0, leave_alone_until=631.0),
    ),
    "and name an earlier one": (
        SERVER,
        away(631.0, leave_alone_until=631.0),
        [busy(60.0, "ben", now=2.0)],
        away(631.0, leave_alone_until=631.0),
    ),
    "many name the same short time": (
        ENVIRONMENT,
        away(102.0, leave_alone_until=101.05),
        [busy(1.0, *range(50), now=100.0)],
        away(102.0, leave_alone_until=101.05),
    ),
    "requests under way are answered, the probe decides": (SERVER, away(10.0, 3), [answers(9, 1.0)], away(10.0, 3)),
    "the probe fails": (SERVER, PROBING, [fails("ann", probe=True)], away(10.0, 2)),
    "the probe fails and names a moment": (
        SERVER,
        PROBING,
        [busy(200.0, "ann", probe=True)],
        away(210.0, 2, "busy", leave_alone_until=210.0),
    ),
    "the probe fails, another named a later moment": (
        SERVER,
        PROBING,
        [busy(600.0, "ann", now=1.0), fails("ben", failure=REFUSED, now=2.0, probe=True)],
        away(631.0, 2, "refused", leave_alone_until=631.0),
    ),
    "the probe is answered, another named a later moment": (
        SERVER,
        PROBING,
        [busy(600.0, "ann", now=1.0), answers(now=2.0, probe=True)],
        away(631.0, leave_alone_until=631.0),
    ),
    "the probe is lost": (SERVER, away(10.0, probing=True), [lost(12.0)], away(10.0)),
    "the probe is lost early": (SERVER, away(10.0, probing=True), [lost(7.0)], away(7.0)),
    "the probe is lost, another named a later moment": (
        SERVER,
        PROBING,
        [busy(600.0, "ann", now=1.0), lost(2.0)],
        away(631.0, leave_alone_until=631.0),
    ),
    "a probe of an earlier absence is lost": (ENVIRONMENT, away(10.0), [lost(7.0)], away(10.0)),
    "a probe of an earlier absence fails": (ENVIRONMENT, away(10.0), [fails(None, now=7.0, probe=True)], away(10.0)),
    "a remedy": (CHANNEL, away(130.0, 3), [hurries(101.0)], away(101.0, 3)),
    "a remedy before the moment that was named": (
        ENVIRONMENT,
        away(630.0, leave_alone_until=630.0),
        [hurries(101.0)],
        away(101.0, leave_alone_until=101.0),
    ),
    "a remedy too late": (CHANNEL, away(130.0, 3), [hurries(140.0)], away(130.0, 3)),
}


@pytest.mark.parametrize(("rules", "state", "events", "after"), STAYS_AWAY.values(), ids=STAYS_AWAY)
def test_a_party_stays_away(rules: Rules, state: State, events: list[Event], after: State) -> None:
    assert play(rules, state, *events) == after


RETURNS: Final[dict[str, tuple[Rules, State, list[Event], State]]] = {
    "the probe is answered": (SERVER, PROBING, [answers(now=50.0, probe=True)], Returning(1, next_at=50.0)),
    "after the moment that was named": (
        SERVER,
        away(631.0, probing=True, leave_alone_until=631.0),
        [answers(now=631.0, probe=True)],
        Returning(1, next_at=631.0),
    ),
    "by slots": (ENVIRONMENT, PROBING, [answers(now=50.0, probe=True)], Returning(1, slots=2)),
    "any answer": (ENVIRONMENT, away(60.0), [answers(now=50.0)], Returning(1, slots=2)),
    "any answer before the moment that was named": (
        ENVIRONMENT,
        away(630.0, leave_alone_until=630.0),
        [answers(now=50.0)],
        Returning(1, slots=2),
    ),
    "each answer adds a slot": (ENVIRONMENT, Returning(1, slots=2), [answers(2)], Returning(1, slots=4)),
    "until it serves": (ENVIRONMENT, Returning(1, slots=2), [answers(3)], Serving()),
    "fewer slots than return at first": (
        replace(ENVIRONMENT, returns=BySlots(first=2, full=2)),
        PROBING,
        [answers(probe=True)],
        Serving(),
    ),
    "all at once": (CHANNEL, away(130.0, 7), [answers(now=131.0)], Serving()),
    "a relapse": (SERVER, Returning(2), [fails("ann", failure=REFUSED)], away(20.0, 3, "refused")),
    "a relapse by slots": (ENVIRONMENT, Returning(1, slots=2), [fails(*[None] * 5, now=200.0)], away(204.0, 2)),
    "a single failure": (ENVIRONMENT, Returning(1, slots=2), [fails("ann")], Returning(1, slots=2, tally=ANN)),
    "a single failure, then an answer": (
        ENVIRONMENT,
        Returning(1, slots=2),
        [fails("ann"), answers()],
        Returning(1, slots=3),
    ),
    "answers by rate": (SERVER, Returning(1, tally=ANN), [answers(2)], Returning(1, tally=replace(ANN, answers=2))),
    "away again after it served": (ENVIRONMENT, Returning(4, slots=4), [answers(), fails(*[None] * 5)], away(2.0)),
}


@pytest.mark.parametrize(("rules", "state", "events", "after"), RETURNS.values(), ids=RETURNS)
def test_a_party_returns(rules: Rules, state: State, events: list[Event], after: State) -> None:
    assert play(rules, state, *events) == after


@pytest.mark.parametrize("state", [Serving(), Serving(Tally()), Returning(1)])
def test_an_answer_without_any_failure_changes_nothing(state: State) -> None:
    breaker = Breaker(SERVER, state)

    assert breaker.answered(1.0) is breaker


@pytest.mark.parametrize("state", [Serving(), Returning(1)])
def test_the_end_of_a_probe_and_a_remedy_matter_only_while_the_party_is_away(state: State) -> None:
    assert play(SERVER, state, lost(1.0), hurries(1.0)) == state


def test_one_probe_at_a_time_is_sent_when_its_moment_has_come() -> None:
    breaker = Breaker(SERVER, away(10.0))
    assert breaker.admit(9.9, MIDDLE) == (breaker, Turn.WAITS)
    assert (breaker.due, breaker.capacity(0, 9.9), breaker.capacity(7, 10.0)) == (10.0, 0, 1)

    assert breaker.admit(9.9995, MIDDLE)[1] is Turn.PROBES, "a timer may fire a little early"
    probing, turn = breaker.admit(10.0, MIDDLE)

    assert (probing.state, turn) == (away(10.0, probing=True), Turn.PROBES)
    assert probing.admit(99.0, MIDDLE) == (probing, Turn.WAITS)
    assert (probing.due, probing.capacity(0, 99.0)) == (None, 0)


@pytest.mark.parametrize(
    ("rules", "waits"),
    [
        (SERVER, [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]),
        (ENVIRONMENT, [4.0, 8.0, 16.0, 32.0, 60.0, 60.0]),
        (SERVICE, [60.0, 120.0, 240.0, 300.0, 300.0, 300.0]),
    ],
)
def test_probes_that_fail_are_spaced_ever_more(rules: Rules, waits: list[float]) -> None:
    state: State = away(0.0)
    for wait in waits:
        state = play(rules, state, asks(1000.0), fails("ann", probe=True))
        assert isinstance(state, Away)
        assert state.until == wait


@given(st.integers(1, 100), st.integers())
def test_the_wait_spreads_below_its_ceiling(tries: int, seed: int) -> None:
    after = Breaker(SERVER, away(0.0, tries, probing=True)).failed("ann", LOST, 0.0, Random(seed), probe=True).state
    assert isinstance(after, Away)

    middle = 5.0 * 2.0 ** min(tries, 10)
    assert min(60.0, 0.7 * middle) <= after.until <= min(60.0, 1.3 * middle)


@given(st.floats(0.01, LONGEST), st.integers())
def test_a_moment_that_the_party_named_is_never_cut_short(seconds: float, seed: int) -> None:
    breaker = Breaker(CHANNEL).failed("ann", Failure(retry_after=seconds), 100.0, Random(seed))

    assert isinstance(breaker.state, Away)
    assert max(30.0, seconds) <= breaker.state.until - 100.0 + 1e-6
    assert breaker.state.until - 100.0 <= max(30.0, seconds * 1.1) + 1e-6


def test_while_it_serves_or_returns_by_slots_every_request_passes() -> None:
    for breaker in (Breaker(SERVER), Breaker(ENVIRONMENT, Returning(1, slots=2)), Breaker(CHANNEL)):
        assert breaker.admit(0.0, MIDDLE) == (breaker, Turn.PASSES)
        assert breaker.due is None
    assert Breaker(ENVIRONMENT).capacity(7, 0.0) is None
    assert Breaker(SERVER, Returning(1)).capacity(7, 0.0) is None


def test_requests_under_way_take_slots() -> None:
    breaker = Breaker(ENVIRONMENT, Returning(1, slots=3))

    assert [breaker.capacity(under_way, 0.0) for under_way in (0, 2, 3, 9)] == [3, 1, 0, 0]


def test_sources_return_at_the_rate_and_not_faster() -> None:
    breaker = Breaker(SERVER, Returning(1, next_at=50.0))
    random, moments, now = Random(1), [], 50.0
    while now < 60.0:
        breaker, turn = breaker.admit(now, random)
        if turn is Turn.PASSES:
            moments.append(now)
        now = breaker.due or 0.0

    assert 190 <= len(moments) <= 211
    assert len({round(after - before, 4) for before, after in pairwise(moments)}) > 100


def test_a_timer_that_fires_a_moment_early_need_not_be_set_again() -> None:
    breaker = Breaker(SERVER, Returning(1, next_at=50.0))

    assert breaker.admit(50.0 - 2 * EARLY, MIDDLE)[1] is Turn.WAITS
    assert breaker.admit(50.0 - EARLY / 2, MIDDLE)[1] is Turn.PASSES
    assert Breaker(SERVER, Returning(next_at=50.0, starting=True)).emptied(50.0 - EARLY / 2).state == Serving()


def test_a_loop_that_was_busy_lets_no_crowd_through() -> None:
    breaker, admitted = Breaker(SERVER, Returning()), 0
    while True:
        breaker, turn = breaker.admit(30.0, MIDDLE)
        if turn is Turn.WAITS:
            break
        admitted += 1

    assert admitted <= 3


def test_a_return_is_complete_when_none_waits() -> None:
    assert Breaker(SERVER, Returning(2, 9.0, tally=ANN)).emptied(0.0).state == Serving(ANN)
    assert Breaker(SERVER, away(0.0)).emptied(9.0).state == away(0.0)


def test_a_start_is_complete_when_one_more_could_have_passed() -> None:
    starting = Breaker(SERVER, Serving(ANN)).arrived(9.0)

    assert starting.state == Returning(next_at=9.0, tally=ANN, starting=True)
    assert starting.emptied(8.9) == starting
    assert starting.emptied(9.0).state == Serving(ANN)


@pytest.mark.parametrize("breaker", [Breaker(SERVER, away(5.0)), Breaker(SERVER, Returning(1)), Breaker(ENVIRONMENT)])
def test_a_source_that_comes_first_changes_nothing_while_others_wait_or_no_rate_is_kept(breaker: Breaker) -> None:
    assert breaker.arrived(1.0) == breaker


@pytest.mark.parametrize(
    ("state", "after"),
    [(Serving(), Returning(next_at=9.0)), (away(5.0), away(5.0)), (Returning(2, 7.0), Returning(2, 7.0))],
)
def test_sources_that_waited_for_another_reason_return_gradually(state: State, after: State) -> None:
    assert Breaker(SERVER, state).released(9.0).state == after


class Party:
    """A breaker with requests under way, as its users drive it; `check` states what holds after every event."""

    def __init__(self, rules: Rules, random: Random) -> None:
        self.random = random
        self.breaker = Breaker(rules)
        self.now = 0.0
        self.probe = False
        """True while a request that probes is under way."""

    def ask(self) -> None:
        self.breaker, turn = self.breaker.admit(self.now, self.random)
        assert not (self.probe and turn is Turn.PROBES), "two probes at a time"
        self.probe = self.probe or turn is Turn.PROBES

    def fail(self, failure: Failure, *, probe: bool) -> None:
        before = self.breaker.state
        self.breaker = self.breaker.failed(self.random.randrange(6), failure, self.now, self.random, probe=probe)
        self.probe = self.probe and not probe
        if isinstance(before, Away):
            after = self.breaker.state
            assert isinstance(after, Away)
            assert after.leave_alone_until >= before.leave_alone_until
            assert probe or after.until >= before.until

    def answer(self, *, probe: bool) -> None:
        before = self.breaker.state
        self.breaker = self.breaker.answered(self.now, probe=probe)
        self.probe = self.probe and not probe
        if isinstance(before, Away) and probe:
            named = self.breaker.rules.probe_decides and self.now < before.leave_alone_until
            assert self.breaker.away == named
        if not self.breaker.away:
            self.probe = False  # its end is that of any other request now

    def lose(self) -> None:
        self.breaker, self.probe = self.breaker.probe_lost(self.now), False

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def become(self, change: Callable[[Breaker, float], Breaker]) -> None:
        self.breaker = change(self.breaker, self.now)

    def check(self) -> None:
        state = self.breaker.state
        assert isinstance(state, Serving | Away | Returning)
        assert self.probe == (isinstance(state, Away) and state.probing)
        if self.probe:
            assert self.breaker.capacity(0, self.now) == 0

    def mend(self) -> None:
        """Let the party answer every request from now on."""
        for _ in range(10):
            if self.probe:
                self.lose()
            self.now = max(self.now, self.breaker.due or 0.0)
            if not self.breaker.away:
                break
            self.ask()
            assert self.probe
            self.answer(probe=True)
        for _ in range(10):
            self.answer(probe=False)
        self.now += 60.0
        if isinstance(self.breaker.rules.returns, ByRate):
            self.breaker = self.breaker.emptied(self.now)


EVENTS: Final[dict[str, Callable[[Party], None]]] = {
    "ask": Party.ask,
    "answer": lambda party: party.answer(probe=False),
    "fail": lambda party: party.fail(LOST, probe=False),
    "refuse": lambda party: party.fail(REFUSED, probe=False),
    "busy": lambda party: party.fail(Failure("busy", retry_after=party.random.uniform(0.1, 900.0)), probe=False),
    "wait": lambda party: party.wait(3.0),
    "wait long": lambda party: party.wait(90.0),
    "remedy": lambda party: party.become(Breaker.hurried),
}
OF_A_PROBE: Final[dict[str, Callable[[Party], None]]] = {
    "probe answers": lambda party: party.answer(probe=True),
    "probe fails": lambda party: party.fail(LOST, probe=True),
    "probe is lost": Party.lose,
}
OF_A_RATE: Final[dict[str, Callable[[Party], None]]] = {
    "arrive": lambda party: party.become(Breaker.arrived),
    "empty": lambda party: party.become(Breaker.emptied),
    "release": lambda party: party.become(Breaker.released),
}


@pytest.mark.parametrize("rules", ALL.values(), ids=ALL)
@given(st.lists(st.sampled_from([*EVENTS, *OF_A_PROBE, *OF_A_RATE]), max_size=60), st.integers())
def test_whatever_happens_one_probe_at_most_is_under_way_and_the_party_can_come_back(
    rules: Rules, events: list[str], seed: int
) -> None:
    party = Party(rules, Random(seed))
    for event in events:
        if event in EVENTS:
            EVENTS[event](party)
        elif event in OF_A_PROBE and party.probe:
            OF_A_PROBE[event](party)
        elif event in OF_A_RATE and isinstance(rules.returns, ByRate):
            OF_A_RATE[event](party)
        party.check()

    party.mend()

    assert isinstance(party.breaker.state, Serving)
