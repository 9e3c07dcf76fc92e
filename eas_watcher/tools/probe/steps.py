"""The steps of a probe: what a relay does at its start with a server, each once, and what they found.

Nothing in the mailbox is changed. The server keeps one device, the probe's own, which a relay never uses.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.flow import converse
from eas_watcher.commands.folder_sync import INBOX, FolderSync, FolderSyncReply
from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.provision import Acknowledgement, Grant, negotiate
from eas_watcher.commands.request import Command
from eas_watcher.commands.settings import InformDevice
from eas_watcher.commands.sync import CollectionRequest, Sync
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RemoteWipeRequested,
    Unauthorized,
)
from eas_watcher.machine.folders import find_subfolders
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion, SyncKey
from eas_watcher.ports import Now, Transport
from eas_watcher.reasons import Reason
from eas_watcher.tools.probe.device import ProbeDevice
from eas_watcher.tools.probe.finding import Finding, Grade
from eas_watcher.tools.probe.heartbeats import find_limits
from eas_watcher.tools.probe.logins import read_schemes_offered
from eas_watcher.transport.tls_probe import Handshake

R = TypeVar("R")

EXPIRY: Final = timedelta(days=30)
WINDOWS: Final = 100  # Syncs at most, 25 items each

Shake = Callable[[], Awaitable[Handshake]]


class Probe:
    """Takes the steps in order; the first that goes badly is the last."""

    def __init__(
        self,
        device: ProbeDevice,
        anonymous: Transport,
        shake: Shake,
        now: Now,
        acknowledgement: Acknowledgement,
        patience: float,
    ) -> None:
        """Take a device that has sent nothing yet, and a transport that shows no credential.

        `shake` makes a TLS handshake, `acknowledgement` is the answer to a policy, `patience` is seconds for a Ping.
        """
        self._device = device
        self._anonymous = anonymous
        self._shake = shake
        self._now = now
        self._acknowledgement = acknowledgement
        self._patience = patience
        self._offer = Capabilities((), frozenset())
        self._inbox = CollectionId("")

    async def run(self) -> AsyncIterator[Finding]:
        """Yield the finding of each step."""
        steps = {
            "TLS": self._look_at_tls,
            "Login": self._ask_schemes,
            "OPTIONS": self._discover,
            "Provision": self._provision,
            "Settings": self._inform,
            "FolderSync": self._read_hierarchy,
            "Sync": self._sync,
            "Ping": self._ping,
        }
        for name, step in steps.items():
            try:
                finding = await step()
            except EasError as error:
                finding = Finding(name, Grade.BAD, _explain(error), self._device.times())
            yield finding
            if finding.grade is Grade.BAD:
                return

    async def _look_at_tls(self) -> Finding:
        """Look at the certificate before the password is sent anywhere."""
        shaken = await self._shake()
        return judge_tls(shaken, self._now())

    async def _ask_schemes(self) -> Finding:
        """Ask without a credential how users may log in."""
        return read_schemes_offered(await self._device.look(self._anonymous))

    async def _discover(self) -> Finding:
        """Send OPTIONS with the credential, for the first time."""
        device = self._device
        answer = await device.send(Options())
        self._offer = answer.reply
        device.version = version = choose_version(self._offer, tuple(ProtocolVersion))
        offered = [*(known.wire for known in self._offer.versions), *self._offer.unknown]
        build = answer.http.headers.get("ms-server-activesync", "")[:40]
        text = (
            f"versions {', '.join(sorted(offered, key=_numbers))}; {version.wire} is taken"
            f"; {len(self._offer.commands)} commands{f'; the server is {build}' if build else ''}"
        )
        missing = {"FolderSync", "Sync", "Ping"} - self._offer.commands
        if missing and self._offer.commands:
            return Finding("OPTIONS", Grade.BAD, f"{text}; not offered: {', '.join(sorted(missing))}", device.times())
        return Finding("OPTIONS", Grade.GOOD, text, device.times())

    async def _provision(self) -> Finding:
        if "Provision" not in self._offer.commands:
            return Finding("Provision", Grade.SKIPPED, "not offered: the server has no policies")
        grant = await self._negotiate()
        if grant.acknowledged is None:
            return Finding("Provision", Grade.GOOD, "the server has no policy for us", self._device.times())
        text = f"the policy may be acknowledged with {grant.acknowledged.value}"
        return Finding("Provision", Grade.GOOD, text, self._device.times())

    async def _negotiate(self) -> Grant:
        """Obtain a policy key for the commands that follow; raises EasError."""
        device = self._device
        if device.version is None:
            raise ProtocolViolation("Provision needs a protocol version")
        grant = await converse(negotiate(device.version, self._acknowledgement), device.ask)
        device.policy_key = grant.policy_key
        return grant

    async def _inform(self) -> Finding:
        device = self._device
        if "Settings" not in self._offer.commands:
            return Finding("Settings", Grade.SKIPPED, "not offered")
        if device.policy_key is not None and device.version is not None and device.version >= ProtocolVersion.V14_1:
            return Finding("Settings", Grade.SKIPPED, "the device information went with Provision")
        try:
            await self._ask(InformDevice(DEVICE))
        except (Unauthorized, AccessDenied, NotProvisioned, RemoteWipeRequested, Redirected):
            raise
        except EasError as error:
            return Finding("Settings", Grade.NOTE, f"not taken, which a relay can do without: {error}", device.times())
        return Finding("Settings", Grade.GOOD, "the server knows the device information", device.times())

    async def _read_hierarchy(self) -> Finding:
        device = self._device
        reply = await self._ask(FolderSync(NO_SYNC_KEY))
        inbox = next((folder.id for folder in reply.added if folder.type == INBOX), None)
        if inbox is None:
            text = f"{len(reply.added)} folders and no Inbox: the mail store may be down"
            return Finding("FolderSync", Grade.BAD, text, device.times())
        self._inbox = inbox
        return Finding("FolderSync", Grade.GOOD, _count(reply), device.times())

    async def _ask(self, command: Command[R]) -> R:
        """Return the reply to a command; a server that asks for its policy only now gets the acknowledgement first."""
        try:
            return await self._device.ask(command)
        except NotProvisioned:
            if self._device.policy_key is not None:
                raise
            await self._negotiate()
            return await self._device.ask(command)

    async def _sync(self) -> Finding:
        """Bring the Inbox in step, as a relay does without announcing its items."""
        key, items = NO_SYNC_KEY, 0
        for _ in range(WINDOWS):
            key, more, came = await self._sync_once(key)
            items += came
            if not more:
                text = f"the Inbox is in step after {items} items"
                return Finding("Sync", Grade.GOOD, text, self._device.times()[:3])
        text = f"the Inbox is not in step after {items} items: a relay goes on, this probe does not"
        return Finding("Sync", Grade.NOTE, text, self._device.times()[:3])

    async def _sync_once(self, key: SyncKey) -> tuple[SyncKey, bool, int]:
        """Return the next key, True if one more Sync is due, and how many items came."""
        reply = await self._device.ask(Sync((CollectionRequest(self._inbox, CollectionClass.EMAIL, key),)))
        answer = next((each for each in reply.collections if each.id == self._inbox), None)
        if answer is None:
            if key == NO_SYNC_KEY:
                raise ProtocolViolation("no answer to the first Sync of the Inbox")
            return key, False, 0
        if answer.status != 1 or answer.sync_key is None:
            raise ProtocolViolation(f"Sync of the Inbox was answered with status {answer.status}")
        more = key == NO_SYNC_KEY or answer.more_available or answer.has_commands
        return answer.sync_key, more, len(answer.adds)

    async def _ping(self) -> Finding:
        return await find_limits(self._device, self._inbox, self._patience)


def judge_tls(shaken: Handshake, now: datetime) -> Finding:
    """Return what a relay would find, and whether the certificate expires soon."""
    spoken = "HTTP/2" if shaken.http2 else "HTTP/1.1"
    if shaken.valid_until is None:
        return Finding("TLS", Grade.GOOD, f"{shaken.version}, {spoken}")
    text = f"{shaken.version}, {spoken}, trusted certificate, valid until {shaken.valid_until:%Y-%m-%d}"
    if shaken.flaw:
        text = f"{text}; newer software refuses it: {shaken.flaw} (renew the certificate or its CA)"
    noted = shaken.flaw or shaken.valid_until - now < EXPIRY
    return Finding("TLS", Grade.NOTE if noted else Grade.GOOD, text)


def _explain(error: EasError) -> str:
    """Return what went wrong and what to do about it."""
    match error:
        case Unauthorized():
            return f"{error}; it was tried once, for every try counts towards a lock-out"
        case RemoteWipeRequested():
            return "the server asks for the probe's device to be wiped: remove the device from the mailbox first"
        case AccessDenied(reason=Reason.EAS_139 | Reason.EAS_145):
            return f"{error}; try --acknowledge with another number, and set the server's `acknowledgement` so"
        case Redirected():
            return f"{error}; its operator can tell which"
        case _:
            return str(error)


def _count(reply: FolderSyncReply) -> str:
    found = Counter(folder.default_class for folder in reply.added if folder.default_class)
    subs = find_subfolders(reply.added, CollectionClass)
    more = f", and on request {len(subs)} sub-folder{'s'[: len(subs) > 1]}" if subs else ""
    return f"{len(reply.added)} folders; can be watched: {', '.join(sorted(cls.value for cls in found))}{more}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
