"""Who may register besides the credential: an administrator's keys, client certificates of the company's CA, or all."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from relay.registration.errors import EnrolmentRefused, InvalidRequest
from relay.registration.identity import normalise


class EnrolmentMode(StrEnum):
    """What a registration must show; the API names the values."""

    OPEN = "open"
    """Nothing: the credential decides."""
    KEY = "key"
    """A secret that the administrator hands out to devices."""
    MTLS = "mtls"
    """A client certificate whose name is the user."""


OPEN: Final = (frozenset({EnrolmentMode.OPEN}),)
_WORDS: Final = {
    EnrolmentMode.KEY: "the header Enrolment-Key with a key of the administrator",
    EnrolmentMode.MTLS: "a client certificate of the company that names this user",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows of its device, besides its body."""

    key: str | None = field(default=None, repr=False)
    """None: the request has no key."""
    names: frozenset[str] | None = None
    """The users that a verified client certificate names; None: the connection has none."""


NOTHING: Final = Shown()


class Enrolment:
    """Admits registrations that show what one of the alternatives demands."""

    def __init__(self, alternatives: Sequence[frozenset[EnrolmentMode]] = OPEN, keys: Iterable[str] = ()) -> None:
        """Set up with the alternatives, each of which names what is demanded together, and the keys that are valid."""
        self.alternatives = tuple(alternatives)
        self._digests = tuple(_digest(key) for key in keys)

    def admit(self, shown: Shown) -> None:
        """Raise EnrolmentRefused for a request that no body can save: it is asked before the body is read."""
        self._check(self._proved(shown, certified=shown.names is not None))

    def check(self, shown: Shown, mailbox: str, user: str | None) -> None:
        """Raise EnrolmentRefused unless the request may register this user; InvalidRequest for a user that is none.

        Without a `user` the mailbox is the user.
        """
        if self.alternatives == OPEN:
            return
        certified = shown.names is not None and _names(shown.names, mailbox, user)
        self._check(self._proved(shown, certified=certified))

    def _proved(self, shown: Shown, *, certified: bool) -> frozenset[EnrolmentMode]:
        proved = {EnrolmentMode.OPEN}
        if self._is_valid(shown.key):
            proved.add(EnrolmentMode.KEY)
        if certified:
            proved.add(EnrolmentMode.MTLS)
        return frozenset(proved)

    def _check(self, proved: frozenset[EnrolmentMode]) -> None:
        if any(demanded <= proved for demanded in self.alternatives):
            return
        each = (" and ".join(_WORDS[mode] for mode in sorted(demanded)) for demanded in self.alternatives)
        raise EnrolmentRefused(f"a registration needs {', or '.join(each)}")

    def _is_valid(self, key: str | None) -> bool:
        """Compare with every key, in a time that depends on none."""
        digest, valid = _digest(key or ""), False
        for each in self._digests:
            valid |= hmac.compare_digest(digest, each)
        return valid and key is not None


def _digest(key: str) -> bytes:
    """Return the hash of a key; a header may hold any bytes, which come as lone surrogates where they are no UTF-8."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _names(names: frozenset[str], mailbox: str, user: str | None) -> bool:
    r"""Return True if a certificate with these names is one of the login user.

    A user who is an address must be one of the names. Another one (ann, EXAMPLE\ann) must be the account in a name, and
    the mailbox that name: else the certificate of one user would open the mailbox of another.
    """
    known = {name.strip().casefold() for name in names}
    address = _normal("mailbox", mailbox)
    login = address if user is None else _normal("credential.user", user)
    account = login.rpartition("\\")[2]
    if account in known:
        return True
    return "@" not in account and address in known and account in {name.partition("@")[0] for name in known}


def _normal(field_name: str, user: str) -> str:
    try:
        return normalise(user).casefold()
    except ValueError as error:
        raise InvalidRequest([(field_name, str(error))]) from error
