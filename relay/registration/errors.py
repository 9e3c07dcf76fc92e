"""The refusals of the API: one class per remedy. The text never has a secret or a device token."""

import math
from typing import Final

from relay.domain.errors import RelayError
from relay.domain.model import Ending


class InvalidRequest(RelayError):
    """Some fields are missing or wrong; `faults` are (field as a path with dots, what is wrong)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {detail}" for field, detail in faults))
        self.faults = faults


class FieldRefused(RelayError):
    """The request is well formed, but the relay cannot do what one of its fields asks for."""

    def __init__(self, text: str, field: str) -> None:
        """Set up with what is wrong, and the field as a path with dots."""
        super().__init__(text)
        self.field = field


class NotAuthorized(RelayError):
    """No registration has this id and secret; the text never says which of the two is wrong."""


class NoSecret(NotAuthorized):
    """The request shows no secret."""


class Wiped(RelayError):
    """The caller's registration ended because an administrator wiped the device."""


class Gone(RelayError):
    """The caller's registration ended in another way; `ending` says which."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(_ENDINGS[ending])
        self.ending = ending


_ENDINGS: Final = {
    Ending.WIPED: "the device was wiped",
    Ending.REMOVED: "it was removed with its secret",
    Ending.REPLACED: "the same app on the same device registered again",
    Ending.EXPIRED: "it was of no use for too long",
}


class CredentialRefused(FieldRefused):
    """The mailbox's server refused user or password, or does not permit ActiveSync to this user."""


class MailboxWiped(RelayError):
    """An administrator wiped the mailbox's device, and must allow new registrations first; no registration is left."""


class EnrolmentRefused(RelayError):
    """The request shows nothing that lets its device register; the text never repeats what it shows."""


class UnknownServer(FieldRefused):
    """No configured server has the name, or serves the domain of the address."""


class UnknownApp(FieldRefused):
    """The relay may not push to this app on this platform."""


class UnsupportedDevice(FieldRefused):
    """A device token does not look like one of its platform, or its environment does not exist there."""


class OtherMailbox(FieldRefused):
    """A new credential names another user; a registration never changes its mailbox."""


class UnsupportedCredential(FieldRefused):
    """The mailbox's server accepts no credentials of this kind."""


class NotActive(RelayError):
    """The registration gets no pushes in its present state."""


class KeyReused(FieldRefused):
    """The `Idempotency-Key` of a POST made a registration with another credential before."""


class Replaced(RelayError):
    """The registration was removed, or replaced by a later one, while the API waited for the verdict."""


class TooManyRefusals(RelayError):
    """So many credentials of a mailbox were refused recently that one more could lock the user out."""

    def __init__(self, seconds: float) -> None:
        """Set up with the seconds until another try is safe."""
        super().__init__(
            "too many credentials of this mailbox were refused, or wait for an answer; wait before the next try"
        )
        self.retry_after = max(1, math.ceil(seconds))


class Busy(RelayError):
    """As many requests are being served as the relay serves at once, or as many certificates wait to be read."""


class TooManyTests(RelayError):
    """A registration asks for test pushes too often."""

    def __init__(self, seconds: float) -> None:
        """Set up with the seconds until the next test push is allowed."""
        super().__init__("a test push was asked for a moment ago; wait before the next one")
        self.retry_after = max(1, math.ceil(seconds))


class WrongProof(RelayError):
    """The nonce is not that of the registration's last challenge, or came too late."""


class TooManyChallenges(RelayError):
    """A registration asks for challenges too often."""

    def __init__(self, seconds: float) -> None:
        """Set up with the seconds until the next challenge is allowed."""
        super().__init__("a challenge was asked for a moment ago; wait before the next one")
        self.retry_after = max(1, math.ceil(seconds))


class NoSuchTest(RelayError):
    """The registration has no test push of this id, or had it so long ago that it is forgotten."""


class TooManyRequests(RelayError):
    """One client address asks too often."""

    what = "too many requests from this address"

    def __init__(self, seconds: float) -> None:
        """Set up with the seconds until the next request is allowed."""
        super().__init__(f"{self.what}; wait before the next one")
        self.retry_after = max(1, math.ceil(seconds))


class TooManyRegistrations(TooManyRequests):
    """One client address asks for new registrations too often."""

    what = "too many new registrations from this address"


class TooManyOfRegistration(TooManyRequests):
    """The app of one registration asks too often."""

    what = "too many requests for this registration"
