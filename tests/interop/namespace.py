"""A network namespace whose only neighbour is this host: no route, no DNS."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.packages import install


@dataclass(frozen=True)
class Addresses:
    """Addresses of one kind: the host's on the link, and the namespace's, of which the kernel uses the first."""

    host: str
    first: str
    second: str
    bits: int


# Documentation and private addresses, which no machine that runs tests should have [RFC 5737, RFC 4193].
IPV4: Final = Addresses("198.51.100.1", "198.51.100.2", "198.51.100.3", 29)
IPV6: Final = Addresses("fd00:7265:6c61::1", "fd00:7265:6c61::2", "fd00:7265:6c61::3", 64)

HAS_IPV6: Final = Path("/proc/net/if_inet6")
"""Used if the kernel has IPv6 enabled."""


@contextmanager
def lonely_namespace() -> Iterator[tuple[str, ...]]:
    """Make a namespace; yield the command that runs another one in it. Raises Unavailable, NotPermitted."""
    install("iproute2")
    name = f"relay{os.getpid()}"
    outside, inside = f"{name}o"[-15:], f"{name}i"[-15:]
    within = ("ip", "netns", "exec", name)
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        for addresses, flags in ((IPV4, ()), (IPV6, ("nodad",))):
            if addresses is IPV6 and not HAS_IPV6.exists():
                continue
            _run("ip", "address", "add", f"{addresses.host}/{addresses.bits}", "dev", outside, *flags)
            for address in (addresses.first, addresses.second):
                _run(*within, "ip", "address", "add", f"{address}/{addresses.bits}", "dev", inside, *flags)
        _run("ip", "link", "set", outside, "up")
        _run(*within, "ip", "link", "set", inside, "up")
        _run(*within, "ip", "link", "set", "lo", "up")
        yield within
    finally:
        _run("ip", "netns", "delete", name)  # and the link with it


class NotPermitted(Exception):
    """The kernel or ip refused something, e.g. in a container that may make no namespaces."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise NotPermitted(f"{' '.join(command)}: {done.stderr.strip()}")
