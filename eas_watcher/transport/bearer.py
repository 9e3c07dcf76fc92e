"""Own requests that carry an access token: got before the request, replaced once when the server refuses it."""

import asyncio
from dataclasses import replace
from typing import Final

from eas_watcher.auth.bearer import describe, read_challenge
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import Unauthorized
from eas_watcher.ports import HttpRequest, Transport
from eas_watcher.transport.tokens import AccessToken, Tokens

UNAUTHORIZED: Final = 401
FRESH: Final = 30.0  # seconds; a token so young was not overtaken by a revocation, so another will not help


class BearerTransport:
    """Carry the requests of one mailbox with its access token.

    A refused token that is not fresh is replaced and the request sent again, once: the server did nothing but look at
    the token, and no account is locked for a stale token as it would be for a wrong password.
    """

    __slots__ = ("_tokens", "_transport")

    def __init__(self, transport: Transport, tokens: Tokens) -> None:
        """Take the transport to the server and the tokens of one grant."""
        self._transport = transport
        self._tokens = tokens

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any answer but 401, for which it raises Unauthorized with what the server says about its tokens.

        Raises also what the token endpoint leads to: CredentialVoid, AccessDenied, ServerBusy, Unreachable.
        """
        token = await self._tokens.get(request.deadline)
        reply = await self._send(request, token)
        if reply.status == UNAUTHORIZED and asyncio.get_running_loop().time() - token.issued_at > FRESH:
            token = await self._tokens.replace(token)
            reply = await self._send(request, token)
        if reply.status != UNAUTHORIZED:
            return reply
        self._tokens.forget(token)
        challenge = read_challenge(reply.headers.get("www-authenticate", ""))
        if challenge is None:
            raise Unauthorized("the server refuses the access token and offers no bearer authentication (HTTP 401)")
        raise Unauthorized(describe(challenge, self._tokens.endpoint.client.token_endpoint))

    async def _send(self, request: HttpRequest, token: AccessToken) -> HttpReply:
        headers = {**request.headers, "Authorization": f"Bearer {token.value}"}
        return await self._transport.send(replace(request, headers=headers))
