import pytest

from eas_watcher.server.capacity import (
    CHECK,
    FORGOTTEN,
    GHOSTS,
    LIFE,
    POLL,
    PROMPT,
    RELEASED,
    RESERVED,
    RETRY_FIRST,
    RETRY_LONGEST,
    SAMPLED,
    STALLED,
    STRIKE_LASTS,
    TRIAL,
    TURN,
    Capacity,
    Hold,
    Poll,
)

TIMEOUT = 60.0  # seconds after which a proxy gives up


def serving(watched: int, limit: int | None = None) -> Capacity[str]:
    capacity = Capacity[str](limit, str)
    for _ in range(watched):
        capacity.begins()
    return capacity


def short(capacity: Capacity[str], now: float, seconds: float = 0.1, name: str = "other") -> None:
    """Send a short request that is answered after so many seconds."""
    capacity.short_sent(name, now)
    capacity.short_answered(name, now + seconds)


def hold(capacity: Capacity[str], *names: str, now: float = 0.0) -> None:
    """Send Pings, each shown to be held by a short request."""
    for name in names:
        capacity.ping_sent(name, now)
        short(capacity, now)


def fail(capacity: Capacity[str], name: str, sent: float, seconds: float = TIMEOUT, *, ping: bool = False) -> bool:
    """Send a request that fails after so many seconds; return whether the capacity explains that."""
    (capacity.ping_sent if ping else capacity.short_sent)(name, sent)
    explained = capacity.explains(name, sent + seconds, ping=ping, turned_away=False)
    if ping:
        capacity.ping_over(name, sent + seconds)
    else:
        capacity.short_over(name)
    return explained


def full(workers: int = 5, watched: int = 36) -> Capacity[str]:
    """Return a capacity that has learnt that a worker must be left free, at second 61."""
    capacity = serving(watched)
    hold(capacity, *(f"m{number}" for number in range(workers - 1)))
    capacity.ping_sent("last", 0.5)
    capacity.short_sent("b", 1.0)
    capacity.short_sent("c", 1.0)
    assert capacity.explains("b", 61.0, ping=False, turned_away=False)
    assert capacity.explains("c", 61.0, ping=False, turned_away=False)
    for name in ("b", "c"):
        capacity.short_over(name)
    return capacity


def test_a_server_without_a_limit_lets_every_ping_be_as_long_as_its_mailbox_wants() -> None:
    capacity = serving(30)
    for number in range(30):
        longest = capacity.ask(f"m{number}", 0.0)
        trial = number + 1 <= SAMPLED or (number + 1) % SAMPLED == 0
        assert longest == Hold(TRIAL if trial else None)
        hold(capacity, f"m{number}")

    capacity.ping_answered("m3", 60.0)
    assert capacity.ask("m3", 60.0) == Hold()
    assert (capacity.crowded, capacity.polled, capacity.describe("mail.example.com")) == (False, 0, "")
    assert capacity.turns({"m3"}, 60.0) == []


def test_a_mailbox_that_is_alone_is_held_as_long_as_it_wants() -> None:
    assert serving(1).ask("m", 0.0) == Hold()


def test_trials_that_do_no_harm_grow_longer_until_there_are_none() -> None:
    capacity, lengths, now = serving(5), [], 0.0
    hold(capacity, "a", "b", "c", "d")
    while isinstance(asked := capacity.ask("m", now), Hold) and asked.longest is not None:
        lengths.append(asked.longest)
        capacity.ping_sent("m", now)
        now += asked.longest
        capacity.ping_answered("m", now)

    assert lengths == [60, 60, 120, 240, 480]
    capacity.begins()
    assert capacity.ask("m", now) == Hold(TRIAL), "a mailbox that comes may find no worker"


def test_requests_of_two_mailboxes_that_find_no_worker_set_a_limit_that_leaves_one_free() -> None:
    capacity = full()

    assert (capacity.limit, capacity.crowded, capacity.polled) == (4, True, 32)
    assert capacity.describe("mail.example.com") == (
        "mail.example.com holds about 4 Pings at once: 32 mailboxes are polled every 90 s, in turns"
    )
    assert capacity.ask("x", 61.0) == Poll(POLL)


def test_requests_of_one_mailbox_set_no_limit_because_its_store_may_be_down() -> None:
    capacity = serving(36)
    hold(capacity, "m1", "m2")
    for start in range(1, 900, 65):
        fail(capacity, "ill", float(start))
        short(capacity, start + 62.0, name="m3")

    assert capacity.limit is None


def test_a_random_failure_sets_no_limit_where_others_are_answered() -> None:
    capacity = serving(36)
    names = [f"m{number}" for number in range(35)]
    hold(capacity, *names)
    for start, name in ((10.0, "a"), (40.0, "b"), (80.0, "c"), (120.0, "d")):
        capacity.short_sent(name, start)
        assert capacity.explains(name, start + 0.1, ping=False, turned_away=True)
        capacity.short_over(name)
        short(capacity, start + 5.0)

    assert capacity.limit is None


def test_strikes_are_forgotten_after_a_while() -> None:
    capacity = serving(36)
    hold(capacity, "m1", "m2")
    assert fail(capacity, "a", 1.0)
    later = 1.0 + STRIKE_LASTS + TIMEOUT
    hold(capacity, "m1", now=later - 10.0)
    assert fail(capacity, "b", later)

    assert capacity.limit is None


def test_a_slow_answer_is_a_strike_if_the_end_of_a_ping_made_room_for_it() -> None:
    capacity = serving(36)
    hold(capacity, "m1")
    capacity.ping_sent("m2", 0.5)
    capacity.short_sent("a", 1.0)
    capacity.short_sent("b", 1.0)
    capacity.ping_answered("m2", 60.0)
    capacity.short_answered("a", 60.5)
    capacity.short_answered("b", 60.5)

    assert capacity.limit is None, "the second one was overtaken by nothing, but answers in order count once"
    capacity.ping_sent("m2", 61.0)
    capacity.short_sent("b", 62.0)
    capacity.ping_answered("m2", 121.0)
    capacity.short_answered("b", 121.0 + RELEASED)
    assert capacity.limit == 1


@pytest.mark.parametrize("seconds", [STALLED, 40.0])
def test_a_slow_answer_alone_may_be_that_of_a_large_folder(seconds: float) -> None:
    capacity = serving(36)
    hold(capacity, "m1", "m2")
    for name in ("a", "b", "c"):
        short(capacity, 100.0, seconds, name)

    assert capacity.limit is None


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(STALLED - 1.0, "it failed soon"), (LIFE + 1.0, "nothing was answered for so long that the server may be away")],
)
def test_other_failures_say_nothing_of_workers(seconds: float, reason: str) -> None:
    capacity = serving(36)
    hold(capacity, "m1")

    assert not fail(capacity, "a", 1.0, seconds), reason


def test_a_failure_is_not_explained_where_no_ping_is_held_or_a_later_request_was_answered() -> None:
    assert not fail(serving(36), "a", 1.0)
    capacity = serving(36)
    short(capacity, 0.0)
    assert not fail(capacity, "a", 1.0)
    hold(capacity, "m1")
    capacity.short_sent("a", 1.0)
    short(capacity, 2.0)
    assert not capacity.explains("a", 61.0, ping=False, turned_away=False)
    assert not capacity.explains("unknown", 61.0, ping=False, turned_away=False)


def test_a_ping_that_is_given_up_may_have_been_cut_on_the_path_unless_requests_wait_too() -> None:
    capacity = serving(36)
    hold(capacity, "m1")
    assert not fail(capacity, "m2", 1.0, ping=True)

    capacity.short_sent("a", 70.0)
    short(capacity, 65.0)
    capacity.ping_sent("m2", 71.0)
    assert capacity.explains("m2", 131.0, ping=True, turned_away=False)


def test_a_ping_that_was_held_and_is_given_up_was_cut_on_the_path() -> None:
    capacity = serving(36)
    hold(capacity, "m1", "m2")
    capacity.short_sent("a", 200.0)

    assert not capacity.explains("m2", 300.0, ping=True, turned_away=False)


def test_pings_that_were_given_up_in_the_queue_explain_failures_for_a_while() -> None:
    capacity = full()
    capacity.ping_sent("m9", 2.0)
    capacity.short_sent("d", 3.0)
    assert capacity.explains("m9", 62.0, ping=True, turned_away=False)
    for name in ("m0", "m1", "m2", "m3", "last", "m9"):
        capacity.ping_over(name, 62.0)
    limit = capacity.limit

    assert fail(capacity, "e", 150.0)
    assert fail(capacity, "f", 62.0 + GHOSTS - TIMEOUT)
    assert capacity.limit == limit, "they are no fault of the Pings under the limit"


def test_turns_go_to_those_that_waited_longest_and_few_at_a_time() -> None:
    capacity = serving(6, limit=3)
    waiting = ["a", "b", "c", "d"]
    capacity.ask("x", 0.0)
    hold(capacity, "x")
    for name in waiting:
        assert capacity.ask(name, 0.0) == (Hold(TRIAL) if name == "a" else Poll(POLL))
    assert capacity.turns(waiting, 1.0) == [], "the first must be shown to be held"
    hold(capacity, "a", now=1.0)
    assert capacity.turns({"c", "d"}, 2.0) == ["c"], "b does not sleep: it asks by itself"
    assert capacity.ask("d", 2.0) == Poll(POLL)
    assert capacity.ask("c", 3.0) == Hold(TRIAL)
    hold(capacity, "c", now=3.0)
    assert capacity.turns(waiting, 4.0) == []

    capacity.ping_answered("x", 60.0)
    assert capacity.ask("x", 60.0) == Poll(POLL), "others waited longer"
    assert capacity.turns({"b", "d", "x"}, 60.0) == ["b"]
    assert capacity.ask("b", 61.0) == Hold(TURN), "three were held before beside a free worker"


def test_who_waits_beside_a_number_that_never_failed_shows_soon_whether_it_is_held() -> None:
    capacity = serving(4, limit=1)
    hold(capacity, "a")
    capacity.ping_over("a", 1.0)
    assert capacity.ask("a", 300.0) == Hold(TURN)
    capacity.ping_sent("a", 300.0)
    short(capacity, 301.0)
    assert capacity.limit == 1, "nobody waits"

    assert capacity.ask("b", 301.0) == Poll(POLL), "the limit of an earlier process: one more failed there"
    short(capacity, 300.0 + RETRY_FIRST)
    assert capacity.limit == 2
    assert capacity.ask("c", 430.0) == Poll(CHECK)
    assert capacity.ask("d", 431.0) == Poll(POLL), "one at a time"
    assert capacity.ask("c", 450.0) == Poll(POLL), "each once"


def test_where_all_may_be_held_who_waits_shows_soon_that_the_last_ping_is_held() -> None:
    capacity = serving(2, limit=2)
    capacity.ping_sent("a", 0.0)
    assert capacity.ask("b", 1.0) == Poll(CHECK)
    capacity.short_sent("c", 10.0)
    assert capacity.ask("b", 10.0 + STALLED) == Poll(POLL), "a request waits already"
    capacity.short_answered("c", 11.0 + STALLED)
    short(capacity, 12.0 + STALLED)
    assert capacity.ask("b", 13.0 + STALLED) == Hold(TRIAL)


def test_a_turn_that_is_not_taken_goes_to_another() -> None:
    capacity = serving(4, limit=1)
    hold(capacity, "x")
    for name in ("a", "b"):
        capacity.ask(name, 0.0)
    capacity.ping_answered("x", 60.0)
    assert capacity.turns({"a", "b"}, 60.0) == ["a"]
    assert capacity.turns({"b"}, 60.0 + RESERVED - 1.0) == []
    assert capacity.turns({"b"}, 60.0 + RESERVED) == ["b"]
    capacity.ends("b")
    assert capacity.turns({"a"}, 60.0 + RESERVED) == ["a"]


def test_no_ping_is_sent_under_a_limit_while_requests_wait() -> None:
    capacity = serving(36, limit=4)
    capacity.short_sent("a", 0.0)

    assert capacity.ask("m1", STALLED) == Poll(POLL)
    short(capacity, STALLED + 1.0)
    assert capacity.ask("m1", STALLED + 2.0) == Hold(TRIAL)


def test_the_number_that_failed_is_tried_again_after_growing_waits() -> None:
    capacity = full()
    for name in ("m0", "m1", "m2", "m3", "last"):
        capacity.ping_answered(name, 61.0)
    now, tries = 62.0, []
    for _ in range(7):
        began = now
        hold(capacity, "m0", "m1", "m2", "m3", now=now)
        while capacity.limit == 4:
            assert capacity.ask("waiting", now) == Poll(POLL)
            now += 1.0
            hold(capacity, "m0", "m1", "m2", "m3", now=now)
        tries.append(now - began)
        assert capacity.ask("waiting", now) == Hold(TRIAL)
        capacity.ping_sent("waiting", now)
        assert fail(capacity, "a", now + 1.0)
        assert capacity.limit == 4
        capacity.ping_answered("waiting", now + 61.0)
        capacity.ping_answered("m0", now + 61.0)
        now += 62.0

    assert tries == sorted(tries)
    assert tries[0] == pytest.approx(RETRY_FIRST, abs=5.0)
    assert tries[1] == pytest.approx(2 * RETRY_FIRST, abs=65.0)
    assert tries[-1] == pytest.approx(RETRY_LONGEST, abs=65.0)


def test_the_limit_grows_fast_where_nothing_failed_and_is_dropped_in_the_end() -> None:
    capacity = serving(60, limit=8)
    now, held = 0.0, 0
    while capacity.crowded:
        now += 1.0
        assert now < 1000.0
        name = f"m{held}"
        if isinstance(capacity.ask(name, now), Hold):
            hold(capacity, name, now=now)
            held += 1
        short(capacity, now + 0.5)
    assert RETRY_FIRST < now < 3 * RETRY_FIRST
    while held < 60:
        now += 1.0
        assert isinstance(capacity.ask(f"m{held}", now), Hold)
        hold(capacity, f"m{held}", now=now)
        held += 1

    assert capacity.limit is not None
    assert capacity.ask("m0", now + FORGOTTEN) == Hold()
    assert capacity.limit is None


def test_others_that_take_workers_lower_the_limit() -> None:
    capacity = serving(36, limit=16)
    for number in range(16):
        capacity.ask(f"m{number}", float(number))
        hold(capacity, f"m{number}", now=float(number))

    assert fail(capacity, "a", 20.0)

    assert capacity.limit == 14


def test_after_a_restart_nothing_is_proven() -> None:
    capacity = serving(36)
    hold(capacity, "m1", "m2", "m3", "m4")
    assert capacity.ask("m5", 1.0) == Hold(TRIAL)
    for name in ("m1", "m2", "m3", "m4"):
        capacity.ping_over(name, 2.0)
        capacity.ping_lost()
    assert capacity.ask("m1", 3.0) == Hold(TRIAL)
    hold(capacity, "m1", "m2", now=3.0)
    capacity.ping_answered("m1", 4.0)
    assert capacity.ask("m1", 5.0) == Hold()
    capacity.lost()
    assert capacity.ask("m1", 5.0) == Hold(TRIAL)


def test_polls_take_a_part_of_one_worker_only() -> None:
    capacity = serving(1001, limit=1)
    for n in range(200):
        short(capacity, float(n), 1.0)

    assert capacity.interval == pytest.approx(2000.0, rel=0.01)
    assert serving(3, limit=2).describe("mail.example.com").endswith(": 1 mailbox is polled every 90 s, in turns")
    assert serving(3, limit=0).describe("mail.example.com") == (
        "mail.example.com has no worker for Pings: 3 mailboxes are polled every 90 s, in turns"
    )
    assert PROMPT > 1.0


def test_a_request_that_was_never_sent_says_nothing() -> None:
    capacity = serving(3)
    capacity.short_answered("a", 1.0)
    capacity.ping_over("a", 1.0)
    capacity.ping_answered("a", 1.0)

    assert capacity.limit is None
