"""Requests with an access token, which is replaced once when the server refuses it."""

import asyncio
from dataclasses import replace
from typing import Final

from eas_watcher.auth.bearer import describe, read_challenge, read_diagnostics
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, EasError, Unauthorized
from eas_watcher.ports import Done, HeldRequest, Transport
from eas_watcher.reasons import Reason
from eas_watcher.transport.holding import TaskedRequest
from eas_watcher.transport.tokens import AccessToken, Tokens

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
DIAGNOSTICS: Final = "x-ms-diagnostics"
FRESH: Final = 30.0  # seconds since a token was issued; the server would refuse the next one as well


class BearerTransport:
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
        reply = await self._transport.send(_with(token, request))
        if self.is_stale(token, reply):
            return await self.repeat(token, request)
        return self.judge(token, reply)

    async def hold(self, request: HttpRequest, done: Done) -> "HeldWithToken":
        """Hold a request; raises and reports what `send` raises."""
        token = await self._tokens.get(request.deadline)
        held = HeldWithToken(self, token, request, done)
        held.present = await self._transport.hold(_with(token, request), held.answered)
        return held

    def is_stale(self, token: AccessToken, reply: HttpReply) -> bool:
        """Return True if an answer refuses a token that is old enough to be replaced."""
        return _of_token(reply) and asyncio.get_running_loop().time() - token.issued_at > FRESH

    async def repeat(self, token: AccessToken, request: HttpRequest) -> HttpReply:
        """Send a request again with a token that replaces `token`."""
        token = await self._tokens.replace(token)
        return self.judge(token, await self._transport.send(_with(token, request)))

    def judge(self, token: AccessToken, reply: HttpReply) -> HttpReply:
        """Return an answer that does not refuse the token; raises what its refusal means."""
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


class HeldWithToken:
    """A held request with an access token; a task only repeats it with another token."""

    __slots__ = ("_done", "_request", "_token", "_transport", "present")

    def __init__(self, transport: BearerTransport, token: AccessToken, request: HttpRequest, done: Done) -> None:
        """Wait for the answer to a request with `token`."""
        self._transport = transport
        self._token = token
        self._request = request
        self._done = done
        self.present: HeldRequest | None = None
        """What waits for the answer; None: it is not sent."""

    def answered(self, result: HttpReply | Exception) -> None:
        """Report an answer, unless it refuses an old token."""
        if isinstance(result, HttpReply):
            if self._transport.is_stale(self._token, result):
                self.present = TaskedRequest(self._transport.repeat(self._token, self._request), self._done)
                return
            try:
                result = self._transport.judge(self._token, result)
            except EasError as error:
                result = error
        self._done(result)

    async def give_up(self) -> None:
        """Close it, without a call of its `Done`."""
        if self.present is not None:
            await self.present.give_up()


def _with(token: AccessToken, request: HttpRequest) -> HttpRequest:
    headers = {**request.headers, "Authorization": f"Bearer {token.value}"}
    return replace(request, headers=headers)


def _of_token(reply: HttpReply) -> bool:
    """Return True if an answer refuses the token; a 403 without diagnostics refuses the user or the device."""
    diagnosed = reply.status == FORBIDDEN and bool(read_diagnostics(reply.headers.get(DIAGNOSTICS, "")))
    return reply.status == UNAUTHORIZED or diagnosed
