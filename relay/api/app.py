"""The API as one application: routes, limits, common headers, and the log line of a request."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from relay.api.problems import refusal
from relay.api.rate import RateLimit
from relay.api.routes import Routes
from relay.domain.errors import RelayError
from relay.http import problems
from relay.http.addresses import Proxies
from relay.registration.registrations import Registrations

log = logging.getLogger(__name__)

KIB: Final = 1024  # bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for clients of the API."""

    body: int = 16 * KIB
    """Bytes of a request body, after decompression."""
    body_seconds: float = 10.0
    registrations_per_minute: float = 30.0
    """New registrations per client address; a burst may have as many."""
    proxies: Proxies = field(default_factory=Proxies)
    """The reverse proxies that the relay believes about their clients."""


def create_app(
    service: Registrations, limits: Limits, tokens: Callable[[int], str], vapid_public_key: str = ""
) -> web.Application:
    """Return the API; `tokens` returns URL-safe text of that many random bytes, by which a failure is found in the log.

    Apps subscribe by WebPush with `vapid_public_key`; empty: the relay does not push that way.

    The caller must leave the access log of aiohttp off, since its lines have ids, and must not cancel a handler whose
    client is gone.
    """
    app = web.Application(middlewares=[_logged(), _refusing(tokens)], client_max_size=limits.body)
    app.on_response_prepare.append(_mark)
    # The clock of the loop at each use: the app may be built before its loop runs.
    rate = RateLimit(limits.registrations_per_minute, lambda: asyncio.get_running_loop().time())
    routes = Routes(
        service,
        rate,
        proxies=limits.proxies,
        body_seconds=limits.body_seconds,
        vapid_public_key=vapid_public_key,
    )
    routes.add_to(app.router)
    return app


def _logged() -> Middleware:
    @web.middleware
    async def logged(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log method, route, status and duration; never a path, for it holds ids."""
        clock = asyncio.get_running_loop().time
        began = clock()
        response = await handler(request)
        resource = request.match_info.route.resource
        route = "none" if resource is None else resource.canonical
        fields = {"method": request.method, "route": route, "status": response.status, "seconds": clock() - began}
        log.info("request served", extra=fields)
        return response

    return logged


def _refusing(tokens: Callable[[int], str]) -> Middleware:
    @web.middleware
    async def refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn every error into a problem document."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            return problems.framework_refusal(error)
        except RelayError as error:
            return refusal(error) or _failed(error, tokens(9))
        except Exception as error:  # noqa: BLE001 -- the boundary: the log has our fault, the client gets its number
            return _failed(error, tokens(9))

    return refusing


def _failed(error: Exception, instance: str) -> web.Response:
    """Log a fault of ours without its text, which may repeat what a client sent."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request failed", extra={"instance": instance, "error": type(error).__name__, "frames": frames})
    detail = "the log of the relay tells more under the number in `instance`"
    return problems.document(problems.INTERNAL, detail, instance=instance)


async def _mark(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers[hdrs.SERVER] = "push-relay"
