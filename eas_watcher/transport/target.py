"""Where a request goes: its URL, read strictly, because it may come from another server's answer."""

from functools import lru_cache
from re import compile as pattern
from typing import Final, NamedTuple

from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import ProtocolViolation

PORTS: Final = {"https": 443, "http": 80}
_URL: Final = pattern(r"(https?)://([^/?#@\\\s]+)(/[\x21-\x7e]*)?")
_AUTHORITY: Final = pattern(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5})?)?")
_HOST: Final = pattern(r"\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_-])?")
_HIGHEST_PORT: Final = 65_535
_INVALID: Final = "no valid URL"
REMEMBERED: Final = 256  # URLs without their queries: a mail server has one or two


class Endpoint(NamedTuple):
    """Where a server listens."""

    host: str
    """A name in ASCII or an address, as DNS and certificates have it: lower case, without a dot at the end."""
    port: int


class Origin(NamedTuple):
    """What requests must have in common to use one connection."""

    secure: bool
    """True: with TLS."""
    endpoint: Endpoint


class Target(NamedTuple):
    """Where one request goes."""

    origin: Origin
    authority: str
    """The host, with the port if it is not that of the scheme."""
    path: str
    """Path and query."""


def target_of(request: HttpRequest) -> Target:
    """Return where a request goes; raises ProtocolViolation for one that cannot be sent as it is."""
    sent, _, _ = request.url.partition("#")
    before, mark, query = sent.partition("?")
    origin, authority, path = _before_query(before)
    if not query.isascii() or not query.isprintable() or " " in query:
        raise ProtocolViolation(_INVALID)
    values = "".join(request.headers.values())
    if "\r" in values or "\n" in values or "\0" in values:
        raise ProtocolViolation("a header of the request has a line break")
    return Target(origin, authority, f"{path}{mark}{query}")


@lru_cache(REMEMBERED)
def _before_query(written: str) -> Target:
    """Read a URL up to its query, which the requests to a server have in common."""
    found = _URL.fullmatch(written)
    if found is None:
        raise ProtocolViolation(_INVALID)
    scheme, server, path = found.groups(default="/")
    parts = _AUTHORITY.fullmatch(server)
    host = "" if parts is None else _ascii(parts[1])
    port = PORTS[scheme] if parts is None or not parts[2] else int(parts[2])
    if _HOST.fullmatch(host) is None or not 0 < port <= _HIGHEST_PORT:
        raise ProtocolViolation(_INVALID)
    authority = host if port == PORTS[scheme] else f"{host}:{port}"
    return Target(Origin(scheme == "https", Endpoint(host.strip("[]"), port)), authority, path)


def _ascii(host: str) -> str:
    """Return the name of a host as DNS has it; empty: it has none."""
    try:
        return host.lower().removesuffix(".").encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def http1_request(request: HttpRequest, target: Target) -> bytes:
    """Return a request as HTTP/1.1 has it, body included."""
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += map(": ".join, request.headers.items())
    if request.body or request.method == "POST":
        lines.append(f"Content-Length: {len(request.body)}")
    # A server's cookie goes back as it came, in whatever encoding.
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + request.body
