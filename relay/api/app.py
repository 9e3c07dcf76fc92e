"""The API as one application: routes, limits, common headers, and the log line of a request."""

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from relay.api.documents import LimitsAnswer
from relay.api.guard import ONE, STRANGERS, Guard
from relay.api.operations import CHANGES, OPERATIONS
from relay.api.problems import CrossSite, refusal
from relay.api.rate import Allowance
from relay.api.routes import Routes, Terms, shown
from relay.domain.errors import RelayError
from relay.domain.model import MOST_REGISTRATIONS
from relay.http import kinds, problems
from relay.http.addresses import Proxies
from relay.http.listeners import hung_up
from relay.http.pages import FILES
from relay.registration.capabilities import Capabilities
from relay.registration.errors import Busy, TooManyRequests
from relay.registration.receipts import Receipts
from relay.registration.registrations import Registrations

log = logging.getLogger(__name__)

REGISTER: Final = frozenset((row.method, row.path) for row in OPERATIONS if row.enrols)
"""The operations that may make a registration, which have a limit of their own."""
OWN: Final = "same-origin"
"""What Sec-Fetch-Site says of the relay's own pages; programs that are no browser do not send it [Fetch Metadata 2]."""
KIB: Final = 1024  # bytes
LARGEST: Final = 32 * KIB
"""Bytes of a request as it comes, with its head: twice the largest body. 10,000 chunks cost 6 ms of the loop's time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for clients of the API."""

    body: int = 16 * KIB
    """Bytes of a request body, after decompression."""
    body_seconds: float = 10.0
    registrations_per_minute: float = 30.0
    """New registrations per client address; a burst may have as many."""
    requests_per_minute: float = 600.0
    """All requests per client address; a burst may have as many."""
    strangers_per_minute: float = STRANGERS
    """Requests of all clients whose secret the relay does not know yet."""
    reads: int = 32
    """Questions that the database is asked at once; the next ones are refused."""
    writes: int = 256
    """All other requests that are served at once; a registration takes as long as the mail server's answer."""
    proxies: Proxies = field(default_factory=Proxies)
    """The reverse proxies that the relay believes about their clients."""


class RegistrationApi:
    """The API as an application whose limits, and what it offers, may change while it serves."""

    def __init__(
        self,
        service: Registrations,
        receipts: Receipts,
        limits: Limits,
        tokens: Callable[[int], str],
        capabilities: Capabilities,
        vapid_public_key: str = "",
        refused: Counter[str] | None = None,
        more: Callable[[web.Application], None] | None = None,
    ) -> None:
        """Set up with the use cases; `tokens` returns URL-safe text of that many random bytes, which names a failure.

        `capabilities` say what apps may ask, and how they enrol. Apps subscribe by WebPush with `vapid_public_key`;
        empty: the relay does not push that way. `refused` counts the requests that are refused because too many come,
        by the code of the problem. `more` adds routes beside the API, for which its limits hold too.

        The caller must leave the access log of aiohttp off, since its lines have ids, and must not cancel a handler
        whose client is gone.
        """
        self.limits = limits
        # The clock of the loop at each use: the app may be built before its loop runs.
        self._guard = Guard(
            limits.requests_per_minute,
            limits.registrations_per_minute,
            lambda: asyncio.get_running_loop().time(),
            refused,
            strangers=limits.strangers_per_minute,
        )
        self.app = web.Application(
            middlewares=[_guarded(self._guard, self), _logged(), _refusing(tokens)], client_max_size=limits.body
        )
        self._routes = Routes(
            service,
            receipts,
            self._guard.gate(limits.reads),
            self._guard.gate(limits.writes),
            body_seconds=limits.body_seconds,
            terms=_terms(limits, capabilities, vapid_public_key),
        )
        self._routes.add_to(self.app.router)
        if more is not None:
            more(self.app)

    def change(self, limits: Limits, capabilities: Capabilities, vapid_public_key: str) -> None:
        """Serve with other rates, proxies and capabilities from the next request on; sizes and gates stay."""
        self.limits = limits
        self._guard.allow(limits.requests_per_minute, limits.registrations_per_minute)
        self._routes.terms = _terms(limits, capabilities, vapid_public_key)


def _terms(limits: Limits, capabilities: Capabilities, vapid_public_key: str) -> Terms:
    return Terms(
        vapid_public_key,
        capabilities,
        LimitsAnswer(
            body_bytes=limits.body,
            requests_per_minute=int(limits.requests_per_minute),
            registrations_per_minute=int(limits.registrations_per_minute),
            requests_per_minute_of_registration=int(ONE),
            registrations_per_mailbox=MOST_REGISTRATIONS,
        ),
    )


def _guarded(guard: Guard, api: RegistrationApi) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a request before anything is done for it; in a flood the log would be one too."""
        proxies = api.limits.proxies
        client = proxies.client(request.remote, request.headers.getall(proxies.header, []))
        if request.match_info.route.name == FILES:
            return await _file(guard, client, request, handler)
        access = shown(request)
        resource = request.match_info.route.resource
        registers = resource is not None and (request.method, resource.canonical) in REGISTER
        try:
            guard.admit(client, access, registers=registers)
        except (TooManyRequests, Busy) as error:
            return _limited(_answer(error), guard.allowances(client, access, registers=registers))
        left = guard.allowances(client, access, registers=registers)
        response = await handler(request)
        if access is not None and response.status < HTTPStatus.BAD_REQUEST:
            guard.opened(access)
        if registers and response.status == HTTPStatus.CREATED:
            guard.proved()
        return _limited(response, left)

    return guarded


async def _file(guard: Guard, client: str, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Serve a file of the web app, unless too many are asked for; no answer about it depends on the client's limits."""
    try:
        guard.admit_file(client)
    except (TooManyRequests, Busy) as error:
        return _answer(error)
    return await handler(request)


def _answer(error: TooManyRequests | Busy) -> web.Response:
    answer = refusal(error)
    if answer is None:
        raise error
    return answer


def _limited(response: web.StreamResponse, allowances: Iterable[Allowance]) -> web.StreamResponse:
    """Say on an answer what each limit allows, and what is left of it [draft-ietf-httpapi-ratelimit-headers-10]."""
    if not response.prepared:
        each = tuple(allowances)
        response.headers["RateLimit-Policy"] = ", ".join(f'"{one.name}";q={one.quota};w={one.window}' for one in each)
        response.headers["RateLimit"] = ", ".join(f'"{one.name}";r={one.left};t={one.full_in}' for one in each)
    return response


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
        """Turn every error into a problem document, and refuse what pages of other sites let a browser send."""
        try:
            _check_site(request)
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            return _other_method(request, error)
        except web.HTTPException as error:
            return problems.framework_refusal(error)
        except OSError as error:
            if hung_up(request, error):
                raise
            return _failed(error, tokens(9))
        except RelayError as error:
            return refusal(error) or _failed(error, tokens(9))
        except Exception as error:  # noqa: BLE001 -- the boundary: the log has our fault, the client gets its number
            return _failed(error, tokens(9))

    return refusing


def _check_site(request: web.Request) -> None:
    """Raise CrossSite if a browser says that a page of another origin changes something."""
    if request.method in CHANGES and request.headers.get("Sec-Fetch-Site", OWN) != OWN:
        raise CrossSite("only pages of the relay's own origin may let a browser do this")


def _other_method(request: web.Request, error: web.HTTPMethodNotAllowed) -> web.Response:
    """Answer OPTIONS, and refuse a method that the path does not have; both name those that it has."""
    allow = ", ".join(sorted({*error.allowed_methods, hdrs.METH_OPTIONS}))
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={hdrs.ALLOW: allow})
    error.headers[hdrs.ALLOW] = allow
    return problems.framework_refusal(error)


def _failed(error: Exception, instance: str) -> web.Response:
    """Log a fault of ours without its text, which may repeat what a client sent."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request failed", extra={"instance": instance, "error": type(error).__name__, "frames": frames})
    detail = "the log of the relay tells more under the number in `instance`"
    return problems.document(kinds.INTERNAL, detail, instance=instance)
