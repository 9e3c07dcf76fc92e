"""The routes of the web app: its page in some languages, manifest, service worker and logo; it has no state.

Everything else that it needs is the registration API, which it asks as any other app does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from eas_watcher.names import CollectionClass
from relay.http.pages import Pages
from relay.push.payload import WEB_APP
from relay.webapp.words import choose, languages

POLICY: Final[Mapping[str, str]] = {
    "manifest-src": "'self'",
    "worker-src": "'self'",
    # The one policy of the scripts makes the addresses of the service worker and of its two scripts, no others.
    "trusted-types": "relay-web",
}
"""What the pages need besides the policy of all pages."""
PICTURE: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""The policy of the logo: an SVG has styles of its own, and may have scripts, also when it is opened by itself."""
GOOD: Final = frozenset(
    {"well", "proving", "verifying", "saved", "stopped", "password-taken", "password-waits", "challenge-sent"}
    | {"sign-in-taken", "sign-in-waits", "test-queued", "test-delivered", "token-gone"}
)
"""The words that are no bad news."""
ICONS: Final = (("icon-192.png", "192x192", "any"), ("icon-512.png", "512x512", "any"))
MASKABLE: Final = ("icon-512.png", "512x512", "maskable")
CACHED: Final = (
    *("app.css", "app.js", "authorization.js", "steps.js", "store.js", "calls.js"),
    *("icon.svg", "icon-192.png", "badge-96.png", "ios.svg", "android.svg"),
)
"""The files that a service worker keeps."""


@dataclass(frozen=True, slots=True)
class WebApp:
    """What the administrator has set."""

    base_path: str
    """Where the pages are, without a slash at the end."""
    title: str
    return_path: str
    """Where users come back who signed in at an authorization endpoint."""
    help_text: str = ""
    """Whom users ask; empty: nobody is named."""
    open_url: str = ""
    """What is linked as the mail; empty: nothing."""
    logo: bytes | None = field(default=None, repr=False)
    logo_type: str = ""


class WebAppRoutes:
    """Serves the web app."""

    def __init__(self, settings: WebApp) -> None:
        """Set up with the settings, which hold until the process ends."""
        self._settings = settings
        self._base = settings.base_path
        self._pages = Pages("relay.webapp", self._base, policy=POLICY)

    def add_to(self, app: web.Application) -> None:
        """Add the routes to the application of the registration API."""
        self._pages.add_to(app)
        for path, handler in (
            ("", self._enter),
            ("/", self._page),
            ("/offline", self._offline),
            ("/manifest.webmanifest", self._manifest),
            ("/sw.js", self._worker),
            ("/logo", self._logo),
        ):
            app.router.add_get(f"{self._base}{path}", handler)
        app.router.add_get(self._settings.return_path, self._return)

    async def _enter(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=HTTPStatus.PERMANENT_REDIRECT, headers={hdrs.LOCATION: f"{self._base}/"})

    async def _page(self, request: web.Request) -> web.StreamResponse:
        language = choose(request.headers.get(hdrs.ACCEPT_LANGUAGE, ""), request.query.get("lang"))
        known, settings = languages(), self._settings
        page = self._pages.page(
            "app.html",
            base=self._base,
            app=WEB_APP,
            language=language,
            languages=[(code, words["language"]) for code, words in known.items()],
            words=known[language],
            good=GOOD,
            title=settings.title,
            help_text=settings.help_text,
            open_url=settings.open_url,
            back=settings.return_path,
            logo=f"{self._base}/logo" if settings.logo else "",
            classes=[each.value for each in CollectionClass],
        )
        page.headers[hdrs.VARY] = hdrs.ACCEPT_LANGUAGE
        return page

    async def _return(self, request: web.Request) -> web.StreamResponse:
        page = await self._page(request)
        # Some authorization endpoints put the code into the query, which is no other request's business.
        page.headers[hdrs.REFERRER_POLICY] = "no-referrer"
        return page

    async def _offline(self, _: web.Request) -> web.Response:
        offline = [(code, {**words["offline"], "again": words["again"]}) for code, words in languages().items()]
        return self._pages.page("offline.html", base=self._base, title=self._settings.title, offline=offline)

    async def _manifest(self, _: web.Request) -> web.StreamResponse:
        icons = [
            {"src": self._pages.asset(name), "sizes": sizes, "type": "image/png", "purpose": purpose}
            for name, sizes, purpose in (*ICONS, MASKABLE)
        ]
        manifest = {
            "id": f"{self._base}/",
            "name": self._settings.title,
            "short_name": self._settings.title,
            "start_url": f"{self._base}/",
            "scope": f"{self._base}/",
            "display": "standalone",
            "background_color": "#f5f6f8",
            "theme_color": "#1d4ed8",
            "icons": icons,
        }
        response = web.json_response(manifest, content_type="application/manifest+json")
        self._pages.protect(response)
        return response

    async def _worker(self, request: web.Request) -> web.StreamResponse:
        # The page for a relay that is away has words and a title, which change without any file.
        offline = (await self._offline(request)).text or ""
        version = f"{self._pages.version}-{hashlib.sha256(offline.encode()).hexdigest()[:8]}"
        response = self._pages.page("sw.js", base=self._base, version=version, files=CACHED)
        response.content_type = "text/javascript"
        response.headers[hdrs.CACHE_CONTROL] = "no-cache"
        return response

    async def _logo(self, _: web.Request) -> web.StreamResponse:
        settings = self._settings
        if settings.logo is None:
            raise web.HTTPNotFound
        response = web.Response(body=settings.logo, content_type=settings.logo_type)
        self._pages.protect(response)
        response.headers["Content-Security-Policy"] = PICTURE
        return response
