"""Requests with a Kerberos ticket: each has a new token and a connection of its own.

For a server, a connection may stay that of the user who authenticated on it (IIS does so unless authPersistNonNTLM is
off): the server would answer the next request in that user's name, even if it belongs to another mailbox. So the
transport must keep no connection, as `open_transport(reuse=False)` does.
"""

from dataclasses import replace
from typing import Final, Protocol

from eas_watcher.auth.negotiate import header, read_refusal, target_of
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import EasError
from eas_watcher.ports import Transport
from eas_watcher.transport.holding import HoldsInTask

UNAUTHORIZED: Final = 401


class Ticket(Protocol):
    """One token for one request."""

    @property
    def token(self) -> bytes:
        """The token of GSSAPI's mechanism Kerberos."""

    @property
    def fresh(self) -> bool:
        """True if it came from the KDC for this request."""


class Tickets(Protocol):
    """The tickets of one user."""

    async def get(self, service: str) -> Ticket:
        """Return a token for one request to a service such as HTTP@mail.example.com; raises EasError."""

    def forget(self) -> None:
        """Drop all tickets."""


class NegotiateTransport(HoldsInTask):
    """The transport of one mailbox with its user's tickets.

    When the server refuses a ticket of an earlier request, the request goes out once more with a new ticket: the mail
    server's key may have changed, and no server locks an account for a ticket as it does for a wrong password.
    """

    __slots__ = ("_tickets", "_transport")

    def __init__(self, transport: Transport, tickets: Tickets) -> None:
        """Send through `transport`, which must use no connection twice, with the tickets of one user."""
        self._transport = transport
        self._tickets = tickets

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any answer but 401, for which it raises AccessDenied with the server's own text.

        Raises CredentialVoid, AccessDenied and Unreachable for the KDC.
        """
        service = target_of(request.url)
        ticket = await self._ticket(service)
        reply = await self._send(request, ticket)
        if reply.status == UNAUTHORIZED and not ticket.fresh:
            self._tickets.forget()
            reply = await self._send(request, await self._ticket(service))
        if reply.status != UNAUTHORIZED:
            return reply
        self._tickets.forget()
        raise read_refusal(reply.headers.get("www-authenticate", ""))

    async def _ticket(self, service: str) -> Ticket:
        """Return a ticket; an error of the KDC says nothing about the mail server."""
        try:
            return await self._tickets.get(service)
        except EasError as error:
            error.elsewhere = True
            raise

    async def _send(self, request: HttpRequest, ticket: Ticket) -> HttpReply:
        headers = {**request.headers, "Authorization": header(ticket.token)}
        return await self._transport.send(replace(request, headers=headers))
