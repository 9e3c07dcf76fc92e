"""Checks of [network] and of each provider's own proxy: the routes to Apple, Google and push services."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final

from relay.http.addresses import Network
from relay.network.route import DIRECT, Proxy, Route
from relay.settings.files import Files
from relay.settings.sections import NetworkSection
from relay.settings.source import Faults, Sections
from relay.settings.urls import UrlInvalid, proxy_parts

PROXY: Final = "network.proxy"
NONE: Final = "none"
"""The value of a provider's own proxy that means: connect without a proxy."""


class NetworkChecks:
    """Checks [network] and makes the routes to providers; faults go to `files.faults`."""

    def __init__(self, sections: Sections, files: Files) -> None:
        """[network] is not read before `check`: a role that does not push ignores it."""
        self._sections = sections
        self._files = files
        self._faults = files.faults
        self._shared = DIRECT

    def check(self) -> None:
        """Check the proxy and the source addresses that all providers share; for roles that push."""
        section = self._sections.read("network", NetworkSection, self._faults)
        self._shared = Route(self._proxy(section), self._source_addresses(section))

    def route(self, key: str, own: str | None) -> Route:
        """Return the route to one provider; `own` is the value of its own key for a proxy: a URL, "none", or None."""
        if own is None:
            return self._shared
        return Route(None if own.lower() == NONE else self._read(key, own), self._shared.sources)

    def _proxy(self, section: NetworkSection) -> Proxy | None:
        given = [key for key in ("proxy_user", "proxy_password_file", "proxy_ca_file") if getattr(section, key)]
        if section.proxy is None:
            for key in given:
                if PROXY not in self._faults:
                    self._faults.add(f"network.{key}", "is set, but network.proxy is not", "Set network.proxy too.")
            return None
        proxy = self._read(PROXY, section.proxy)
        user, password = section.proxy_user or "", ""
        if ":" in user or not user.isprintable():
            # [RFC 7617 2]: the proxy takes the first colon for the end of the user.
            wrong = "holds a colon or a control character"
            self._faults.add("network.proxy_user", wrong, "Give the user alone; the password is a file.")
        if bool(user) != (section.proxy_password_file is not None):
            missing = "network.proxy_password_file" if user else "network.proxy_user"
            remedy = "Set network.proxy_user and network.proxy_password_file both, or neither."
            self._faults.require(missing, None, remedy)
        if section.proxy_password_file is not None:
            key = "network.proxy_password_file"
            password = self._files.password(key, self._files.path(section.proxy_password_file)) or ""
        ca_file = self._files.ca("network.proxy_ca_file", section.proxy_ca_file)
        if proxy is None:
            return None
        if ca_file is not None and not proxy.tls:
            wrong = "is set, but network.proxy is no https:// URL"
            remedy = "Remove it: the CA of a proxy that opens TLS belongs into apns.ca_file and fcm.ca_file."
            self._faults.add("network.proxy_ca_file", wrong, remedy)
        return Proxy(proxy.host, proxy.port, PROXY, user, password, proxy.tls, ca_file)

    def _read(self, key: str, url: str) -> Proxy | None:
        """Return the proxy at a URL, without user and password."""
        try:
            parts = proxy_parts(url)
        except UrlInvalid as error:
            none = "" if key == PROXY else ', or "none"'
            self._faults.add(key, str(error), f"Write http://HOST:PORT{none}.")
            return None
        return Proxy(parts.hostname or "", parts.port or 0, key, tls=parts.scheme == "https")

    def _source_addresses(self, section: NetworkSection) -> tuple[str, ...]:
        key = "network.source_address"
        found = read_addresses(key, section.source_address, self._faults)
        versions = [ip_address(address).version for address in found]
        for version in sorted(set(versions)):
            if versions.count(version) > 1:
                wrong = f"holds more than one address of IPv{version}"
                self._faults.add(key, wrong, "Keep one of IPv4, one of IPv6, or one of each.")
        return found


def read_addresses(key: str, texts: Iterable[str], faults: Faults) -> tuple[str, ...]:
    """Return source addresses in canonical form, each once; empty if one of them is faulty."""
    found: list[str] = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            faults.add(key, "holds what is no IP address", "Write addresses of this host, not names.")
            return ()
        if address.is_unspecified or address.is_multicast:
            faults.add(key, "holds an address nobody can come from", "Write addresses of this host.")
            return ()
        found.append(str(address))
    return tuple(dict.fromkeys(found))


def read_networks(key: str, texts: Iterable[str], faults: Faults) -> tuple[Network, ...]:
    """Return addresses and networks, an address as the network of itself; empty if one of them is faulty."""
    found: list[Network] = []
    for text in texts:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            faults.add(key, "holds what is no address or network", "Write addresses or networks, not names.")
            return ()
        if network.prefixlen == 0:
            faults.add(key, "holds a network that everybody is in", "Write the addresses of your proxies alone.")
            return ()
        found.append(network)
    return tuple(dict.fromkeys(found))
