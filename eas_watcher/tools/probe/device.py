"""The device as which the probe asks a server: one command at a time, each with its time."""

import asyncio
from dataclasses import replace
from hashlib import sha256
from typing import Final, TypeVar

from eas_watcher.auth.anonymous import NoCredential
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import Command, HttpReply, HttpRequest
from eas_watcher.errors import ServerRenewed
from eas_watcher.machine.memory import Partnership
from eas_watcher.machine.state import RATE
from eas_watcher.names import DeviceId, PolicyKey, ProtocolVersion
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.client import Answer, EasClient
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask

R = TypeVar("R")

ID_LENGTH: Final = 20  # digits after "probe"; a device id has at most 32 characters [MS-ASHTTP 2.2.1.1.1.1.3]


def probe_device(url: str, user: str) -> DeviceId:
    """Return the id of a probe's device: always the same for a mailbox, and never that of a relay."""
    return DeviceId("probe" + sha256(f"{url}\n{user}".encode()).hexdigest()[:ID_LENGTH])


class Stopwatch(HoldsInTask):
    """A transport that measures how long its requests take."""

    def __init__(self, transport: Transport) -> None:
        """Take the transport that carries the requests."""
        self._transport = transport
        self.seconds: list[float] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        """Carry a request, and note how long that took, however it ends."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            return await self._transport.send(request)
        finally:
            self.seconds.append(clock() - began)


class ProbeDevice:
    """Sends the probe's commands as one device; the password is tried once, for each 401 counts towards a lock-out."""

    def __init__(self, account: Account, transport: Transport, admissions: Admissions) -> None:
        """Take the account, the transport that shows its credential, and the admissions of the program."""
        self._stopwatch = Stopwatch(transport)
        self._user = account.user
        self._client = EasClient(account, self._stopwatch, admissions, RATE, candidate=True)
        self._partnership = Partnership()

    @property
    def version(self) -> ProtocolVersion | None:
        """The protocol version of all commands; None: not chosen yet."""
        return self._partnership.version

    @version.setter
    def version(self, version: ProtocolVersion) -> None:
        self._partnership = replace(self._partnership, version=version)

    @property
    def policy_key(self) -> PolicyKey | None:
        """The policy key of all commands; None: the server granted none."""
        return self._partnership.policy_key

    @policy_key.setter
    def policy_key(self, key: PolicyKey | None) -> None:
        self._partnership = replace(self._partnership, policy_key=key)

    async def look(self, transport: Transport) -> HttpReply:
        """Return the answer to OPTIONS with an empty token, over a transport that shows no credential.

        Exchange answers who issues tokens; no user is tried by it.
        """
        anonymous = self._client.showing(NoCredential(self._user, "Bearer"), transport)
        return (await anonymous.fetch(Options(), Partnership())).http

    async def send(self, command: Command[R]) -> Answer[R]:
        """Return the answer to a command; raises EasError.

        A server that wants all clients to start over is asked once more: the probe has only just started.
        """
        try:
            return await self._client.send(command, self._partnership)
        except ServerRenewed:
            return await self._client.send(command, self._partnership)

    async def ask(self, command: Command[R]) -> R:
        """Return the reply to a command; raises EasError."""
        return (await self.send(command)).reply

    def times(self) -> tuple[float, ...]:
        """Return how many seconds each request took since this was called last."""
        taken, self._stopwatch.seconds = tuple(self._stopwatch.seconds), []
        return taken
