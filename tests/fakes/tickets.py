"""Tickets without a KDC: readable, numbered, and valid until the mail server's key changes."""

from dataclasses import dataclass, field

from eas_watcher.errors import EasError


@dataclass(frozen=True)
class FakeTicket:
    token: bytes
    fresh: bool


@dataclass
class FakeTickets:
    """The tickets of one user."""

    user: str
    realm: "FakeRealm"
    _held: int | None = None

    async def get(self, service: str) -> FakeTicket:
        if self.realm.failure is not None:
            raise self.realm.failure
        fresh = self._held is None
        if self._held is None:
            self._held = self.realm.key
            self.realm.given.append((self.user, service))
        self.realm.tokens += 1
        return FakeTicket(f"ticket of {self.user} for key {self._held}, {self.realm.tokens}".encode(), fresh)

    def forget(self) -> None:
        self._held = None


@dataclass
class FakeRealm:
    """A realm that issues tickets, and tells a server to which user a ticket belongs."""

    key: int = 1
    """The mail server's key; it refuses tickets for another key."""
    failure: EasError | None = None
    tokens: int = 0
    given: list[tuple[str, str]] = field(default_factory=list)
    """The tickets that were issued: user, service."""

    def tickets(self, user: str) -> FakeTickets:
        return FakeTickets(user, self)

    def user_of(self, token: bytes) -> str | None:
        user, _, rest = token.partition(b"ticket of ")[2].partition(b" for key ")
        return user.decode() if rest.startswith(f"{self.key},".encode()) else None
