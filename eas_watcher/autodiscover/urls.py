"""Which URLs that a server names may be followed: only https, only at hosts that the operator named.

The password is sent to the URL, so the server's answer alone is not enough [MS-ASHTTP 3.1.5.2.2].
"""

from collections.abc import Container
from re import compile as pattern
from typing import Final
from urllib.parse import SplitResult, urlsplit

EAS_PATH: Final = "/Microsoft-Server-ActiveSync"  # [MS-ASHTTP 2.2.1.1.1]
LONGEST: Final = 2048  # characters
HTTPS: Final = 443

_PRINTABLE: Final = pattern(r"[!-~]+")
_HOST_AND_PORT: Final = pattern(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def eas_location(text: str, hosts: Container[str]) -> str | None:
    """Return the ActiveSync URL that a server named, or None when it may not be followed.

    `hosts` are lower-case, with their port unless it is 443. The query is left out, because the relay writes its own; a
    missing path becomes EAS_PATH.
    """
    parts = _split(text)
    if parts is None or _host_and_port(parts) not in hosts:
        return None
    return f"https://{_host_and_port(parts)}{EAS_PATH if parts.path in {'', '/'} else parts.path}"


def followed(text: str, hosts: Container[str]) -> str | None:
    """Return a URL without its fragment, or None when it may not be followed."""
    parts = _split(text)
    if parts is None or _host_and_port(parts) not in hosts:
        return None
    return parts._replace(netloc=_host_and_port(parts), fragment="").geturl()


def resolved(location: str, asked: str) -> str:
    """Return the URL that a redirect names; a path is one at the host of the https URL `asked` [RFC 9110 10.2.2]."""
    is_path = location.startswith("/") and not location.startswith("//")
    return f"https://{host_and_port(asked)}{location}" if is_path else location


def host_and_port(text: str) -> str | None:
    """Return host and port of an https URL, lower-case, the port unless it is 443; None for any other text."""
    parts = _split(text)
    return None if parts is None else _host_and_port(parts)


def _split(text: str) -> SplitResult | None:
    """Split an https URL that names no user; None for any other text."""
    if len(text) > LONGEST or not _PRINTABLE.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        sound = parts.scheme == "https" and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return None
    return parts if sound and "\\" not in text and _HOST_AND_PORT.fullmatch(_host_and_port(parts)) else None


def _host_and_port(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in {None, HTTPS} else f"{host}:{parts.port}"
