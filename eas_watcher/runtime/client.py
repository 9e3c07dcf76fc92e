"""The clients of mail servers: all code that sends a command to one, or a question to Autodiscover, for any purpose.

A client waits for the server's admission, writes the request, keeps cookies and what X-MS-RP said, reads the HTTP
status, and reports to the admission how the request ended. It follows no redirect and repeats nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from eas_watcher.auth.anonymous import NoCredential
from eas_watcher.auth.credential import Credential
from eas_watcher.autodiscover.search import Lookup
from eas_watcher.commands.cookies import CookieJar
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.http_status import GATEWAY, OK, raise_for_http
from eas_watcher.commands.options import Options
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.request import Command, HttpReply, HttpRequest
from eas_watcher.errors import EasError, ProtocolViolation, RequestRefused, ServerBusy, ServerRenewed, Unreachable
from eas_watcher.heartbeat import HELD
from eas_watcher.machine.memory import Partnership
from eas_watcher.names import NO_SYNC_KEY, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose, compose_lookup
from eas_watcher.runtime.timers import Timers
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.breaker import concerns_server
from eas_watcher.server.capacity import Hold, Poll
from eas_watcher.server.doubts import Look, read_look

log = logging.getLogger(__name__)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Admitted = Callable[[], Awaitable[object]]
"""Called once a request may be sent, which may be long after the client wanted to; if it raises, none is sent."""

OPTIONS: Final = "OPTIONS"  # the name of the request without a command, in the counts
AUTODISCOVER: Final = "Autodiscover"  # that of a question where a mailbox is
LOOK: Final = "look"  # what an OPTIONS without credential is counted as: its refusal says nothing about passwords
LARGE_ANSWER: Final = 65_536  # octets; the Sync answers of a busy mailbox are smaller, and take milliseconds
REFUSED_KEPT: Final = 512  # bytes of a refused request that are logged; a whole Ping of five folders has 200


@dataclass(frozen=True, slots=True)
class Answer(Generic[R_co]):
    """The answer to one command, read, and how it came."""

    reply: R_co
    http: HttpReply
    held: float
    """Seconds from the admission of the request to its answer."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole HTTP answer, not read but for its status."""

    http: HttpReply
    error: EasError | None
    """What the status means; None: 200."""


class Pings(Protocol):
    """Notes which Pings are held."""

    def ping_begins(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Note that a Ping of `heartbeat` seconds is held from now on."""

    def ping_ends(self, mailbox: MailboxId) -> None:
        """Note that it is not held any more."""


class EasClient:
    """Sends the commands of one mailbox, one at a time."""

    __slots__ = (
        "_account",
        "_admission",
        "_admissions",
        "_admitted",
        "_cookies",
        "_pings",
        "_rate",
        "_renewal",
        "_standing",
        "_transport",
        "_url",
        "_watches",
    )

    def __init__(
        self,
        account: Account,
        transport: Transport,
        admissions: Admissions,
        rate: float,
        *,
        url: str | None = None,
        pings: Pings | None = None,
        candidate: bool = False,
        admitted: Admitted | None = None,
    ) -> None:
        """Take the account, the transport to its server, and how many mailboxes per second that server lets in.

        `url` is where the mailbox is, if not at the account's URL. `pings` is notified of held Pings. `candidate`: the
        server has never accepted the account's credential.
        """
        self._account = account
        self._transport = transport
        self._admissions = admissions
        self._rate = rate
        self._pings = pings
        self._admitted = admitted
        self._url = url or account.url
        self._admission = admissions.admission(self._url, rate)
        self._standing = ClientAdmission(account.mailbox, candidate=candidate)
        self._watches = False
        self._cookies = CookieJar()
        self._renewal = ""

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._url

    @property
    def admission(self) -> ServerAdmission:
        """The admission to the server at that URL."""
        return self._admission

    def watch_begins(self, refused_ago: float | None) -> None:
        """Count the mailbox among those watched at its server.

        `refused_ago`: how many seconds ago at least its credential was refused last; None: it is accepted.
        """
        self._watches = True
        self._admission.watch_begins(self._account.mailbox, refused_ago)

    def watch_ends(self) -> None:
        """Count the mailbox no longer."""
        self._watches = False
        self._admission.watch_ends(self._standing)

    def ask(self) -> Hold | Poll:
        """Return whether a Ping may be sent now."""
        return self._admission.ask(self._standing)

    async def rest(self, seconds: float, timers: Timers) -> None:
        """Return after so many seconds, or sooner when it is the mailbox's turn to hold a Ping."""
        with self._admission.polling(self._standing) as turn:
            await timers.sleep(seconds, turn)

    def address(self, url: str | None) -> None:
        """Send to a URL from now on; None: the account's."""
        url = url or self._account.url
        if url == self._url:
            return
        before, self._admission = self._admission, self._admissions.admission(url, self._rate)
        left, self._url = self._standing, url
        self._standing = ClientAdmission(self._account.mailbox, candidate=self._standing.candidate)
        self._cookies.forget()  # cookies are for the host that set them
        if self._watches:
            before.watch_ends(left)
            self._admission.watch_begins(self._account.mailbox, None)

    def showing(self, credential: Credential, transport: Transport) -> "EasClient":
        """Return a client that shows another credential at the same URL, admitted as this one is; no cookie is shared.

        Only one of the two may have a request under way.
        """
        account = replace(self._account, url=self._url, credential=credential)
        other = EasClient(account, transport, self._admissions, self._rate, admitted=self._admitted)
        other._standing = self._standing
        return other

    async def send(self, command: Command[R], partnership: Partnership, refusals: int = 0) -> Answer[R]:
        """Send one command when the server's admission allows it, and read its answer; raises EasError.

        `refusals` is how many times in a row the server has refused the credential.
        """
        self.address(partnership.url)
        standing = self._standing
        standing.refusals = refusals
        try:
            async with _Admitted(self._admission, standing, self._admitted, holds=isinstance(command, Ping)):
                request = self._compose(command, partnership)
                http = await self._transmit(command, request)
                reply = await self._read(command, http, request)
        except EasError as error:
            self._admissions.count(command.name or OPTIONS, error)
            raise
        self._admissions.count(command.name or OPTIONS, None)
        if command.name:  # some servers answer OPTIONS to everybody
            self._admission.accepted(standing)
        return Answer(reply, http, asyncio.get_running_loop().time() - standing.began)

    async def fetch(self, command: Command[Any], partnership: Partnership, counted_as: str = "") -> Fetched:
        """Send one command and return its answer whatever its status, to see how a server refuses.

        The request is counted under the name of its command, unless `counted_as` is another one. Raises an EasError
        that came instead of an answer.
        """
        self.address(partnership.url)
        request = self._compose(command, partnership)
        admitted = _Admitted(self._admission, self._standing, self._admitted)
        transmit = partial(self._transmit, command, request)
        return await _fetch(counted_as or command.name or OPTIONS, admitted, transmit, self._admissions)

    async def look(self, transport: Transport) -> Look | None:
        """Ask the server for its options without any credential; return what its answer shows, None if none came.

        `transport` shows no credential either.
        """
        account = replace(self._account, url=self._url, credential=NoCredential(self._account.user))
        anonymous = EasClient(account, transport, self._admissions, self._rate)
        try:
            http = (await anonymous.fetch(Options(), Partnership(url=self._url), LOOK)).http
        except EasError as error:
            log.debug("look failed", extra={"url": self._url, "detail": str(error)})
            return None
        return read_look(http.status, http.headers)

    def _compose(self, command: Command[Any], partnership: Partnership) -> HttpRequest:
        cookie = self._cookies.header(self._url, self._admissions.now())
        return compose(self._account, command, partnership.version, partnership.policy_key, cookie, self._url)

    async def _transmit(self, command: Command[Any], request: HttpRequest) -> HttpReply:
        """Send one request; a Ping is held, everything else is one of the few short requests at a time."""
        if not isinstance(command, Ping):
            async with self._admission.short:
                self._admission.sends(self._standing, ping=False)
                return await self._exchange(request)
        self._admission.sends(self._standing, ping=True)
        clock, pings, mailbox = asyncio.get_running_loop().time, self._pings, self._account.mailbox
        began = clock()
        if pings is not None:
            pings.ping_begins(mailbox, command.heartbeat)
        try:
            http = await self._exchange(request)
        finally:
            if pings is not None:
                pings.ping_ends(mailbox)
        raise_for_cut(http, clock() - began)
        return http

    async def _exchange(self, request: HttpRequest) -> HttpReply:
        """Send one request; keep the cookies of its answer, and its date."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            http = await self._transport.send(request)
        except EasError as error:
            if not isinstance(error, Unreachable) or error.reached:
                self._cookies.unanswered()
            raise
        host = urlsplit(request.url).hostname or ""
        self._admissions.clocks.answered(host, http.headers.get("date", ""), clock() - began)
        self._cookies.answered(http.status, http.set_cookies, request.url, self._admissions.now())
        return http

    async def _read(self, command: Command[R], http: HttpReply, request: HttpRequest) -> R:
        """Read an answer; raises EasError.

        The worst answers take 0.2 s: a large one is read in a thread, so that other mailboxes need not wait for it.
        """
        try:
            raise_for_http(http, self._admissions.now())
            self._raise_for_renewal(command, http)
            if len(http.body) <= LARGE_ANSWER:
                reply = command.read(http)
            else:
                async with self._admissions.large_answer:
                    reply = await asyncio.to_thread(command.read, http)
        except (ServerBusy, ProtocolViolation):
            if http.status == OK:
                # A login form, or the error of a back end that a cookie names.
                self._cookies.unanswered()
            raise
        except RequestRefused:
            if command.policy_key is None:
                # An operator needs the bytes to find the fault: they hold keys and ids, nothing of the mailbox.
                refused = {"command": command.name, "body": request.body[:REFUSED_KEPT].hex()}
                log.warning("request refused", extra={"mailbox": self._account.mailbox, **refused})
            raise
        self._cookies.worked()
        return reply

    def _raise_for_renewal(self, command: Command[Any], http: HttpReply) -> None:
        """Raise ServerRenewed, once, when the server wants all clients to start over [MS-ASHTTP 2.2.2.1.2].

        Servers repeat the header; in an answer to a start it means nothing.
        """
        said = http.headers.get("x-ms-rp", "")
        if said in {"", self._renewal}:
            return
        self._renewal = said
        if command.name and command != FolderSync(NO_SYNC_KEY):
            raise ServerRenewed("the server says that what it offers has changed (X-MS-RP)")


class AutodiscoverClient:
    """Asks Autodiscover for one mailbox, one question at a time.

    It does not wait for a host that is away: another one may know the mailbox.
    """

    def __init__(
        self,
        account: Account,
        transport: Transport,
        admissions: Admissions,
        rate: float,
        *,
        candidate: bool = False,
        admitted: Admitted | None = None,
    ) -> None:
        """Take what `EasClient` takes; the account's URL is of no interest."""
        self._account = account
        self._transport = transport
        self._admissions = admissions
        self._rate = rate
        self._candidate = candidate
        self._admitted = admitted
        self._standings: dict[str, ClientAdmission] = {}

    async def ask(self, lookup: Lookup) -> HttpReply:
        """Return the answer to one question; raises EasError when none came, or the host is known to be away."""
        parts = urlsplit(lookup.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        admission = self._admissions.admission(origin, self._rate)
        standing = self._standings.setdefault(
            origin, ClientAdmission(self._account.mailbox, candidate=self._candidate, waits=False)
        )
        request = compose_lookup(lookup, self._account)

        async def transmit() -> HttpReply:
            async with admission.short:
                return await self._transport.send(request)

        admitted = _Admitted(admission, standing, self._admitted)
        fetched = await _fetch(AUTODISCOVER, admitted, transmit, self._admissions)
        return fetched.http


def raise_for_cut(http: HttpReply, held: float) -> None:
    """Raise Unreachable for the answer of a gateway that gave up a Ping after `held` seconds.

    For the relay that is a connection cut on the path: the gateway's idle timeout is shorter than the heartbeat.
    """
    if http.status in GATEWAY and held >= HELD:
        raise Unreachable(f"a gateway gave up the held request (HTTP {http.status})", held)


async def _fetch(
    name: str, admitted: "_Admitted", transmit: Callable[[], Awaitable[HttpReply]], admissions: Admissions
) -> Fetched:
    """Return the answer to a request; its admission learns what the status means for the whole server."""
    error: EasError | None = None
    try:
        async with admitted:
            http = await transmit()
            error = _read_status(http, admissions)
            if error is not None and concerns_server(error):
                raise error
    except EasError as raised:
        if raised is not error:
            admissions.count(name, raised)
            raise
    admissions.count(name, error)
    return Fetched(http, error)


def _read_status(http: HttpReply, admissions: Admissions) -> EasError | None:
    try:
        raise_for_http(http, admissions.now())
    except EasError as error:
        return error
    return None


class _Admitted:
    """The time in which a request may be sent: entering waits for it, leaving reports how the request ended."""

    __slots__ = ("_admission", "_admitted", "_holds", "_standing")

    def __init__(
        self, admission: ServerAdmission, standing: ClientAdmission, admitted: Admitted | None, *, holds: bool = False
    ) -> None:
        self._admission = admission
        self._standing = standing
        self._admitted = admitted
        self._holds = holds

    async def __aenter__(self) -> None:
        await self._admission.enter(self._standing, holds=self._holds)
        if self._admitted is not None:
            try:
                await self._admitted()
            except BaseException:
                self._admission.leave(self._standing)
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the error as the admission understands it, if that differs."""
        try:
            if error is None:
                self._admission.answered(self._standing)
            elif isinstance(error, EasError):
                understood = self._admission.failed(self._standing, error)
                if understood is not error:
                    raise understood from error
        finally:
            self._admission.leave(self._standing)
