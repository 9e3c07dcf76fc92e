from itertools import count

import pytest

from relay.console.sessions import IDLE, LONGEST, MOST, MOST_OF_ONE, Sessions
from tests.fakes.ops import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def sessions(clock: HandClock) -> Sessions:
    numbers = count(1)
    return Sessions(lambda: f"secret-{next(numbers)}", clock)


def test_a_cookie_finds_its_session_and_no_other_does(sessions: Sessions) -> None:
    cookie, session = sessions.begin("helpdesk", b"digest")

    assert sessions.find(cookie) is session
    assert sessions.find("secret-99") is None
    assert sessions.find("\udcff") is None
    assert cookie not in repr(session)
    assert session.form_token not in repr(session)


def test_the_token_of_a_form_is_that_of_its_session(sessions: Sessions) -> None:
    _, session = sessions.begin("helpdesk", b"digest")

    assert session.shows(session.form_token)
    assert not session.shows("")
    assert not session.shows("\udcff")


def test_a_session_that_nobody_uses_ends(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = sessions.begin("helpdesk", b"digest")
    clock.forward(IDLE.total_seconds() - 1)
    assert sessions.find(cookie) is not None

    clock.forward(IDLE.total_seconds())

    assert sessions.find(cookie) is None
    assert len(sessions) == 0


def test_a_page_that_asks_by_itself_prolongs_nothing(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = sessions.begin("helpdesk", b"digest")
    clock.forward(IDLE.total_seconds() - 1)
    assert sessions.find(cookie, touch=False) is not None

    clock.forward(1)

    assert sessions.find(cookie) is None


def test_a_session_ends_after_a_working_day_however_much_it_is_used(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = sessions.begin("helpdesk", b"digest")
    for _ in range(int(LONGEST / IDLE) * 2 - 1):
        clock.forward(IDLE.total_seconds() / 2)
        assert sessions.find(cookie) is not None

    clock.forward(IDLE.total_seconds() / 2)

    assert sessions.find(cookie) is None


def test_a_session_that_was_ended_is_found_no_more(sessions: Sessions) -> None:
    cookie, _ = sessions.begin("helpdesk", b"digest")
    other, _ = sessions.begin("helpdesk", b"digest")

    sessions.end(cookie)
    sessions.end("unknown")

    assert sessions.find(cookie) is None
    assert sessions.find(other) is not None
    sessions.clear()
    assert sessions.find(other) is None


def test_one_person_takes_few_sessions_and_ends_their_own_first(sessions: Sessions) -> None:
    other, _ = sessions.begin("ann", b"")
    cookies = [sessions.begin("ben", b"")[0] for _ in range(MOST_OF_ONE + 1)]

    assert len(sessions) == MOST_OF_ONE + 1
    assert sessions.find(other) is not None
    assert sessions.find(cookies[0]) is None
    assert sessions.find(cookies[1]) is not None


def test_the_session_used_longest_ago_makes_room(sessions: Sessions) -> None:
    cookies = [sessions.begin(f"person-{number}", b"")[0] for number in range(MOST)]
    sessions.find(cookies[0])

    sessions.begin("one more", b"")

    assert len(sessions) == MOST
    assert sessions.find(cookies[0]) is not None
    assert sessions.find(cookies[1]) is None


def test_sessions_that_have_ended_make_room_first(sessions: Sessions, clock: HandClock) -> None:
    for number in range(5):
        sessions.begin(f"person-{number}", b"")
    clock.forward(IDLE.total_seconds())

    sessions.begin("one more", b"")

    assert len(sessions) == 1
