"""The faults on our own side of the Internet that prevent a connection, each with a stable code and a remedy."""

import socket
from typing import Final

from relay.network.route import Proxy

UNAUTHENTICATED: Final = frozenset({401, 407})
"""The standard says 407 [RFC 9110 15.5.8]; tinyproxy answers a wrong password with 401 [observed: tinyproxy 1.11]."""


class NotConnected(OSError):
    """There is no connection; `reason` stays the same over releases, `remedy` says what to do."""

    def __init__(self, reason: str, remedy: str, *, lasting: bool = False, one_host: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.lasting = lasting
        """True if another attempt fails too until an operator acts."""
        self.one_host = one_host
        """True if the fault may concern this one host only."""


def floods(what: str) -> NotConnected:
    """Return the fault of a server whose answer never comes to an end; `what` says of what there is too much."""
    remedy = f"what answers sends {what} and no end: check the host, and whether a proxy answers in its place"
    return NotConnected("server-floods", remedy)


def source_unusable(error: OSError) -> NotConnected:
    """Return the fault of a source address that cannot be used; the error names the address."""
    remedy = f"set network.source_address to addresses of this host ({error.strerror})"
    return NotConnected("source-address-unusable", remedy, lasting=True)


def no_source(host: str, sources: tuple[str, ...]) -> NotConnected:
    """Return the fault of a host without an address of the kind that may be used."""
    remedy = f"{host} has no address that {' or '.join(sources)} can reach: add one of IPv4 or IPv6 to it"
    remedy = f"set network.source_address: {remedy}"
    return NotConnected("source-address-of-another-kind", remedy, lasting=True, one_host=True)


def lookup_hangs(host: str) -> NotConnected:
    """Return the fault of name servers that do not answer in time."""
    remedy = f"no name server answers for {host}: check /etc/resolv.conf of this host and the way to its name servers"
    return NotConnected("name-lookup-timed-out", remedy)


def proxy_away(proxy: Proxy, error: OSError) -> NotConnected:
    """Return the fault of a failed connection to the proxy itself."""
    if isinstance(error, NotConnected):
        return error
    if isinstance(error, socket.gaierror):
        remedy = f"the name of the proxy {proxy} is not found: check {proxy.setting} and this host's DNS"
        return NotConnected("proxy-name-not-resolved", remedy)
    if isinstance(error, ConnectionRefusedError):
        remedy = f"nothing listens at the proxy {proxy}: check that it runs, and its port in {proxy.setting}"
        return NotConnected("proxy-refused", remedy)
    remedy = f"no way leads to the proxy {proxy} ({error.strerror or error}): check routes, firewall, {proxy.setting}"
    return NotConnected("proxy-unreachable", remedy)


def proxy_timed_out(proxy: Proxy, waited_for: str) -> NotConnected:
    """Return the fault of a proxy that hangs; `waited_for` says what did not come in time."""
    remedy = f"the proxy {proxy} hangs, no {waited_for} in time: check its load, and that it reaches the Internet"
    return NotConnected("proxy-timed-out", remedy)


def proxy_not_trusted(proxy: Proxy, wrong: str, to_do: str = "") -> NotConnected:
    """Return the fault of a proxy whose own certificate does not verify; `to_do`: the remedy if its CA is known."""
    to_do = to_do or "set network.proxy_ca_file to the CA that signs for it"
    remedy = f"the certificate of the proxy {proxy}: {wrong or 'it does not verify'}: {to_do}"
    return NotConnected("proxy-certificate-not-trusted", remedy, lasting=True)


def proxy_without_tls(proxy: Proxy, wrong: str) -> NotConnected:
    """Return the fault of a proxy to which TLS fails."""
    remedy = f"TLS to the proxy {proxy} fails ({wrong}): write {proxy.setting} with http:// if it has no TLS"
    return NotConnected("proxy-tls-failed", remedy)


def proxy_not_http(proxy: Proxy, how: str) -> NotConnected:
    """Return the fault of a peer that is no HTTP proxy."""
    remedy = f"what answers at {proxy} is no HTTP proxy, {how}: check host and port in {proxy.setting}"
    return NotConnected("proxy-speaks-no-http", remedy)


def proxy_hangs_up(proxy: Proxy) -> NotConnected:
    """Return the fault of a proxy that closes the connection without an answer."""
    remedy = f"the proxy {proxy} closes without an answer: see its log, whether this host may use it"
    return NotConnected("proxy-hangs-up", remedy)


def proxy_refuses(proxy: Proxy, target: str, status: int, schemes: tuple[str, ...]) -> NotConnected:
    """Return the fault that a status other than 2xx means; `target` is the destination of the tunnel."""
    if status in UNAUTHENTICATED:
        return NotConnected("proxy-authentication-required", _authentication(proxy, schemes), lasting=True)
    if status >= 500:  # noqa: PLR2004  # 5xx [RFC 9110 15.6]
        remedy = f"the proxy {proxy} answers {status}, it cannot reach {target}: check its DNS, routes and firewall"
        return NotConnected("proxy-cannot-reach", remedy)
    remedy = f"the proxy {proxy} answers {status}: allow this host to CONNECT to {target} in the proxy's rules"
    return NotConnected("proxy-denied", remedy, lasting=True, one_host=True)


def _authentication(proxy: Proxy, schemes: tuple[str, ...]) -> str:
    if schemes and "basic" not in {scheme.lower() for scheme in schemes}:
        return (
            f"the proxy {proxy} takes {', '.join(schemes)} only, the relay knows Basic: let the proxy offer Basic to "
            "this host, or let this host through without authentication"
        )
    if proxy.user:
        return f"the proxy {proxy} refuses {proxy.user}: check network.proxy_user and network.proxy_password_file"
    if proxy.setting != "network.proxy":
        return f"the proxy {proxy} wants a user, which only network.proxy can have: move {proxy.setting} there"
    return f"the proxy {proxy} wants a user: set network.proxy_user and network.proxy_password_file"
