"""The cookies of one watch, in which servers keep load-balancer and back-end affinity [MS-ASHTTP 2.2.1.2.2.4].

They belong to one user, so they are never shared between watches and never stored.
"""

from http.cookies import CookieError, SimpleCookie
from typing import Final

KEPT: Final = 16  # cookies a watch; Exchange sets three
LENGTH: Final = 4096  # characters of one value; a longer one is dropped


def merge(kept: dict[str, str], set_cookies: tuple[str, ...]) -> dict[str, str]:
    """Return the cookies to send after an answer that set some."""
    if not set_cookies:
        return kept
    merged = dict(kept)
    for line in set_cookies:
        try:
            read: SimpleCookie = SimpleCookie(line)
        except CookieError:
            continue  # a malformed cookie cannot be sent back
        for name, morsel in read.items():
            merged.pop(name, None)
            if morsel.value and morsel["max-age"] != "0" and len(morsel.value) <= LENGTH:
                merged[name] = morsel.coded_value
    return dict(list(merged.items())[-KEPT:])


def header(kept: dict[str, str]) -> str:
    """Return the value of the Cookie header; empty without cookies."""
    return "; ".join(f"{name}={value}" for name, value in kept.items())
