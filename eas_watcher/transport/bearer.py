"""Requests with an access token, which is replaced once when the server refuses it."""

import asyncio
from dataclasses import replace
from typing import Final

from eas_watcher.auth.bearer import describe, read_challenge, read_diagnostics
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, Unauthorized
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.tokens import AccessToken, Tokens

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
DIAGNOSTICS: Final = "x-ms-diagnostics"
FRESH: Final = 30.0  # seconds since a token was issued; the server would refuse the next one as well


class BearerTransport(HoldsInTask):
    """The transport of one mailbox with an access token.

    When the server refuses a token that is not fresh, the request goes out once more with a new token: the server only
    looked at the token, and no server locks an account for a stale token as it does for a wrong password.
    """

    __slots__ = ("_tokens", "_transport")

    def __init__(self, transport: Transport, tokens: Tokens) -> None:
        """Send through `transport` with the tokens of one grant."""
        self._transport = transport
        self._tokens = tokens

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any answer that does not refuse the token.

        Raises Unauthorized when the server refuses it, or AccessDenied for a 403, with the server's own text. Raises
        CredentialVoid, AccessDenied, ServerBusy and Unreachable for the token endpoint.
        """
        token = await self._tokens.get(request.deadline)
        reply = await self._send(request, token)
        if _of_token(reply) and asyncio.get_running_loop().time() - token.issued_at > FRESH:
            token = await self._tokens.replace(token)
            reply = await self._send(request, token)
        if not _of_token(reply):
            return reply
        self._tokens.forget(token)
        diagnostics = read_diagnostics(reply.headers.get(DIAGNOSTICS, ""))
        if reply.status == FORBIDDEN:
            denied = f"the server denies access to this token (HTTP 403), saying: {diagnostics}"
            raise AccessDenied(denied, Reason.HTTP_403)
        challenge = read_challenge(reply.headers.get("www-authenticate", ""))
        if challenge is None:
            raise Unauthorized("the server refuses the access token and offers no bearer authentication (HTTP 401)")
        raise Unauthorized(describe(challenge, self._tokens.endpoint.client.token_endpoint, diagnostics))

    async def _send(self, request: HttpRequest, token: AccessToken) -> HttpReply:
        headers = {**request.headers, "Authorization": f"Bearer {token.value}"}
        return await self._transport.send(replace(request, headers=headers))


def _of_token(reply: HttpReply) -> bool:
    """Return True if an answer refuses the token; a 403 without diagnostics refuses the user or the device."""
    diagnosed = reply.status == FORBIDDEN and bool(read_diagnostics(reply.headers.get(DIAGNOSTICS, "")))
    return reply.status == UNAUTHORIZED or diagnosed
