"""Own the conversation of a probe with a server: one command at a time, each with its time, as a device of its own."""

import asyncio
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, TypeVar

from eas_watcher.commands import cookies
from eas_watcher.commands.http_status import raise_for_http
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.names import DeviceId, PolicyKey, ProtocolVersion
from eas_watcher.ports import Now, Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose

R = TypeVar("R")

ID_LENGTH: Final = 20  # digits after "probe"; a device id has at most 32 characters [MS-ASHTTP 2.2.1.1.1.1.3]


def probe_device(url: str, user: str) -> DeviceId:
    """Name the device of a probe: always the same for a mailbox, and never the one of a relay."""
    return DeviceId("probe" + sha256(f"{url}\n{user}".encode()).hexdigest()[:ID_LENGTH])


@dataclass
class Talk:
    """Send commands to a server, as one device; a 401 ends it, for each one counts as a try of the password."""

    account: Account
    transport: Transport
    now: Now
    version: ProtocolVersion | None = None
    policy_key: PolicyKey | None = None
    seconds: list[float] = field(default_factory=list)
    """How long each request took that was sent since `times` was asked last."""
    last: HttpReply | None = None
    _cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, command: Command[R]) -> R:
        """Return the reply to a command; raises EasError."""
        request = compose(self.account, command, self.version, self.policy_key, cookies.header(self._cookies))
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            reply = await self.transport.send(request)
        finally:
            self.seconds.append(clock() - began)
        self.last = reply
        self._cookies = cookies.merge(self._cookies, reply.set_cookies)
        raise_for_http(reply, self.now())
        return command.read(reply)

    def times(self) -> tuple[float, ...]:
        """Return how long the requests took since this was asked last."""
        taken, self.seconds = tuple(self.seconds), []
        return taken
