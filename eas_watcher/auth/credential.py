"""The port of all credentials: what every kind of them can say without a request.

A kind that needs a request first (an access token) or a connection of its own (a client certificate) has a transport
that wraps the one to the server; see `eas_watcher.transport.bearer` and `.client_certificate`.
"""

from typing import Protocol

from eas_watcher.errors import EasError


class UnusableCredential(EasError):
    """A credential cannot be sent; the text names the fault, never the credential."""


class Credential(Protocol):
    """Identifies a user to a server."""

    @property
    def user(self) -> str:
        """The login name."""

    def authorization(self) -> str | None:
        """Return the value of the Authorization header of all requests; None: the transport identifies the user."""
