"""What apps may ask of this relay, from its settings alone: no answer depends on which mailboxes it knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.domain.model import Platform
from relay.registration.credentials import DEFAULT
from relay.registration.enrolment import Enrolment
from relay.registration.errors import InvalidRequest, UnknownServer
from relay.registration.identity import ServerDirectory, normalise
from relay.security.credentials import CredentialKind


@dataclass(frozen=True, slots=True)
class OAuthFacts:
    """What an app needs to get a grant for the relay; none of it is secret."""

    token_endpoint: str
    client_id: str
    scope: str = ""
    audience: frozenset[str] = frozenset()
    authorization_endpoint: str = ""
    """Where a user signs in, who then comes back with a code; empty: the relay takes no codes."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What an app may know of a mail server before it has a registration."""

    credentials: frozenset[CredentialKind] = DEFAULT
    oauth: OAuthFacts | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the settings say about the whole relay, and about the server that a mailbox would go to."""

    directory: ServerDirectory
    version: str = ""
    apps: Mapping[Platform, frozenset[str]] = field(default_factory=dict)
    services: frozenset[str] = frozenset()
    """The push services that WebPush may use."""
    servers: Mapping[str, ServerFacts] = field(default_factory=dict)
    """By name; a server that is not here, as those that Autodiscover finds, takes passwords."""
    enrolment: Enrolment = field(default_factory=Enrolment)
    invites: bool = False
    """True if a registration needs an invitation of its user."""
    receipts: bool = True
    """True if pushes have ids by which apps may say that they showed them."""

    def server_of(self, mailbox: str | None, name: str | None) -> tuple[str, ServerFacts] | None:
        """Return the server that a registration of this mailbox would go to; None: no server takes it.

        Raises InvalidRequest for a mailbox that is none. Nothing is asked of the database or of a mail server.
        """
        try:
            address = "" if mailbox is None else normalise(mailbox)
        except ValueError as error:
            raise InvalidRequest([("mailbox", str(error))]) from error
        try:
            found = self.directory.find(name, address)
        except UnknownServer:
            return None
        return found, self.servers.get(found, ServerFacts())
