"""Own requests that carry an access token: got before the request, replaced once when the server refuses it."""

import asyncio
from dataclasses import replace
from typing import Final

from eas_watcher.auth.bearer import describe, read_challenge, read_diagnostics
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, Unauthorized
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.transport.tokens import AccessToken, Tokens

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
DIAGNOSTICS: Final = "x-ms-diagnostics"
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
        """Return any answer that does not refuse the token.

        Else raises Unauthorized, or AccessDenied for a 403, with what the server says about it. Raises also what the
        token endpoint leads to: CredentialVoid, AccessDenied, ServerBusy, Unreachable.
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
    """Tell whether a refusal is about the token; a 403 without diagnostics is about the user or the device."""
    diagnosed = reply.status == FORBIDDEN and bool(read_diagnostics(reply.headers.get(DIAGNOSTICS, "")))
    return reply.status == UNAUTHORIZED or diagnosed
