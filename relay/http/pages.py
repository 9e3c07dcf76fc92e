"""Pages for browsers: templates, the files that they name, and headers that keep a page from loading anything else."""

import hashlib
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web
from yarl import URL

if TYPE_CHECKING:
    from jinja2 import Environment

HASH: Final = 16  # hex digits of the version in the path of a file
FOREVER: Final = "public, max-age=31536000, immutable"  # a year, the longest time that caches know [RFC 9111 1.2.2]
FILES: Final = "files"
"""The name of the route of the files: what they cost is less than what a request costs that is no file."""
SEC_FETCH_SITE: Final = "Sec-Fetch-Site"
POLICY: Final[Mapping[str, str]] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
"""The Content-Security-Policy of a page [W3C CSP3]: what the relay serves itself, nothing inline, no frames."""
HEADERS: Final[Mapping[str, str]] = {
    # With no-referrer a browser would send forms with the header `Origin: null` [Fetch: Origin header].
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Content-Type-Options": "nosniff",
}
TYPES: Final[Mapping[str, str]] = {".js": "text/javascript", ".webmanifest": "application/manifest+json"}
"""Media types that the tables of some systems lack or have otherwise."""


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    tag: str


class Pages:
    """The pages of one part of the relay: `templates/` and `static/` in the folder of its package.

    Templates escape every value, and a value that is missing is an error. `asset("name.css")` in a template is the path
    of a file of `static/`. All files have one version in their paths, so modules of JavaScript may import one another
    by relative names; another version than the present one is answered too, but no cache keeps the answer.
    """

    def __init__(
        self,
        package: str,
        root: str,
        *,
        policy: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        filters: Mapping[str, Callable[..., str]] | None = None,
    ) -> None:
        """Set up for a package, whose pages are below the path `root`, e.g. `/console`.

        `policy` adds directives to POLICY or replaces some of them, `headers` the same to HEADERS; `filters` are what
        templates write values with, by name.
        """
        self.root = root
        static = resources.files(package).joinpath("static")
        self._files = {file.name: _read(file) for file in static.iterdir() if file.is_file()}
        digest = hashlib.sha256()
        for name, file in sorted(self._files.items()):
            digest.update(f"{name} {file.tag} {file.media_type}\n".encode())
        self.version = digest.hexdigest()[:HASH]
        """The version of all files."""
        rules = {**POLICY, **(policy or {})}
        self._headers = {
            **HEADERS,
            hdrs.CACHE_CONTROL: "no-store",
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in rules.items()),
            **(headers or {}),
        }
        self._package = package
        self._filters = filters or {}

    @cached_property
    def environment(self) -> "Environment":
        """The templates."""
        # A process whose pages nobody opens saves the library: 2 MB, and 60 ms of its start.
        from jinja2 import Environment, PackageLoader, StrictUndefined

        found = Environment(
            loader=PackageLoader(self._package),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        found.filters |= self._filters
        found.globals["asset"] = self.asset
        return found

    def add_to(self, app: web.Application) -> None:
        """Add the route of the files to an application."""
        app.router.add_get(f"{self.root}/static/{{version}}/{{name}}", self._file, name=FILES)

    def asset(self, name: str) -> str:
        """Return the path of a file of `static/`; raises KeyError for one that does not exist."""
        if name not in self._files:
            raise KeyError(name)
        return f"{self.root}/static/{self.version}/{name}"

    def page(self, template: str, *, status: HTTPStatus = HTTPStatus.OK, **values: object) -> web.Response:
        """Return a page made of a template, with the headers of pages."""
        text = self.environment.get_template(template).render(values)
        return web.Response(text=text, content_type="text/html", status=status, headers=self._headers)

    def protect(self, response: web.StreamResponse) -> None:
        """Give an answer that is no page, such as a redirect, the headers of pages."""
        response.headers.update(self._headers)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = self._files.get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        current = request.match_info["version"] == self.version
        headers = {**self._headers, hdrs.CACHE_CONTROL: FOREVER if current else "no-cache", hdrs.ETAG: f'"{file.tag}"'}
        if any(tag.value in {file.tag, "*"} for tag in request.if_none_match or ()):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        charset = "utf-8" if file.media_type.startswith("text/") else None
        return web.Response(body=file.body, content_type=file.media_type, charset=charset, headers=headers)


def is_own(request: web.Request) -> bool:
    """Return True if a browser says that a page of the same host sent a request; False if it says nothing of that.

    `Sec-Fetch-Site` comes over TLS and on loopback [Fetch Metadata 2]; else `Origin` must name the host that was asked.
    """
    site = request.headers.get(SEC_FETCH_SITE)
    if site is not None:
        return site == "same-origin"
    try:
        origin = URL(request.headers.get(hdrs.ORIGIN, ""))
        asked = URL(f"{origin.scheme}://{request.host}") if origin.host else None
    except ValueError:
        return False
    return asked is not None and (origin.host, origin.port) == (asked.host, asked.port)


def _read(file: Traversable) -> _File:
    body = file.read_bytes()
    suffix = f".{file.name.rpartition('.')[2]}"
    media_type = TYPES.get(suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return _File(body, media_type, hashlib.sha256(body).hexdigest()[: 2 * HASH])
