"""Own from which addresses of this host connections come: fixed ones for firewalls, several ones for many connections.

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
"""IP_BIND_ADDRESS_NO_PORT of Linux: the port is picked at connect, so that it need be unique per destination only."""


class Sources:
    """Bind sockets to the addresses of their kind in turn; without any address the host chooses."""

    def __init__(self, addresses: Iterable[str]) -> None:
        """Take addresses of this host, as many of IPv4 and of IPv6 as wanted; raises ValueError when one is none."""
        kinds: dict[int, list[str]] = {}
        for address in addresses:
            family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6  # noqa: PLR2004  # IPv4
            kinds.setdefault(family, []).append(address)
        self._turns: dict[int, Iterator[str]] = {family: cycle(same) for family, same in kinds.items()}

    def serves(self, family: int) -> bool:
        """Tell whether addresses of a kind may be connected to; one without a source is not to be used at all."""
        return not self._turns or family in self._turns

    def bind(self, sock: socket.socket) -> None:
        """Bind a socket that will connect; raises OSError, which names the address, when it is not this host's."""
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
