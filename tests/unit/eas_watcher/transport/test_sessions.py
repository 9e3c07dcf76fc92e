import ssl
from typing import cast

import pytest

from eas_watcher.transport.sessions import OLDEST, Sessions
from eas_watcher.transport.target import Endpoint

HERE, THERE = Endpoint("mail.example.com", 443), Endpoint("mail.example.com", 8443)


class Session:
    """What a session shows of itself."""

    def __init__(self, *, ticket: bool = True, id_: bytes = b"") -> None:
        self.has_ticket = ticket
        self.id = id_


class Connected:
    """A connection with a session, an error instead of one, or none."""

    def __init__(self, session: Session | Exception | None) -> None:
        self._session = session

    @property
    def session(self) -> Session | None:
        if isinstance(self._session, Exception):
            raise self._session
        return self._session


def connected(session: Session | Exception | None) -> ssl.SSLObject:
    return cast("ssl.SSLObject", Connected(session))


def test_a_session_is_resumed_at_its_own_endpoint_until_it_is_old() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    sessions.keep(HERE, connected(Session()))

    assert isinstance(sessions.get(HERE), Session)
    assert sessions.get(THERE) is None
    now = OLDEST - 1.0
    assert isinstance(sessions.get(HERE), Session)
    now = OLDEST
    assert sessions.get(HERE) is None
    now = 0.0
    assert sessions.get(HERE) is None


@pytest.mark.parametrize("session", [None, Session(ticket=False), ValueError("i2d() failed")])
def test_what_cannot_be_resumed_is_not_kept(session: Session | Exception | None) -> None:
    sessions = Sessions(lambda: 0.0)
    sessions.keep(HERE, connected(session))

    assert sessions.get(HERE) is None


def test_a_session_is_forgotten_when_a_handshake_fails() -> None:
    sessions = Sessions(lambda: 0.0)
    sessions.keep(HERE, connected(Session(ticket=False, id_=b"1")))
    assert sessions.get(HERE) is not None
    sessions.forget(HERE)
    sessions.forget(HERE)

    assert sessions.get(HERE) is None
