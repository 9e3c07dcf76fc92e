"""Where a request goes: its URL, read strictly, because it may come from another server's answer."""

from functools import lru_cache
from re import compile as pattern
from typing import Final, NamedTuple

from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import ProtocolViolation

PORTS: Final = {"https": 443, "http": 80}
_URL: Final = pattern(r"(https?)://([^/?#@\\\s]+)((?:[/?][^#]*)?)(?:#.*)?")
_AUTHORITY: Final = pattern(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5})?)?")
_HOST: Final = pattern(r"\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_-])?")
_PATH: Final = pattern(r"[\x21-\x7e]*")
_FORBIDDEN: Final = pattern(r"[\0\r\n]")
_HIGHEST_PORT: Final = 65_535


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
    found = _URL.fullmatch(request.url)
    if found is None or _PATH.fullmatch(found[3]) is None:
        raise ProtocolViolation("no valid URL")
    if _FORBIDDEN.search("".join(request.headers.values())):
        raise ProtocolViolation("a header of the request has a line break")
    origin, authority = _server(found[1], found[2])
    path = found[3]
    return Target(origin, authority, path if path.startswith("/") else f"/{path}")


@lru_cache(maxsize=1024)
def _server(scheme: str, written: str) -> tuple[Origin, str]:
    found = _AUTHORITY.fullmatch(written)
    host = "" if found is None else _ascii(found[1])
    port = PORTS[scheme] if found is None or not found[2] else int(found[2])
    if _HOST.fullmatch(host) is None or not 0 < port <= _HIGHEST_PORT:
        raise ProtocolViolation("no valid URL")
    authority = host if port == PORTS[scheme] else f"{host}:{port}"
    return Origin(scheme == "https", Endpoint(host.strip("[]"), port)), authority


def _ascii(host: str) -> str:
    """Return the name of a host as DNS has it; empty: it has none."""
    try:
        return host.lower().removesuffix(".").encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def http1_request(request: HttpRequest, target: Target) -> bytes:
    """Return a request as HTTP/1.1 has it, body included."""
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body or request.method == "POST":
        lines.append(f"Content-Length: {len(request.body)}")
    # A server's cookie goes back as it came, in whatever encoding.
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + request.body
