"""Own requests that carry a Kerberos ticket: a new token for each, over connections that no other request uses.

A server may hold that a connection once authenticated stays its user's (IIS does unless authPersistNonNTLM is off): the
next request on it would be answered in that user's name, whoever sent it. So the transport below must keep no
connection; `open_transport(reuse=False)` gives such a one.
"""

from dataclasses import replace
from typing import Final, Protocol

from eas_watcher.auth.negotiate import header, read_refusal, target_of
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.ports import Transport

UNAUTHORIZED: Final = 401


class Ticket(Protocol):
    """Be one token for one request."""

    @property
    def token(self) -> bytes:
        """The token of GSSAPI's mechanism Kerberos."""

    @property
    def fresh(self) -> bool:
        """Whether it was got from the KDC for this request."""


class Tickets(Protocol):
    """Keep one user's tickets."""

    async def get(self, service: str) -> Ticket:
        """Return a token for one request to a service such as HTTP@mail.example.com; raises EasError."""

    def forget(self) -> None:
        """Use the tickets got so far no more."""


class NegotiateTransport:
    """Carry the requests of one mailbox with its user's tickets.

    A refused ticket that was got before is replaced and the request sent again, once: the mail server's key may have
    changed since, and no account is locked for a ticket as it would be for a wrong password.
    """

    __slots__ = ("_tickets", "_transport")

    def __init__(self, transport: Transport, tickets: Tickets) -> None:
        """Take a transport that uses no connection twice, and the tickets of one user."""
        self._transport = transport
        self._tickets = tickets

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any answer but 401, for which it raises AccessDenied with what the server says about it.

        Raises also what the KDC leads to: CredentialVoid, AccessDenied, Unreachable.
        """
        service = target_of(request.url)
        ticket = await self._tickets.get(service)
        reply = await self._send(request, ticket)
        if reply.status == UNAUTHORIZED and not ticket.fresh:
            self._tickets.forget()
            reply = await self._send(request, await self._tickets.get(service))
        if reply.status != UNAUTHORIZED:
            return reply
        self._tickets.forget()
        raise read_refusal(reply.headers.get("www-authenticate", ""))

    async def _send(self, request: HttpRequest, ticket: Ticket) -> HttpReply:
        headers = {**request.headers, "Authorization": header(ticket.token)}
        return await self._transport.send(replace(request, headers=headers))
