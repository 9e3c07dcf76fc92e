"""Lookups of names: what this host's resolver knows of a name, without delay for any other name.

The event loop's own lookups share few threads, on uvloop two: two names whose name servers are silent hold up every
other lookup there, and `loop.sock_connect` too, which looks up addresses as well [uvloop 0.23: loop.pyx; libuv:
threadpool.c]. So each name is looked up in a thread of its own. The system does the lookup: /etc/hosts, nsswitch.conf
and search domains count as they do for other programs.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from eas_watcher.own_thread import in_own_thread

AT_ONCE: Final = 32
"""Names that are looked up at the same time, so threads as well; the others wait."""

AddressInfo: TypeAlias = tuple[int, int, int, str, Any]
"""One address as socket.getaddrinfo returns it."""
Address: TypeAlias = "tuple[int, tuple[Any, ...]]"
"""The family of an address, and the address as the socket module has it."""
LookUp: TypeAlias = Callable[[str, int], Awaitable[Sequence[AddressInfo]]]


class LookupHangs(OSError):
    """No name server answered for a host in time."""

    def __init__(self, host: str) -> None:
        """Name the host, and what to check."""
        text = f"no name server answers for {host}: check /etc/resolv.conf of this host and the way to its name servers"
        super().__init__(text)
        self.strerror = text


async def look_up(host: str, port: int, flags: int = 0) -> Sequence[AddressInfo]:
    """Ask this host's resolver in a thread of its own; `flags` are those of getaddrinfo(3).

    Raises socket.gaierror for a name that is not known, other OSErrors.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=flags)
    try:
        return await in_own_thread(ask, f"look up {host}")
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from error


async def look_up_usable(host: str, port: int) -> Sequence[AddressInfo]:
    """Ask for addresses of the kinds that this host has, IPv4 or IPv6; raises what `look_up` raises."""
    return await look_up(host, port, socket.AI_ADDRCONFIG)


def read_numeric(host: str, port: int) -> list[Address]:
    """Return the address that a host is written as; empty: the host is a name. No name server is asked."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return []
    return _addresses(found)


class Lookups:
    """The lookups under way of a few names: each name is asked once for all callers that wait for it.

    A lookup goes on when its callers give up, and the next caller joins it: a name has one thread at most, however
    long its name servers are silent.
    """

    def __init__(self, look_up: LookUp = look_up) -> None:
        """Look names up with `look_up`."""
        self._look_up = look_up
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def find(self, host: str, port: int, limit: float) -> list[Address]:
        """Return the addresses of a host, at least one.

        Raises LookupHangs after `limit` seconds, socket.gaierror for a name that is not known, other OSErrors.
        """
        if numeric := read_numeric(host, port):
            return numeric
        lookup = self._running.get((host, port))
        if lookup is None:
            lookup = asyncio.get_running_loop().create_task(self._run(host, port), name=f"look up {host}")
            self._running[host, port] = lookup
            lookup.add_done_callback(partial(self._ended, (host, port)))
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(lookup)
        except TimeoutError as error:
            raise LookupHangs(host) from error

    async def close(self) -> None:
        """Wait for no lookup any more; their threads end by themselves."""
        running = list(self._running.values())
        for lookup in running:
            lookup.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, host: str, port: int) -> list[Address]:
        async with self._slots:
            found = _addresses(await self._look_up(host, port))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        return found

    def _ended(self, key: tuple[str, int], lookup: "asyncio.Task[list[Address]]") -> None:
        del self._running[key]
        if not lookup.cancelled():
            lookup.exception()  # retrieved here, because there may be no caller left that waits for it


def _addresses(found: Sequence[AddressInfo]) -> list[Address]:
    return [(int(family), where) for family, _, _, _, where in found]
