"""No credential: for requests that show how a server treats clients that do not log in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NoCredential:
    """A login name without anything that proves it."""

    user: str
    header: str | None = None
    """The value of the Authorization header, for a scheme named without its credential; None: no header."""

    def authorization(self) -> str | None:
        """Return the value of the Authorization header; None: there is none."""
        return self.header
