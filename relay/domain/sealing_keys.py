"""The sealing keys that processes have, named by their ids of 16 hex digits: where each is from, and who has which."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from relay.domain.model import Role


class KeyOrigin(StrEnum):
    """Where a private key is from."""

    FILE = "file"
    CREDENTIAL = "credential"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class KeySource:
    """A private key that this process has, and where it is from."""

    id: str
    origin: KeyOrigin
    where: str
    """A path, or the name of a variable after `environment:`."""
    made_at: datetime | None
    """When its file was written last; None: unknown."""


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A process with sealing keys."""

    node: str
    role: Role
    opens: frozenset[str]
    """The keys whose private half it has."""
    seals: str
    """The key that it seals with; empty for a process that has not said it."""
    leased: bool = True
    """False for a watch process without a lease of mailboxes: it starts, or was killed and counts as gone soon."""

    @property
    def watches(self) -> bool:
        """True if it opens credentials."""
        return self.role in {Role.ALL, Role.WATCH}

    @property
    def registers(self) -> bool:
        """True if it seals what apps send."""
        return self.role in {Role.ALL, Role.API}


def without(holders: Collection[KeyHolder], key: str) -> tuple[KeyHolder, ...]:
    """Return the watch processes that do not open a key, in the order of their names.

    What is sealed for it they could not use.
    """
    lacking = [each for each in holders if each.watches and key not in each.opens]
    return tuple(sorted(lacking, key=lambda each: each.node))


def named(holders: Collection[KeyHolder], *, leased: bool) -> str:
    """Return the names of those that have a lease of mailboxes, or of those that have none, as words for operators."""
    return ", ".join(sorted(each.node for each in holders if each.leased is leased))
