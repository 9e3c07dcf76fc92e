"""Basic authentication: user and password in UTF-8, sent without waiting for a challenge."""

from binascii import b2a_base64
from dataclasses import dataclass, field
from unicodedata import category

from eas_watcher.auth.credential import UnusableCredential


@dataclass(frozen=True, slots=True)
class BasicCredential:
    """User and password [RFC 7617 2]; the user must not contain a colon, the password may."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raise UnusableCredential for values that a server could not read."""
        if not self.user or ":" in self.user:
            raise UnusableCredential("a user name for Basic authentication is not empty and has no colon")
        if any(category(character) == "Cc" for character in self.user + self.password):
            raise UnusableCredential("user name and password have no control characters [RFC 7617 2]")

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        return "Basic " + b2a_base64(f"{self.user}:{self.password}".encode(), newline=False).decode("ascii")
