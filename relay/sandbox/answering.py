"""Own how the answers of simulated HTTP services go over the wire, and how they are kept from it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Final, cast

from aiohttp import web

from relay.sandbox.fcm_rules import Verdict
from relay.sandbox.scripts import Answer, Close, Cut, Delay, FcmFailure, GoAway, Page, Reset, Stall

SENT: Final = 0.05  # seconds in which half an answer has surely left


def abort(transport: asyncio.BaseTransport | None) -> None:
    """Cut a connection."""
    if transport is not None:
        cast("asyncio.Transport", transport).abort()  # uvloop's are none by inheritance


async def suffer(request: web.Request, failure: FcmFailure | None) -> None:
    """Let the failures of connections happen."""
    match failure:
        case Delay(seconds):
            await asyncio.sleep(seconds)
        case Stall():
            await asyncio.Event().wait()
        case Close() | Reset() | GoAway():
            abort(request.transport)
            raise asyncio.CancelledError
        case _:
            pass


async def answer(
    request: web.Request, verdict: Verdict, failure: FcmFailure | None, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send an answer, or half of it."""
    body = json.dumps(verdict.document).encode()
    kind = {"Content-Type": "application/json; charset=UTF-8", "Content-Length": str(len(body))}
    response = web.StreamResponse(status=verdict.status, headers={**headers, **kind})
    await response.prepare(request)
    await response.write(body[: len(body) // 2] if isinstance(failure, Cut) else body)
    if isinstance(failure, Cut):
        await asyncio.sleep(SENT)
        abort(request.transport)
        raise asyncio.CancelledError
    await response.write_eof()
    return response


def html(page: Page) -> web.Response:
    """Make what a proxy or a captive portal answers."""
    text = "<!DOCTYPE html><html><title>Access denied</title><body>Please sign in to the network.</body></html>"
    return web.Response(text=text, status=page.status, content_type="text/html")


def headers_of(answer: Answer) -> dict[str, str]:
    """Make the headers that a script asks for."""
    return {"Retry-After": answer.retry_after} if answer.retry_after else {}
