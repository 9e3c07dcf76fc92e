"""Checks of [network] and of each provider's own proxy: the routes to Apple, Google and push services."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network

from relay.http.addresses import Network
from relay.network.route import DIRECT, Route
from relay.settings.files import Files
from relay.settings.proxies import ProxyChecks, read_proxy
from relay.settings.push_sections import NetworkSection
from relay.settings.source import Faults, Sections


class NetworkChecks:
    """Checks [network] and makes the routes to providers; faults go to `files.faults`."""

    def __init__(self, sections: Sections, files: Files, proxies: ProxyChecks) -> None:
        """[network] is not read before `check`: a role that does not push ignores it."""
        self._sections = sections
        self._files = files
        self._proxies = proxies
        self._faults = files.faults
        self._shared = DIRECT

    def check(self) -> None:
        """Check the proxy and the source addresses that all providers share; for roles that push."""
        section = self._sections.read("network", NetworkSection, self._faults)
        self._shared = Route(self._proxies.check("network", section), self._source_addresses(section))

    def route(self, key: str, own: str | None) -> Route:
        """Return the route to one provider; `own` is the value of its own key for a proxy: a URL, "none", or None."""
        if own is None:
            return self._shared
        proxy = read_proxy(key, own, self._faults)
        return Route(None if proxy is None else replace(proxy, takes_user=False), self._shared.sources)

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
