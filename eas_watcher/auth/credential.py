"""Own the port of all credentials: what every kind of them can say without asking anybody.

What needs a question first (an access token) or another connection (a client certificate) is done by a transport of
that kind, which wraps the one to the server; see `eas_watcher.transport.bearer` and `.identified`.
"""

from typing import Protocol

from eas_watcher.errors import EasError


class UnusableCredential(EasError):
    """Tell that a credential cannot be sent as it is; the text names the fault, never the credential."""


class Credential(Protocol):
    """Prove to a server who we are."""

    @property
    def user(self) -> str:
        """The login name."""

    def authorization(self) -> str | None:
        """Write the value of the Authorization header that all requests have; None: the transport proves who we are."""
