"""The admin API on the ops listener: JSON, problem documents [RFC 9457], bearer tokens with scopes [RFC 6750].

It is there only if relay.toml names tokens. There are no cookies and no CORS, so no page of a browser can use it.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from relay.admin import documents
from relay.admin.administration import Administration
from relay.admin.tokens import AdminToken, Scope, find
from relay.admin.values import (
    MOST,
    USUAL,
    BadCursor,
    Done,
    MailboxFilter,
    NotDone,
    Order,
    Page,
    RegistrationFilter,
    Unknown,
)
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.explanation import Findings, MailboxExplanation, UnreadableMailbox
from relay.domain.model import Platform, RegistrationId, RegistrationState
from relay.http import problems
from relay.http.admission import Pace
from relay.http.kinds import Kind
from relay.ops import explain

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Enum)
T = TypeVar("T")

ROOT: Final = "/admin/v1"
PER_SECOND: Final = 10.0  # requests of one token
BURST: Final = 100.0  # of them at once after a pause
REFUSED_PER_SECOND: Final = 0.5  # requests without a good token that are answered so; for more the answer is to wait
REFUSED_BURST: Final = 20.0
RETRY: Final = 5  # seconds to wait while the database is away

UNAUTHORIZED: Final = Kind(HTTPStatus.UNAUTHORIZED, "no-admin-token", "The request shows no admin token")
FORBIDDEN: Final = Kind(HTTPStatus.FORBIDDEN, "insufficient-scope", "The token does not open this")
UNKNOWN: Final = Kind(HTTPStatus.NOT_FOUND, "unknown", "There is nothing of this name")
NOT_DONE: Final = Kind(HTTPStatus.CONFLICT, "not-done", "This makes no sense now, so nothing changed")
BAD_QUERY: Final = Kind(HTTPStatus.BAD_REQUEST, "bad-query", "A parameter of the query is wrong")
CURSOR_GONE: Final = Kind(HTTPStatus.GONE, "cursor-gone", "The row at which the page begins is gone")
TOO_MANY: Final = Kind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", "Too many requests")
AWAY: Final = Kind(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The database does not answer")

WHO: Final = web.RequestKey("who", str)
"""Under this name a request has that of its token."""


class BadQuery(Exception):
    """Parameters of a query are wrong; maps each to what is wrong with it."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        """Take what is wrong."""
        super().__init__(faults)
        self.faults = faults


class AdminApi:
    """The routes of the admin API."""

    def __init__(
        self,
        administration: Administration,
        explanation: Callable[[str], Awaitable[Findings]],
        tokens: Sequence[AdminToken],
        clock: Clock,
    ) -> None:
        """Serve those who show one of some tokens; `explanation` finds mailboxes by name."""
        self._admin = administration
        self._explanation = explanation
        self._clock = clock
        self._refused = Pace(REFUSED_PER_SECOND, REFUSED_BURST)
        self._tokens: tuple[AdminToken, ...] = ()
        self._paces: dict[str, Pace] = {}
        self.take(tokens)

    def take(self, tokens: Sequence[AdminToken]) -> None:
        """Serve from now on those who show one of other tokens; without any, the API is off."""
        self._tokens = tuple(tokens)
        self._paces = {token.name: self._paces.get(token.name) or Pace(PER_SECOND, BURST) for token in tokens}

    def add_to(self, app: web.Application) -> None:
        """Add the routes to the application of the ops listener."""
        mailbox, registration = f"{ROOT}/mailboxes/{{id}}", f"{ROOT}/registrations/{{id}}"
        for method, path, scope, handler in (
            ("GET", f"{ROOT}/mailboxes", Scope.READ, self._mailboxes),
            ("GET", mailbox, Scope.READ, self._mailbox),
            ("POST", f"{mailbox}/retry", Scope.ACT, self._ordering(Order.RETRY)),
            ("POST", f"{mailbox}/pause", Scope.ACT, self._ordering(Order.PAUSE)),
            ("POST", f"{mailbox}/resume", Scope.ACT, self._ordering(Order.RESUME)),
            ("POST", f"{mailbox}/forget", Scope.FORGET, self._ordering(Order.FORGET)),
            ("POST", f"{mailbox}/export", Scope.FORGET, self._export),
            ("GET", f"{ROOT}/registrations", Scope.READ, self._registrations),
            ("GET", registration, Scope.READ, self._registration),
            ("POST", f"{registration}/retry", Scope.ACT, self._retry_pushes),
            ("POST", f"{registration}/test-push", Scope.ACT, self._test_push),
            ("POST", f"{registration}/forget", Scope.FORGET, self._forget_registration),
            ("GET", f"{ROOT}/maintenance", Scope.READ, self._maintained),
            ("PUT", f"{ROOT}/maintenance/{{id}}", Scope.ACT, self._maintaining(on=True)),
            ("DELETE", f"{ROOT}/maintenance/{{id}}", Scope.ACT, self._maintaining(on=False)),
            ("GET", f"{ROOT}/acts", Scope.READ, self._acts),
        ):
            app.router.add_route(method, path, self._guarded(scope, handler))

    # --- who may

    def _guarded(self, scope: Scope, handler: Handler) -> Handler:
        """Return a handler for those whose token has a scope; errors become problem documents."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._tokens:
                raise web.HTTPNotFound
            token = find(self._tokens, _shown(request))
            if token is None:
                return self._refuse(request)
            seconds = self._wait(self._paces[token.name])
            if seconds:
                return _too_many(seconds)
            if scope not in token.scopes:
                detail = f"the token {token.name} lacks the scope {scope}; see admin.tokens.{token.name}.scopes"
                challenge: dict[str, str] = {
                    hdrs.WWW_AUTHENTICATE: f'Bearer error="insufficient_scope", scope="{scope}"'
                }
                return problems.document(FORBIDDEN, detail, headers=challenge)
            if "\0" in request.path:  # PostgreSQL takes it in no text
                return problems.document(UNKNOWN, "no name has the character NUL")
            request[WHO] = token.name
            return await _answered(handler, request)

        return guarded

    def _refuse(self, request: web.Request) -> web.StreamResponse:
        seconds = self._wait(self._refused)
        if seconds:
            return _too_many(seconds)
        log.warning("admin token refused", extra={"address": request.remote})
        detail = "send the header Authorization: Bearer, with a token of [admin.tokens]"
        return problems.document(
            UNAUTHORIZED, detail, headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="push relay administration"'}
        )

    @staticmethod
    def _wait(pace: Pace) -> float:
        """Count a request; return the seconds after which it may be sent again, 0 if it is served."""
        seconds = pace.wait(asyncio.get_running_loop().time())
        if not seconds:
            pace.spend(1.0)
        return seconds

    # --- mailboxes

    async def _mailboxes(self, request: web.Request) -> web.StreamResponse:
        query = _Query(request, {"server", "state", "user", "limit", "cursor"})
        wanted = MailboxFilter(query.text("server"), query.one_of("state", WatchState), query.text("user") or "")
        limit = query.limit()
        query.judge()
        page = await self._admin.mailboxes(wanted, limit, query.text("cursor"))
        return _page("mailboxes", page, documents.mailbox)

    async def _mailbox(self, request: web.Request) -> web.StreamResponse:
        id_ = request.match_info["id"]
        found = [each for each in (await self._explanation(id_)).mailboxes if _is(each, id_)]
        if not found:
            raise Unknown(id_)
        [document] = explain.document(Findings(mailboxes=tuple(found)), self._clock())
        return web.json_response(document)

    def _ordering(self, order: Order) -> Handler:
        async def ordering(request: web.Request) -> web.StreamResponse:
            id_ = MailboxId(request.match_info["id"])
            status = HTTPStatus.ACCEPTED if order is Order.FORGET else HTTPStatus.OK
            return _outcome(id_, await self._admin.order(id_, order, request[WHO]), status)

        return ordering

    async def _export(self, request: web.Request) -> web.StreamResponse:
        kept = await self._admin.export(MailboxId(request.match_info["id"]), request[WHO])
        return web.json_response(documents.export(kept))

    # --- registrations

    async def _registrations(self, request: web.Request) -> web.StreamResponse:
        query = _Query(request, {"server", "state", "user", "platform", "app", "limit", "cursor"})
        wanted = RegistrationFilter(
            query.text("server"),
            query.one_of("state", RegistrationState),
            query.text("user") or "",
            query.one_of("platform", Platform),
            query.text("app"),
        )
        limit = query.limit()
        query.judge()
        page = await self._admin.registrations(wanted, limit, query.text("cursor"))
        return _page("registrations", page, documents.registration)

    async def _registration(self, request: web.Request) -> web.StreamResponse:
        view = await self._admin.registration(RegistrationId(request.match_info["id"]))
        return web.json_response(documents.registration(view))

    async def _retry_pushes(self, request: web.Request) -> web.StreamResponse:
        id_ = RegistrationId(request.match_info["id"])
        return _outcome(id_, await self._admin.retry_pushes(id_, request[WHO]))

    async def _test_push(self, request: web.Request) -> web.StreamResponse:
        id_ = RegistrationId(request.match_info["id"])
        return _outcome(id_, await self._admin.test_push(id_, request[WHO]), HTTPStatus.ACCEPTED)

    async def _forget_registration(self, request: web.Request) -> web.StreamResponse:
        id_ = RegistrationId(request.match_info["id"])
        return _outcome(id_, await self._admin.forget_registration(id_, request[WHO]))

    # --- servers, and the audit log

    async def _maintained(self, _: web.Request) -> web.StreamResponse:
        found = [documents.maintenance(each) for each in await self._admin.maintained()]
        return web.json_response({"maintenance": found})

    def _maintaining(self, *, on: bool) -> Handler:
        async def maintaining(request: web.Request) -> web.StreamResponse:
            server = request.match_info["id"]
            return _outcome(server, await self._admin.maintain(server, request[WHO], on=on))

        return maintaining

    async def _acts(self, request: web.Request) -> web.StreamResponse:
        query = _Query(request, {"limit", "before"})
        limit, before = query.limit(), query.number("before")
        query.judge()
        found = await self._admin.acts(limit, before)
        return web.json_response({"acts": [documents.act(each) for each in found]})


async def _answered(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Return the answer of a handler; its errors become problem documents."""
    try:
        return await handler(request)
    except Unknown as error:
        return problems.document(UNKNOWN, f"nothing of the name {str(error)!r} is known")
    except BadCursor:
        return problems.document(CURSOR_GONE, "begin again without cursor")
    except BadQuery as error:
        errors = [{"field": field, "detail": wrong} for field, wrong in error.faults.items()]
        return problems.document(BAD_QUERY, "", errors=errors)
    except StoreUnavailable:
        return problems.document(AWAY, "try again", headers={hdrs.RETRY_AFTER: str(RETRY)})


def _shown(request: web.Request) -> str:
    """Return the token that a request shows; empty: none, or several."""
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(given) != 1:
        return ""
    scheme, _, token = given[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _too_many(seconds: float) -> web.StreamResponse:
    wait = math.ceil(seconds)
    return problems.document(TOO_MANY, f"try again in {wait} s", headers={hdrs.RETRY_AFTER: str(wait)})


def _is(explained: MailboxExplanation | UnreadableMailbox, id_: str) -> bool:
    own = explained.mailbox.id if isinstance(explained, MailboxExplanation) else explained.id
    return own == id_


def _outcome(name: str, result: Done | NotDone, status: HTTPStatus = HTTPStatus.OK) -> web.StreamResponse:
    if isinstance(result, NotDone):
        return problems.document(NOT_DONE, result.why)
    return web.json_response(documents.outcome(name, result), status=status)


def _page(name: str, page: Page[T], document: Callable[[T], dict[str, object]]) -> web.StreamResponse:
    return web.json_response({name: [document(each) for each in page.rows], "cursor": page.cursor})


class _Query:
    """The parameters of a request; collects what is wrong with them, so that `judge` names all faults at once."""

    def __init__(self, request: web.Request, known: Collection[str]) -> None:
        self._given = request.query
        self._faults = {
            name: f"is unknown; known are {', '.join(sorted(known))}" for name in self._given if name not in known
        }
        self._faults |= {name: "is there more than once" for name in known if len(self._given.getall(name, [])) > 1}
        self._faults |= {name: "has the character NUL" for name in known if "\0" in self._given.get(name, "")}

    def judge(self) -> None:
        """Raise BadQuery if a parameter is wrong; to call when all of them were read, and before they are used."""
        if self._faults:
            raise BadQuery(self._faults)

    def text(self, name: str) -> str | None:
        return self._given.get(name) or None

    def one_of(self, name: str, kind: type[E]) -> E | None:
        value = self.text(name)
        try:
            return None if value is None else kind(value)
        except ValueError:
            self._faults.setdefault(name, f"must be one of {', '.join(str(each.value) for each in kind)}")
            return None

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) < 18):  # noqa: PLR2004 -- what databases bear
            self._faults.setdefault(name, "must be a whole number")
            return None
        return int(value)

    def limit(self) -> int:
        number = self.number("limit")
        if number is None:
            return USUAL
        if not 1 <= number <= MOST:
            self._faults.setdefault("limit", f"must be 1 to {MOST}")
        return number
