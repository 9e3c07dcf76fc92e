"""Who is logged in to the console: sessions in the memory of one process, few and short. Pure."""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

IDLE: Final = timedelta(minutes=15)
"""A session ends so long after its last request that a person made; a screen is left alone for longer than that."""
LONGEST: Final = timedelta(hours=8)
"""A session ends so long after its login whatever happens: a working day."""
MOST: Final = 256  # sessions of a process; the one that was used longest ago ends for the next
MOST_OF_ONE: Final = 16  # sessions of one person


@dataclass(slots=True)
class Wanted:
    """What a person looked for last among the mailboxes; it is kept here because an address is no place for a user."""

    user: str = ""
    server: str = ""
    state: str = ""


@dataclass(slots=True)
class Session:
    """One browser of one person."""

    name: str
    """The name of the person, as the audit log has it."""
    proof: bytes = field(repr=False)
    """What the person logged in by: the digest of the token; empty: a proxy named them."""
    form_token: str = field(repr=False)
    """What each form of this session must carry."""
    began: datetime
    used: datetime
    wanted: Wanted = field(default_factory=Wanted)
    notice: tuple[bool, str] | None = None
    """What became of the last act, for the next page: whether it was done, and the words."""

    def shows(self, form_token: str) -> bool:
        """Return True if a form has the token of this session; how long this takes tells nothing of it."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode(errors="replace"))


class Sessions:
    """All sessions of a process, by the hash of what the browser's cookie has."""

    def __init__(self, secret: Callable[[], str], clock: Callable[[], datetime]) -> None:
        """Start without sessions; `secret` returns a new random text that cannot be guessed."""
        self._secret = secret
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        """Return how many sessions there are, those that have run out among them until somebody asks."""
        return len(self._sessions)

    def begin(self, name: str, proof: bytes) -> tuple[str, Session]:
        """Begin a session; return what the cookie has, which is kept nowhere else."""
        now = self._clock()
        self._clear(now)
        mine = [key for key, session in self._sessions.items() if session.name == name]
        if len(mine) >= MOST_OF_ONE:
            del self._sessions[mine[0]]
        elif len(self._sessions) >= MOST:
            self._sessions.popitem(last=False)
        cookie = self._secret()
        session = self._sessions[_key(cookie)] = Session(name, proof, self._secret(), now, now)
        return cookie, session

    def find(self, cookie: str, *, touch: bool = True) -> Session | None:
        """Return the session of a cookie; None: it has ended. Without `touch` the look does not prolong it."""
        now, key = self._clock(), _key(cookie)
        session = self._sessions.get(key)
        if session is None:
            return None
        if _is_over(session, now):
            del self._sessions[key]
            return None
        if touch:
            session.used = now
            self._sessions.move_to_end(key)
        return session

    def end(self, cookie: str) -> None:
        """End the session of a cookie, if there is one."""
        self._sessions.pop(_key(cookie), None)

    def clear(self) -> None:
        """End all sessions."""
        self._sessions.clear()

    def _clear(self, now: datetime) -> None:
        for key in [key for key, session in self._sessions.items() if _is_over(session, now)]:
            del self._sessions[key]


def _is_over(session: Session, now: datetime) -> bool:
    return now - session.used >= IDLE or now - session.began >= LONGEST


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="surrogateescape")).digest()
