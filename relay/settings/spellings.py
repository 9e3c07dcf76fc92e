"""How values may be spelled in relay.toml: lists, hosts, domains, logins' domains, apps and Apple's ids.

What is meant without doubt is taken; a ValueError says what a value is instead, and never repeats it: it may be a
secret in the wrong place.
"""

import re
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

from relay.http.hosts import EVERYWHERE, overlap

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
MAIL_ADDRESS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,253}", re.ASCII)
"""A dot-atom and a domain [RFC 5322 3.4.1]."""
APPLE_ID: Final = re.compile(r"[A-Z0-9]{10}", re.ASCII)
"""Ids of keys and teams at Apple."""
BUNDLE_ID: Final = re.compile(r"[A-Za-z0-9.-]+", re.ASCII)
"""[Apple: CFBundleIdentifier]"""
PACKAGE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
"""[Android: applicationId], and what stores of others allow"""


def split(value: Any) -> Any:
    """Split a comma-separated text: the form of a list in an environment variable. Return other values unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def split_numbers(value: Any) -> Any:
    """Split a comma-separated text into whole numbers; pydantic rejects the parts that stay texts."""
    parts = split(value)
    if parts is value:
        return value
    return [int(part) if part.isdecimal() else part for part in parts]


def bare_host(value: str) -> str:
    """Return a host name or IP address, [::1] without its brackets; raises ValueError: what it is instead."""
    if "://" in value:
        raise ValueError("is a URL: write the host alone")
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    with suppress(ValueError):
        return str(ip_address(host))
    if ":" in value:
        raise ValueError("has a port: write the host here, and the port into the setting of its name")
    if "/" in value:
        raise ValueError("has a path: write the host alone")
    if not _HOST.fullmatch(value):
        raise ValueError("is no host name or IP address")
    return value


def listening_host(value: str) -> str:
    """Return what a listener may be told to listen on: `*`, or what `bare_host` takes."""
    return value if value == EVERYWHERE else bare_host(value)


def some_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses of a listener, each once; raises ValueError for none, or for one that is part of another."""
    hosts = tuple(dict.fromkeys(value))
    if not hosts:
        raise ValueError('is empty: write "*" for all addresses of this host, IPv4 and IPv6')
    if any(overlap(hosts[:place], [host]) for place, host in enumerate(hosts)):
        raise ValueError("names an address twice: 0.0.0.0 and :: are all addresses of IPv4 and of IPv6, and * is both")
    return hosts


def mail_domain(value: str) -> str:
    """Return a mail domain as addresses have it: lower-case, without @ and a dot at the end. Raises ValueError."""
    domain = value.lower().removeprefix("@").removesuffix(".")
    if "*" in domain:
        raise ValueError("holds a wildcard: list each domain")
    if "@" in domain:
        raise ValueError("holds an address: write what follows the @ alone")
    if "://" in domain or "/" in domain or ":" in domain:
        raise ValueError("holds a URL: write the domain of the addresses alone")
    if "\\" in domain:
        raise ValueError("holds a Windows domain or login: write the mail domain; user_domains takes Windows domains")
    if not domain or any(character.isspace() for character in domain):
        raise ValueError("holds what is no domain")
    return domain


def app_name(value: str) -> str:
    """Return the name of an app; raises ValueError for one with blanks within."""
    if any(character.isspace() for character in value):
        raise ValueError("holds a name with a blank: list each app by itself")
    return value


def printable(value: str) -> str:
    """Return a text of one line; raises ValueError for others, such as a pasted key."""
    if not value.isprintable():
        raise ValueError("has line breaks or control characters: if that is a secret, give the name of a file with it")
    return value


def words(value: Any) -> Any:
    """Split a comma-separated text, and write the numbers of a list as texts: 14.1 is the version "14.1"."""
    parts = split(value)
    return [str(part) if isinstance(part, float) else part for part in parts] if isinstance(parts, list) else parts


def header_name(value: str) -> str:
    """Return the name of a header [RFC 9110 5.1]; raises ValueError for others."""
    if not _HEADER.fullmatch(value):
        raise ValueError("is no name of a header: write it without colon and value, such as X-Forwarded-User")
    return value


def login_domain(value: str) -> str:
    """Return a mail or Windows domain as logins have it, without @ and backslash; raises ValueError for a login."""
    domain = value.removeprefix("@").removesuffix("\\")
    if not domain or any(character in "@\\/:" or character.isspace() for character in domain):
        raise ValueError("holds what is no domain of logins: write example.com, or the Windows domain alone")
    return domain


def mail_address(value: str) -> str:
    """Return a plain mail address, which no header of a mail reads as several; raises ValueError."""
    if not MAIL_ADDRESS.fullmatch(value):
        raise ValueError("is no plain mail address, as in canary@example.com")
    return value


def apple_id(value: str) -> str:
    """Return the id of a key or team at Apple, in capitals; raises ValueError."""
    found = value.upper()
    if not APPLE_ID.fullmatch(found):
        raise ValueError("must have ten letters and digits, as in ABCDE12345")
    return found


def bundle_id(value: str) -> str:
    """Return the bundle id of an app; raises ValueError for what is none."""
    app = app_name(value)
    if "*" in app:
        raise ValueError("holds a wildcard: list each app")
    if not BUNDLE_ID.fullmatch(app):
        raise ValueError("holds what is no bundle id: it has letters, digits, hyphens and dots, as com.example.mail")
    return app


def package_name(value: str) -> str:
    """Return the package name of an app; raises ValueError for what is none."""
    app = app_name(value)
    if "*" in app:
        raise ValueError("holds a wildcard: list each app")
    if ":" in app:
        raise ValueError("holds an app id of Firebase: write the package name, as com.example.mail")
    if not PACKAGE_NAME.fullmatch(app):
        raise ValueError("holds what is no package name: it has letters, digits and dots, as com.example.mail")
    return app
