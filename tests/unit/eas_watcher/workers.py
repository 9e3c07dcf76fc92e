"""A mail server with few workers behind a proxy, in simulated time, and a fleet that watches many mailboxes there."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from statistics import mean, median
from typing import Final
from urllib.parse import parse_qs, urlsplit

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.reading import read_number
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.machine.memory import Progress, WatchState
from eas_watcher.machine.state import Policy
from eas_watcher.names import DeviceId, MailboxId
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.runner import Runner
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.idle_timeout import Lesson
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.wbxml.decode import decode
from tests.fakes.eas import MemoryJournals
from tests.unit.eas_watcher.running import EMPTY, KNOWN, command_of, folders, mails, pinged, until_ended
from tests.unit.eas_watcher.watching import INBOX, NOW, PARTNERSHIP

URL: Final = "https://mail.example.com/eas"
WORK: Final = 0.2  # seconds of a worker for a short request
SHORT_REQUESTS: Final = 64


@dataclass(eq=False)
class Job:
    """One request at the server; the client may have given it up."""

    user: str
    request: HttpRequest
    started: asyncio.Event = field(default_factory=asyncio.Event)
    answer: "asyncio.Future[HttpReply | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    abandoned: bool = False
    began: float = 0.0


class FewWorkers(HoldsInTask):
    """Serves requests in order, as many at once as it has workers; a held Ping is one of them.

    It does not notice that a client has gone [observed: SOGo 5.8, 2026-11]. The proxy before it answers 504 to a
    request that no worker takes within `patience` seconds.
    """

    def __init__(self, workers: int, patience: float = 60.0) -> None:
        self.workers = workers
        self.patience = patience
        self.busy = 0
        self.queue: deque[Job] = deque()
        self.pings: dict[str, Job] = {}
        self.unseen: defaultdict[str, int] = defaultdict(int)
        self.keys = 0
        self.refusing = False
        self.covered: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        """When a Ping was held for a client that waits for it, or a Sync answered."""

    async def send(self, request: HttpRequest) -> HttpReply:
        user = parse_qs(urlsplit(request.url).query).get("DeviceId", [""])[0]
        if self.refusing and command_of(request) != "Ping":
            self.refusing = False
            return HttpReply(504, {}, b"")
        job, began = Job(user, request), asyncio.get_running_loop().time()
        self.queue.append(job)
        self.serve()
        try:
            async with asyncio.timeout(request.deadline):
                try:
                    async with asyncio.timeout(self.patience):
                        await job.started.wait()
                except TimeoutError:
                    return HttpReply(504, {}, b"")
                reply = await asyncio.shield(job.answer)
        except TimeoutError:
            survived = asyncio.get_running_loop().time() - began
            raise Unreachable("no answer in time", survived) from None
        finally:
            job.abandoned = True
            self.note(job)
        if reply is None:
            raise Unreachable("connection lost", asyncio.get_running_loop().time() - began)
        return reply

    def serve(self) -> None:
        """Let free workers take what waits."""
        loop = asyncio.get_running_loop()
        while self.busy < self.workers and self.queue:
            job = self.queue.popleft()
            self.busy += 1
            job.began = loop.time()
            job.started.set()
            if command_of(job.request) != "Ping":
                loop.call_later(WORK, self.finish, job)
                continue
            if (older := self.pings.pop(job.user, None)) is not None:
                loop.call_soon(self.finish, older)
            self.pings[job.user] = job
            heartbeat = read_number(decode(job.request.body), "HeartbeatInterval")
            assert heartbeat is not None
            loop.call_later(WORK if self.unseen[job.user] else heartbeat, self.finish, job)

    def finish(self, job: Job, *, lost: bool = False) -> None:
        """Answer a request, once, and free its worker."""
        if job.answer.done():
            return
        self.note(job)
        if self.pings.get(job.user) is job:
            del self.pings[job.user]
        self.busy -= 1
        job.answer.set_result(None if lost else self.reply(job))
        self.serve()

    def note(self, job: Job) -> None:
        """Note for how long a Ping was held for its client."""
        if job.began and not job.answer.done():
            ping, now = command_of(job.request) == "Ping", asyncio.get_running_loop().time()
            self.covered[job.user].append((job.began if ping else now, now))
            if job.abandoned:
                job.began = 0.0

    def reply(self, job: Job) -> HttpReply:
        match command_of(job.request):
            case "Ping":
                return pinged(2, INBOX.id) if self.unseen[job.user] else pinged(1)
            case "FolderSync":
                return folders("h9")
            case "Sync" if self.unseen[job.user] and not job.abandoned:
                self.keys += 1
                new = [f"5:{self.keys}-{number}" for number in range(self.unseen.pop(job.user))]
                return mails(f"k{self.keys}", *new)
            case _:
                return EMPTY

    def deliver(self, user: str) -> None:
        self.unseen[user] += 1
        if user in self.pings:
            asyncio.get_running_loop().call_later(WORK, self.finish, self.pings[user])

    def refuse_next(self) -> None:
        """Answer 504 to the next short request, as a proxy does from time to time."""
        self.refusing = True

    def restart(self, workers: int) -> None:
        """Start again with so many workers: Pings are cut, what queued is lost."""
        self.workers = workers
        self.queue.clear()
        for job in list(self.pings.values()):
            self.finish(job, lost=True)


class Arrivals(MemoryJournals):
    """Journals that note how late each mail was told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: defaultdict[str, list[float]] = defaultdict(list)
        self.late: list[float] = []

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        await super().commit(mailbox, progress)
        if progress.changes:
            now = asyncio.get_running_loop().time()
            self.late += [now - sent for sent in self.sent.pop(mailbox, [])]


@dataclass
class Crowd:
    """Many mailboxes at one such server, watched by one or more processes."""

    server: FewWorkers
    journals: Arrivals
    mailboxes: list[str]
    admissions: list[Admissions]
    unwatched: list[float] = field(default_factory=list)
    """The share of mailboxes that were not watched, each ten seconds."""
    states: set[str] = field(default_factory=set)

    @property
    def admission(self) -> ServerAdmission:
        return self.admissions[0].admission(URL, 50.0)

    async def run(self, seconds: float, between_mails: float = 900.0, seed: int = 5) -> None:
        """Let time pass; each mailbox gets mails at random."""
        loop, chance = asyncio.get_running_loop(), Random(seed)
        ends = loop.time() + seconds
        while loop.time() < ends:
            await asyncio.sleep(10.0)
            waiting = 0
            for name in self.mailboxes:
                condition = self.journals.kept[MailboxId(name)].condition
                waiting += condition is None or condition.state is not WatchState.WATCHING
                if chance.random() < 10.0 / between_mails:
                    self.journals.sent[name].append(loop.time())
                    self.server.deliver(name)
            self.unwatched.append(waiting / len(self.mailboxes))
            self.states.add(self.admission.state)

    def share(self, since: float, until: float) -> list[float]:
        """Return for each mailbox the share of the time in which a Ping was held."""
        return [
            sum(max(0.0, min(b, until) - max(a, since)) for a, b in self._covered(name, until)) / (until - since)
            for name in self.mailboxes
        ]

    def gaps(self, since: float, until: float) -> list[float]:
        """Return for each mailbox the longest time without a held Ping or a Sync, in seconds."""
        return [max(self._gaps(name, since, until)) for name in self.mailboxes]

    def figures(self, since: float, until: float) -> str:
        share, gaps, late = self.share(since, until), self.gaps(since, until), sorted(self.journals.late) or [0.0]
        return (
            f"Ping held {mean(share):.0%} of the time (least {min(share):.0%}), {sum(share):.1f} on average; "
            f"longest gap median {median(gaps):.0f} s, worst {max(gaps):.0f} s; "
            f"mail told after median {median(late):.0f} s, p95 {late[len(late) * 95 // 100]:.0f} s, "
            f"worst {late[-1]:.0f} s, {sum(map(len, self.journals.sent.values()))} of {len(late)} not yet"
        )

    def _covered(self, name: str, until: float) -> list[tuple[float, float]]:
        running = self.server.pings.get(name)
        held = [(running.began, until)] if running is not None and not running.abandoned else []
        return sorted([*self.server.covered[name], *held])

    def _gaps(self, name: str, since: float, until: float) -> Iterator[float]:
        last = since
        for began, ended in [*self._covered(name, until), (until, until)]:
            if ended >= since:
                yield max(0.0, min(began, until) - last)
                last = max(last, min(ended, until))


async def _run(runner: Runner, after: float) -> None:
    await asyncio.sleep(after)
    await until_ended(runner)


@asynccontextmanager
async def crowd(
    server: FewWorkers, mailboxes: int, processes: int = 1, lesson: Lesson | None = None, every: float = 0.0
) -> AsyncIterator[Crowd]:
    """Watch so many mailboxes at a server, one more `every` so many seconds.

    `lesson` is what earlier processes learnt about the server.
    """
    lessons = {} if lesson is None else {URL: lesson}
    journals, names = Arrivals(), [f"m{number}" for number in range(mailboxes)]
    contexts = [
        WatchContext(journals, Random(number), Admissions(SHORT_REQUESTS, Random(number), lambda: NOW, lessons))
        for number in range(processes)
    ]
    tasks = []
    for number, name in enumerate(names):
        mailbox = MailboxId(name)
        kept = journals.kept[mailbox]
        kept.partnership, kept.collections = PARTNERSHIP, {INBOX.id: INBOX}
        account = Account(mailbox, URL, name, DeviceId(name), BasicCredential(name, "secret"))
        runner = Runner(account, server, contexts[number % processes], KNOWN, Policy())
        tasks.append(asyncio.ensure_future(_run(runner, number * every)))
    try:
        yield Crowd(server, journals, names, [context.admissions for context in contexts])
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
