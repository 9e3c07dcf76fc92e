"""Checks and conversions of the URLs in relay.toml."""

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from eas_watcher.autodiscover.urls import EAS_PATH

OTHER_SERVICES: Final = {
    "/owa": "Outlook on the web (OWA)",
    "/ecp": "the Exchange admin center (ECP)",
    "/exchange": "Outlook Web Access of older versions",
    "/ews": "Exchange Web Services (EWS)",
    "/autodiscover": "Autodiscover",
    "/mapi": "MAPI over HTTP",
    "/rpc": "Outlook Anywhere (RPC)",
    "/oab": "the offline address book",
    "/powershell": "Exchange PowerShell",
}
"""How the paths of what Exchange offers beside ActiveSync begin."""


class UrlInvalid(ValueError):
    """A URL is not usable; the text says why, without the URL, because the URL may contain a password."""


def split(url: str) -> SplitResult:
    """Return the parts of a URL; raises UrlInvalid if it has no host or an invalid port."""
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UrlInvalid("is no URL with a host")
    return parts


def eas_url(url: str) -> str:
    """Return the URL of a mail server, with EAS_PATH if it has no path; raises UrlInvalid."""
    if "\\" in url:
        raise UrlInvalid("holds a backslash")
    if "://" not in url:
        raise UrlInvalid("does not begin with https://")
    parts = split(url)
    if parts.scheme != "https":
        raise UrlInvalid("is not https://, so passwords would travel in the clear")
    if any(character.isspace() for character in url):
        raise UrlInvalid("holds a blank")
    if parts.username is not None:
        raise UrlInvalid("holds a user: each login comes with its registration")
    if parts.query or parts.fragment:
        raise UrlInvalid("has more than host, port and path")
    path = parts.path.rstrip("/")
    for beginning, name in OTHER_SERVICES.items():
        if f"{path.lower()}/".startswith(f"{beginning}/") and not path.lower().endswith(EAS_PATH.lower()):
            raise UrlInvalid(f"is the address of {name}, not of ActiveSync")
    return parts._replace(path=path or EAS_PATH).geturl()


def scheme_of(url: str) -> str:
    """Return the scheme of a URL without SQLAlchemy's driver: "sqlite", "postgresql", "https"."""
    return url.partition("://")[0].partition("+")[0].lower()


def sqlite_file(url: str, folder: Path) -> Path:
    """Return the file that sqlite:///FILE names, relative to `folder`; raises UrlInvalid."""
    name = url.partition("://")[2]
    if not name.startswith("/") or len(name) == 1 or "?" in name:
        raise UrlInvalid("names no file")
    return (folder / name[1:]).absolute()


def sqlite_url(file: Path) -> str:
    """Return SQLAlchemy's URL of an SQLite file."""
    return f"sqlite:///{file}"


def postgresql_url(url: str) -> str:
    """Return SQLAlchemy's URL for asyncpg; raises UrlInvalid, also if the URL contains a password."""
    if scheme_of(url) not in ("postgresql", "postgres"):
        raise UrlInvalid("is neither sqlite:/// nor postgresql://")
    parts = urlsplit(url) if names_socket(url) else split(url)
    if parts.password is not None or "password" in parse_qs(parts.query, keep_blank_values=True):
        raise UrlInvalid("holds a password, which every error message could show")
    if not parts.username or len(parts.path) < len("/x"):
        raise UrlInvalid("names no user or no database")
    return parts._replace(scheme="postgresql+asyncpg").geturl()


def names_socket(url: str) -> bool:
    """Return whether a URL names the folder of a local socket, e.g. postgresql://relay@/relay?host=/run/postgresql."""
    try:
        return parse_qs(urlsplit(url).query).get("host", [""])[0].startswith("/")
    except ValueError:
        return False


def names_sslmode(url: str) -> bool:
    """Return whether a PostgreSQL URL itself says how TLS is used."""
    return bool({"sslmode", "ssl"} & parse_qs(urlsplit(url).query, keep_blank_values=True).keys())


def with_password(url: str, password: str) -> str:
    """Return a URL that has a user with a password inserted."""
    scheme, _, rest = url.partition("://")
    user, _, host = rest.partition("@")
    return f"{scheme}://{user}:{quote(password, safe='')}@{host}"
