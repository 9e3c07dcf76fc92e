"""The source addresses of connections: a fixed one for firewalls, several for many connections.

From one address there are some 28,000 ports towards one address and port of a server [Linux: ip_local_port_range].
"""

import errno
import socket
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from itertools import cycle
from typing import Final

BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux: connect chooses the port, which must be unique per destination only."""


class Sources:
    """Addresses of this host, to which sockets are bound in turn; without any, the operating system chooses."""

    def __init__(self, addresses: Iterable[str]) -> None:
        """Use any number of IPv4 and IPv6 addresses; raises ValueError for a text that is no address."""
        kinds: dict[int, list[str]] = {}
        for address in addresses:
            family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6  # noqa: PLR2004  # IPv4
            kinds.setdefault(family, []).append(address)
        self._turns: dict[int, Iterator[str]] = {family: cycle(same) for family, same in kinds.items()}

    def serves(self, family: int) -> bool:
        """Return True if connections to addresses of a kind are allowed; with sources, one must be of that kind."""
        return not self._turns or family in self._turns

    def bind(self, sock: socket.socket) -> None:
        """Bind a socket before it connects; raises OSError, which names the address, if this host does not have it."""
        if not self._turns:
            return
        turn = self._turns.get(sock.family)
        if turn is None:
            raise OSError(errno.EAFNOSUPPORT, "no source address of this kind")
        address = next(turn)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        try:
            sock.bind((address, 0))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {address}") from error
