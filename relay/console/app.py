"""The console: pages for administrators on the ops listener.

People log in with an admin token, or come through a proxy that logs them in. The scopes of the admin API decide which
buttons a page has, and are checked again at each act; acts are the same use cases. A form is taken only from a page of
the console itself: the browser says so, and the form has the token of its session.
"""

import asyncio
import hmac
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import quote

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from relay.admin.people import Person, TrustedProxy
from relay.admin.tokens import AdminToken, Scope, find
from relay.admin.values import BadCursor, Done, NotDone, Unknown
from relay.console import words
from relay.console.process import ProcessView
from relay.console.sessions import LONGEST, Session, Sessions
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.http.admission import Pace
from relay.http.pages import Pages, is_own

log = logging.getLogger(__name__)

ROOT: Final = "/console"
COOKIE: Final = "relay-console"
HOST_COOKIE: Final = "__Host-relay-console"
"""The cookie's name over TLS: no other host and no page over plain HTTP can set it [RFC 6265bis 4.1.3.2]."""
LIVE: Final = "X-Relay-Live"
"""The header of requests that a page sends by itself: they prolong no session."""
FORM: Final = "application/x-www-form-urlencoded"
CHARSET: Final = "utf-8"
"""The charset of forms, since it is that of the pages [HTML: form submission encoding]."""
LONGEST_FORM: Final = 8192  # bytes
FORM_SECONDS: Final = 10.0
"""Seconds within which a form must be here: a connection that waits for its rest is one that health checks lack."""
PER_SECOND: Final = 10.0  # requests of all people
BURST: Final = 100.0
GUESSES_PER_SECOND: Final = 0.2  # wrong tokens that are looked up; for more the answer is to wait
GUESSES: Final = 10.0
FILTERS: Final[Mapping[str, Callable[..., str]]] = {
    "stamp": words.stamp,
    "duration": words.duration,
    "number": words.number,
    "count": words.count,
    "size": words.size,
    "code": words.code,
    "segment": partial(quote, safe=""),
}
"""How templates write values."""
SECRET: Final = 32  # random bytes of a cookie and of a form's token


@dataclass(slots=True)
class Visit:
    """One request of somebody who is logged in."""

    request: web.Request
    person: Person
    session: Session
    cookie: str | None = None
    """What the browser must be given: a session that began with this request."""
    form: Mapping[str, str] | None = None
    """The fields of the form that was sent; None: the request is no form."""

    def may(self, scope: Scope) -> bool:
        """Return True if the person has a scope."""
        return scope in self.person.scopes

    def field(self, name: str) -> str:
        """Return a field of the form; empty: there is none."""
        return (self.form or {}).get(name, "").strip()

    def part(self, name: str) -> str:
        """Return a part of the path."""
        return self.request.match_info[name]

    def tell(self, outcome: Done | NotDone) -> None:
        """Keep what became of an act for the next page."""
        match outcome:
            case Done(text):
                self.session.notice = (True, f"Done: {text}.")
            case NotDone(why):  # pragma: no branch -- mypy proves that there is no other
                self.session.notice = (False, f"Nothing changed: {why}.")


PageHandler: TypeAlias = Callable[[Visit], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A request that is answered with a page of one sentence."""

    def __init__(self, status: HTTPStatus, title: str, text: str) -> None:
        """Take the status, the heading and the sentence."""
        super().__init__(text)
        self.status, self.title, self.text = status, title, text


class Console:
    """The routes of the console, and who may use them. Pages are added with `open`."""

    def __init__(self, process: ProcessView, clock: Clock) -> None:
        """Set up switched off; `take` says who may use it."""
        self.process = process
        self.clock = clock
        self.pages = Pages("relay.console", ROOT, filters=FILTERS)
        self.links: list[tuple[str, str]] = []
        """The pages of the navigation: path below the root, and name."""
        self._tokens: tuple[AdminToken, ...] = ()
        self._proxy: TrustedProxy | None = None
        self._sessions = Sessions(partial(secrets.token_urlsafe, SECRET), clock)
        self._guesses = Pace(GUESSES_PER_SECOND, GUESSES)
        self._pace = Pace(PER_SECOND, BURST)
        self._routes: list[tuple[str, str, Handler]] = [
            ("GET", f"{ROOT}", self._door),
            ("GET", f"{ROOT}/login", self._login_page),
            ("POST", f"{ROOT}/login", self._login),
        ]
        self.open("POST", "/logout", None, self._logout)

    @property
    def on(self) -> bool:
        """True if anybody may use it."""
        return bool(self._tokens) or self._proxy is not None

    def take(self, tokens: tuple[AdminToken, ...], proxy: TrustedProxy | None) -> None:
        """Let people in by a token or by the name that a proxy gives; with neither set, the console is off.

        Sessions of tokens that are gone end with their next request.
        """
        self._tokens, self._proxy = tokens, proxy
        if not self.on:
            self._sessions.clear()

    def open(self, method: str, path: str, scope: Scope | None, handler: PageHandler) -> None:
        """Add a page or an act below the root for those who have a scope; None: for all who are logged in."""
        self._routes.append((method, f"{ROOT}{path}", self._guarded(scope, handler)))

    def add_to(self, app: web.Application) -> None:
        """Add the routes to the application of the ops listener."""
        self.pages.add_to(app)
        for method, path, handler in self._routes:
            app.router.add_route(method, path, handler)
        app.router.add_get(f"{ROOT}/{{rest:.*}}", self._guarded(None, self._nowhere))

    # --- answers

    def show(self, visit: Visit, template: str, **values: object) -> web.StreamResponse:
        """Return a page for somebody who is logged in."""
        return self._page(template, {**_known(visit), **values})

    def back(self, path: str) -> web.StreamResponse:
        """Return what leads a browser to a page below the root after an act."""
        answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: f"{ROOT}{path}"})
        self.pages.protect(answer)
        return answer

    def _page(
        self, template: str, values: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK
    ) -> web.StreamResponse:
        now = self.clock()
        common = {
            "root": ROOT,
            "links": self.links,
            "role": self.process.role.value,
            "version": self.process.version,
            "now": now,
            "ago": lambda moment: words.ago(moment, now),
            "person": None,
            "session": None,
            "notice": None,
        }
        return self.pages.page(template, status=status, **{**common, **values})

    def _refusal(self, refused: Refused, visit: Visit | None = None) -> web.StreamResponse:
        known = {} if visit is None else _known(visit)
        return self._page("refusal.html", {**known, "title": refused.title, "text": refused.text}, refused.status)

    async def _nowhere(self, _: Visit) -> web.StreamResponse:
        raise Refused(HTTPStatus.NOT_FOUND, "Not found", "The console has no such page.")

    # --- who

    def _guarded(self, scope: Scope | None, handler: PageHandler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self.on:
                raise web.HTTPNotFound
            visit = self._visit(request)
            if visit is None:
                return self._to_login(request)
            try:
                answer = await self._served(visit, scope, handler)
            except Refused as refused:
                answer = self._refusal(refused, visit)
            if visit.cookie is not None:
                self._give(request, answer, visit.cookie)
            return answer

        return guarded

    async def _served(self, visit: Visit, scope: Scope | None, handler: PageHandler) -> web.StreamResponse:
        """Return the answer to somebody who is logged in; raises Refused."""
        request, person = visit.request, visit.person
        _spend(self._pace)
        if request.method == hdrs.METH_POST:
            visit.form = await _form(request)
            if not visit.session.shows(visit.field("form_token")):
                text = "The form belongs to a session that has ended. Go back, load the page again, and repeat the act."
                raise Refused(HTTPStatus.FORBIDDEN, "Not done", text)
        if "\0" in "".join((request.path, request.query_string, *(visit.form or {}).values())):
            # PostgreSQL takes it in no text.
            raise Refused(HTTPStatus.NOT_FOUND, "Not found", "No name has the character NUL.")
        for needed in () if scope is None else dict.fromkeys((Scope.READ, scope)):
            if not visit.may(needed):
                text = f"{person.name} lacks the scope {needed}; an administrator of the relay's host can give it."
                raise Refused(HTTPStatus.FORBIDDEN, "Not open to you", text)
        try:
            return await handler(visit)
        except Unknown as error:
            text = f"Nothing of the name {str(error)!r} is known. It may have been removed meanwhile."
            raise Refused(HTTPStatus.NOT_FOUND, "Not found", text) from error
        except BadCursor:
            return self.back(request.path.removeprefix(ROOT))
        except StoreUnavailable as error:
            text = "The database does not answer; health says more. Try again."
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "Database away", text) from error

    def _visit(self, request: web.Request) -> Visit | None:
        """Return the visit of a person who is logged in, or whom a proxy names; None: the request shows no person."""
        cookie = request.cookies.get(HOST_COOKIE) or request.cookies.get(COOKIE) or ""
        session = self._sessions.find(cookie, touch=LIVE not in request.headers) if cookie else None
        person = self._proxied(request)
        if person is not None:
            if session is not None and session.name == person.name and not session.proof:
                return Visit(request, person, session)
            fresh, session = self._begin(request, person.name, b"")
            return Visit(request, person, session, fresh)
        if session is None:
            return None
        token = next((each for each in self._tokens if each.name == session.name), None)
        if token is None or not hmac.compare_digest(token.digest, session.proof):
            self._sessions.end(cookie)
            return None
        return Visit(request, Person.of_token(token), session)

    def _begin(self, request: web.Request, name: str, proof: bytes) -> tuple[str, Session]:
        """Begin a session of a person, and note it in the log; return what the cookie has."""
        log.info("console login", extra={"who": name, "address": request.remote})
        return self._sessions.begin(name, proof)

    def _proxied(self, request: web.Request) -> Person | None:
        proxy = self._proxy
        if proxy is None:
            return None
        groups = () if proxy.groups_header is None else request.headers.getall(proxy.groups_header, ())
        return proxy.person(request.remote, request.headers.getall(proxy.header, ()), groups)

    def _to_login(self, request: web.Request) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return self.back("/login?ended")
        place = str(request.rel_url).removeprefix(ROOT)
        return self.back("/login" if place == "/" else f"/login?to={quote(place, safe='')}")

    async def _door(self, _: web.Request) -> web.StreamResponse:
        if not self.on:
            raise web.HTTPNotFound
        return self.back("/")

    # --- login

    async def _login_page(self, request: web.Request) -> web.StreamResponse:
        if not self.on:
            raise web.HTTPNotFound
        visit = self._visit(request)
        if visit is not None:
            answer = self.back(_place(request.query.get("to", "")))
            if visit.cookie is not None:
                self._give(request, answer, visit.cookie)
            return answer
        ended = "Your session has ended: log in again." if "ended" in request.query else ""
        return self._login_form(request.query.get("to", ""), ended)

    def _login_form(self, to: str, text: str, status: HTTPStatus = HTTPStatus.OK) -> web.StreamResponse:
        values = {"text": text, "to": _place(to), "tokens": bool(self._tokens), "proxy": self._proxy is not None}
        return self._page("login.html", values, status)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        if not self.on:
            raise web.HTTPNotFound
        try:
            form = await _form(request)
            token = find(self._tokens, form.get("token", "").strip())
            if token is None:
                _spend(self._guesses)
        except Refused as refused:
            return self._refusal(refused)
        to = form.get("to", "")
        if token is None:
            log.warning("admin token refused", extra={"address": request.remote})
            return self._login_form(to, "This is no token of [admin.tokens].", HTTPStatus.FORBIDDEN)
        cookie, _ = self._begin(request, token.name, token.digest)
        answer = self.back(_place(to))
        self._give(request, answer, cookie)
        return answer

    async def _logout(self, visit: Visit) -> web.StreamResponse:
        request = visit.request
        answer = self.back("/login")
        for name in (HOST_COOKIE, COOKIE):
            if name in request.cookies:
                self._sessions.end(request.cookies[name])
                answer.del_cookie(name, path=_path(name), secure=name == HOST_COOKIE, httponly=True, samesite="Strict")
        return answer

    def _give(self, request: web.Request, answer: web.StreamResponse, cookie: str) -> None:
        """Give a browser the cookie of its session."""
        # A request that lies about TLS harms its own cookie only.
        secure = request.headers.get(hdrs.ORIGIN, "").startswith("https://") or (
            request.headers.get(hdrs.X_FORWARDED_PROTO, "").lower() == "https"
        )
        name = HOST_COOKIE if secure else COOKIE
        answer.set_cookie(
            name,
            cookie,
            path=_path(name),
            secure=secure,
            httponly=True,
            samesite="Strict",
            max_age=int(LONGEST.total_seconds()),
        )


def _known(visit: Visit) -> dict[str, object]:
    """Return what each page for somebody says of them, and once what became of their last act."""
    notice = None
    if LIVE not in visit.request.headers:
        notice, visit.session.notice = visit.session.notice, None
    return {"person": visit.person, "session": visit.session, "notice": notice}


def _path(cookie: str) -> str:
    return "/" if cookie == HOST_COOKIE else ROOT


def _place(to: str) -> str:
    """Return a page of the console to go to after the login: its path below the root, which can name no other host."""
    return to if to.startswith("/") and not to.startswith(("/log", "//")) and to.isprintable() else "/"


def _spend(pace: Pace) -> None:
    """Count a request; raises Refused while too many come."""
    seconds = pace.wait(asyncio.get_running_loop().time())
    if seconds:
        text = f"Too many requests came. Try again in {math.ceil(seconds)} s."
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "Wait", text)
    pace.spend(1.0)


async def _form(request: web.Request) -> Mapping[str, str]:
    """Return the fields of a form that a page of the console sent; raises Refused for others."""
    if not is_own(request):
        text = (
            "The browser does not say that a page of the console sent this. Load the page again. Behind a proxy: the "
            "proxy must pass on the header Host."
        )
        raise Refused(HTTPStatus.FORBIDDEN, "Not done", text)
    foreign = Refused(HTTPStatus.BAD_REQUEST, "Not done", "This is no form of the console.")
    if request.content_type != FORM or (request.charset or CHARSET).lower() != CHARSET:
        raise foreign
    if (request.content_length or 0) > LONGEST_FORM:
        raise foreign
    try:
        async with asyncio.timeout(FORM_SECONDS):
            fields = await request.post()
    except TimeoutError as error:
        text = "The rest of the form did not come, or it is too long. Load the page again, and repeat the act."
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, "Not done", text) from error
    except UnicodeDecodeError as error:
        raise foreign from error
    return {name: value for name, value in fields.items() if isinstance(value, str)}
