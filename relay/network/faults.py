"""The faults on our own side of the Internet that prevent a connection, other than those of a proxy."""

from eas_watcher.proxy.faults import NotConnected


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
