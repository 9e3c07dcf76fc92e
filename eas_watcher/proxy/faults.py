"""The faults of a proxy that prevent a connection, each with a stable code and a remedy."""

from typing import Final

from eas_watcher.proxy.proxy import Proxy

UNAUTHENTICATED: Final = frozenset({401, 407})
"""The standard says 407 [RFC 9110 15.5.8]; tinyproxy answers a wrong password with 401 [observed: tinyproxy 1.11]."""
REFUSED: Final = "proxy-authentication-required"
CANNOT_REACH: Final = "proxy-cannot-reach"
NOT_FOUND: Final = "target-name-not-resolved"


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


def proxy_away(proxy: Proxy, error: OSError, *, name_unknown: bool = False) -> NotConnected:
    """Return the fault of a failed connection to the proxy itself; `name_unknown`: its name has no address."""
    if isinstance(error, NotConnected):
        return error
    if name_unknown:
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
    if not proxy.takes_user:
        to_do = (
            to_do or f"move {proxy.setting} to network.proxy, and set network.proxy_ca_file to the CA that signs for it"
        )
    to_do = to_do or f"set {proxy.setting}_ca_file to the CA that signs for it"
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
        return NotConnected(REFUSED, _authentication(proxy, schemes), lasting=True)
    if status >= 500:  # noqa: PLR2004  # 5xx [RFC 9110 15.6]
        remedy = f"the proxy {proxy} answers {status}, it cannot reach {target}: check its DNS, routes and firewall"
        return NotConnected(CANNOT_REACH, remedy)
    remedy = f"the proxy {proxy} answers {status}: allow this host to CONNECT to {target} in the proxy's rules"
    return NotConnected("proxy-denied", remedy, lasting=True, one_host=True)


def proxy_not_socks(proxy: Proxy, how: str) -> NotConnected:
    """Return the fault of a peer that is no SOCKS5 proxy."""
    remedy = f"what answers at {proxy} is no SOCKS5 proxy, {how}: check host, port and scheme in {proxy.setting}"
    return NotConnected("proxy-speaks-no-socks", remedy)


def proxy_replies(proxy: Proxy, target: str, why: str, *, denied: bool) -> NotConnected:
    """Return the fault that a reply of SOCKS5 means; `why` says it in words, `denied`: the proxy's rules forbid it."""
    if denied:
        remedy = f"the proxy {proxy} says that {why}: allow this host to connect to {target} in the proxy's rules"
        return NotConnected("proxy-denied", remedy, lasting=True, one_host=True)
    remedy = f"the proxy {proxy} cannot reach {target} ({why}): check its DNS, routes and firewall"
    return NotConnected(CANNOT_REACH, remedy)


def target_not_found(proxy: Proxy, host: str, error: OSError) -> NotConnected:
    """Return the fault of a name that the relay does not find, though it is to tell the proxy its address."""
    remedy = (
        f"{host} is not found here ({error.strerror or error}): check this host's DNS, or write {proxy.setting} with "
        "socks5h://, then the proxy looks names up"
    )
    return NotConnected(NOT_FOUND, remedy, one_host=True)


def proxy_wants_login(proxy: Proxy) -> NotConnected:
    """Return the fault of a SOCKS5 proxy that refuses the user and the password, or the lack of them."""
    return NotConnected(REFUSED, _login(proxy), lasting=True)


def proxy_ticket_missing(proxy: Proxy, why: str) -> NotConnected:
    """Return the fault of a Kerberos ticket for the proxy that cannot be had; `why` has the KDC's words."""
    remedy = (
        f"no Kerberos ticket for the proxy {proxy} ({why}): check {proxy.setting}_user, {proxy.setting}_keytab_file, "
        f"and that the KDC knows HTTP/{proxy.host}"
    )
    return NotConnected("proxy-ticket-missing", remedy)


def proxy_withheld(proxy: Proxy, seconds: float) -> NotConnected:
    """Return the fault of a credential that the proxy refused, and that is not shown again for some time."""
    remedy = f"{_login(proxy)}; not shown for {seconds:.0f} s, lest the account be locked: restart the relay to try now"
    return NotConnected(REFUSED, remedy, lasting=True)


def _authentication(proxy: Proxy, schemes: tuple[str, ...]) -> str:
    offered = {scheme.lower() for scheme in schemes}
    shown = "negotiate" if proxy.negotiates else "basic"
    if not schemes or shown in offered:
        return _login(proxy)
    others = {"basic": "negotiate", "negotiate": "basic"}
    if others[shown] in offered and proxy.takes_user:
        return f'the proxy {proxy} takes {", ".join(schemes)} only: set {proxy.setting}_auth = "{others[shown]}"'
    return (
        f"the proxy {proxy} takes {', '.join(schemes)} only, the relay knows Basic, and Negotiate with Kerberos; NTLM "
        "is broken and never spoken: let the proxy offer one of the two to this host, or let this host through without "
        "authentication"
    )


def _login(proxy: Proxy) -> str:
    if proxy.negotiates:
        who = proxy.user or "the ticket of this process"
        return (
            f"the proxy {proxy} refuses {who}: check {proxy.setting}_user and {proxy.setting}_keytab_file, and that "
            f"the proxy has the key of HTTP/{proxy.host}"
        )
    if proxy.user:
        return f"the proxy {proxy} refuses {proxy.user}: check {proxy.setting}_user and {proxy.setting}_password_file"
    if not proxy.takes_user:
        return f"the proxy {proxy} wants a user, which only network.proxy can have: move {proxy.setting} there"
    return f"the proxy {proxy} wants a user: set {proxy.setting}_user and {proxy.setting}_password_file"
