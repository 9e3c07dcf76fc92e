"""What a push says, read alike from APNs, FCM and WebPush. A push is a hint to sync, never a count to add up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NewItems:
    """Something new may be in the folders of a class: sync it with the company's own server."""

    registration: str
    cls: str
    count: int
    certain: bool


@dataclass(frozen=True, slots=True)
class Attention:
    """The relay had to stop. Ask the relay (`App.opened`) what to do; `reason` only chooses the words of a banner."""

    registration: str
    certain: bool
    """False: the mail server may be at fault; offer the login only to a user who changed the password."""
    reason: str | None
    """`wiped`, `credential`, `blocked` or a word of a later relay; None: the relay gave none."""


@dataclass(frozen=True, slots=True)
class TestPush:
    """A test push that was asked for."""

    __test__ = False  # not a test for pytest
    registration: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """The relay asks whether this phone holds the device token: give the nonce back (`App.received` does)."""

    registration: str
    nonce: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A kind of a later relay. Show nothing; sync, since something may be new."""

    registration: str
    kind: str


Push = NewItems | Attention | TestPush | Challenge | Unknown


# region read-push
def read_push(data: Mapping[str, Any]) -> Push | None:
    """Return what a push says; None: the push is not from the relay, or was damaged.

    `data` is the data of an FCM message (all values are strings), the decrypted JSON of a WebPush message, or the
    `userInfo` of a notification of APNs, whose part `relay` counts.
    """
    relay = data.get("relay", data)
    part: Mapping[str, Any] = relay if isinstance(relay, Mapping) else {}
    registration, kind = _text(part, "registration"), _text(part, "kind")
    if registration is None or kind is None:
        return None
    certain = part.get("certain") not in (False, "false")
    match kind:
        case "new-items":
            return NewItems(registration, _text(part, "class") or "email", _count(part.get("count")), certain)
        case "attention":
            return Attention(registration, certain, _text(part, "reason"))
        case "test":
            return TestPush(registration)
        case "challenge" if nonce := _text(part, "nonce"):
            return Challenge(registration, nonce)
        case _:
            return Unknown(registration, kind)


# endregion


def read_push_id(data: Mapping[str, Any]) -> str | None:
    """Return the id of a push, for `Api.shown`; None: the relay wants no receipt of it."""
    relay = data.get("relay", data)
    return _text(relay, "id") if isinstance(relay, Mapping) else None


def _text(part: Mapping[str, Any], name: str) -> str | None:
    value = part.get(name)
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int:
    """Return a count that a badge may show: at least 1, whatever came."""
    digits = str(value)
    return max(1, int(digits)) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 1  # noqa: PLR2004 - 9 digits fit every int
