"""What tests of runners share: one mailbox, the context of its watch, and answers as they come over HTTP."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.memory import Memory
from eas_watcher.machine.state import RATE, Policy
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.runner import Runner
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, PROVISION, Element
from eas_watcher.wbxml.encode import encode
from tests.fakes.eas import MemoryJournal
from tests.unit.eas_watcher.watching import INBOX, NOW, PARTNERSHIP

KNOWN = Memory(PARTNERSHIP, (INBOX,))
EMPTY = HttpReply(200, {}, b"")
POLICY_TYPE = PROVISION("PolicyType", "MS-EAS-Provisioning-WBXML")


class Middle(Random):
    """Chooses the middle of every range: a first backoff is 5 s, a time that the server names lasts 5 % longer."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@dataclass
class World:
    """The context of runners."""

    journal: MemoryJournal = field(default_factory=MemoryJournal)
    short_requests: int = 10

    def __post_init__(self) -> None:
        self.journal.partnership = PARTNERSHIP
        self.journal.collections = {INBOX.id: INBOX}
        admissions = Admissions(self.short_requests, Middle(), lambda: NOW)
        self.context = WatchContext(self.journal, Middle(), admissions)

    @property
    def admission(self) -> ServerAdmission:
        """The admission to the server of the mailbox."""
        return self.context.admissions.admission(account().url, RATE)

    async def run(self, transport: Transport, memory: Memory = KNOWN, name: str = "m1") -> None:
        await until_ended(Runner(account(name), transport, self.context, memory, Policy()))


async def until_ended(runner: Runner) -> None:
    """Run a watch until it ends, and raise what broke it; if this is cancelled, stop it."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_end(_: MailboxId, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    runner.start(on_end)
    try:
        await ended
    except asyncio.CancelledError:
        await runner.stop()
        raise


def account(name: str = "m1") -> Account:
    credential = BasicCredential("ann@example.com", "secret")
    return Account(MailboxId(name), "https://mail.example.com/eas", "ann@example.com", DeviceId("abc"), credential)


def command_of(request: HttpRequest) -> str:
    """Return the Cmd parameter; empty for OPTIONS."""
    _, _, query = request.url.partition("?Cmd=")
    return query.partition("&")[0]


def ok(root: Element) -> HttpReply:
    return HttpReply(200, {"content-type": "application/vnd.ms-sync.wbxml"}, encode(root))


def pinged(status: int, *changed: str) -> HttpReply:
    folders = [PING("Folders", *(PING("Folder", id_) for id_ in changed))] if changed else []
    return ok(PING("Ping", PING("Status", str(status)), *folders))


def mails(key: str, *ids: str, received: str = "2026-11-24T11:59:00.000Z") -> HttpReply:
    adds = [
        AIRSYNC(
            "Add",
            AIRSYNC("ServerId", id_),
            AIRSYNC(
                "ApplicationData",
                Element("Email", "DateReceived", text=received),
                Element("Email", "Read", text="0"),
            ),
        )
        for id_ in ids
    ]
    parts = [AIRSYNC("SyncKey", key), AIRSYNC("CollectionId", INBOX.id), AIRSYNC("Status", "1")]
    collection = AIRSYNC("Collection", *parts, AIRSYNC("Commands", *adds))
    return ok(AIRSYNC("Sync", AIRSYNC("Collections", collection)))


def sync_status(status: int) -> HttpReply:
    return ok(AIRSYNC("Sync", AIRSYNC("Status", str(status))))


def folders(key: str, *inboxes: str) -> HttpReply:
    parts = [FOLDERHIERARCHY("Status", "1"), FOLDERHIERARCHY("SyncKey", key)]
    added = [FOLDERHIERARCHY("Add", FOLDERHIERARCHY("ServerId", id_), FOLDERHIERARCHY("Type", "2")) for id_ in inboxes]
    return ok(FOLDERHIERARCHY("FolderSync", *parts, FOLDERHIERARCHY("Changes", *added)))


def policy(key: str) -> HttpReply:
    granted = PROVISION("Policy", POLICY_TYPE, PROVISION("Status", "1"), PROVISION("PolicyKey", key))
    return ok(PROVISION("Provision", PROVISION("Status", "1"), PROVISION("Policies", granted)))
