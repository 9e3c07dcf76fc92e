"""Own why the API may refuse what an app asks for; one class per remedy, the text never holds a secret or a token."""

import math

from relay.domain.errors import RelayError


class InvalidRequest(RelayError):
    """Name every field that cannot be what it is; `faults` are (field as a path with dots, what is wrong)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {detail}" for field, detail in faults))
        self.faults = faults


class NotAuthorized(RelayError):
    """Tell that no registration opens with this id and secret; which of the two is wrong is never told."""


class CredentialRefused(RelayError):
    """Tell that the mailbox's server refused user or password, or does not let this user use ActiveSync."""


class UnknownServer(RelayError):
    """Tell that no configured server is meant by the name, or serves the domain of the address."""


class UnknownApp(RelayError):
    """Tell that the relay has no right to push to this app on this platform."""


class UnsupportedDevice(RelayError):
    """Tell that a device token does not look like one of its platform, or that its environment does not exist there."""


class OtherMailbox(RelayError):
    """Tell that a new credential names another user: a registration keeps its mailbox for ever."""


class UnsupportedCredential(RelayError):
    """Tell that the mailbox's server takes no credentials of this kind."""


class NotActive(RelayError):
    """Tell that the registration cannot be pushed to in its present state."""


class Replaced(RelayError):
    """Tell that the registration was removed, or replaced by a later one, while its verdict was waited for."""


class TooManyRefusals(RelayError):
    """Tell that so many credentials of a mailbox were refused lately that one more could lock the user out."""

    def __init__(self, seconds: float) -> None:
        """Take after how many seconds another try is harmless."""
        super().__init__("too many credentials were refused for this mailbox; wait before the next try")
        self.retry_after = max(1, math.ceil(seconds))


class TooManyRequests(RelayError):
    """Tell that one client address asks too often."""

    def __init__(self, seconds: float) -> None:
        """Take after how many seconds the next request is welcome."""
        super().__init__("too many registrations from this address; wait before the next one")
        self.retry_after = max(1, math.ceil(seconds))
