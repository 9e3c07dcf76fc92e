"""The clients of mail servers: all code that sends a command to one, or a question to Autodiscover, for any purpose.

A client waits for the server's admission, writes the request, keeps cookies and what X-MS-RP said, reads the HTTP
status, and reports to the admission how the request ended. It follows no redirect and repeats nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from eas_watcher.auth.anonymous import NoCredential
from eas_watcher.auth.credential import Credential
from eas_watcher.autodiscover.search import Lookup
from eas_watcher.commands.cookies import CookieJar
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.http_status import GAVE_UP, OK, raise_for_http
from eas_watcher.commands.options import Options
from eas_watcher.commands.ping import Ping, PingReply
from eas_watcher.commands.request import Command, HttpReply, HttpRequest
from eas_watcher.errors import EasError, ProtocolViolation, RequestRefused, ServerBusy, ServerRenewed, Unreachable
from eas_watcher.heartbeat import HELD
from eas_watcher.machine.memory import Partnership
from eas_watcher.names import NO_SYNC_KEY, MailboxId
from eas_watcher.ports import Done, HeldRequest, Transport
from eas_watcher.runtime.account import Account, host_of
from eas_watcher.runtime.http_request import compose, compose_lookup
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.breaker import concerns_server
from eas_watcher.server.capacity import Hold, Poll
from eas_watcher.server.doubts import Look, read_look
from eas_watcher.values import by_slots, replace

log = logging.getLogger(__name__)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Admitted = Callable[[], Awaitable[object]]
"""Called once a request may be sent, which may be long after the client wanted to; if it raises, none is sent."""

OPTIONS: Final = "OPTIONS"  # the name of the request without a command, in the counts
AUTODISCOVER: Final = "Autodiscover"  # that of a question where a mailbox is
LOOK: Final = "look"  # what an OPTIONS without credential is counted as: its refusal says nothing about passwords
LARGE_ANSWER: Final = 65_536  # octets; the Sync answers of a busy mailbox are smaller, and take milliseconds
EXPIRY: Final = "x-ms-credentials-expire"  # in how many days the password expires [MS-ASHTTP]
DAYS: Final = 3  # digits of them
RENEWALS: Final = 4  # values of X-MS-RP that are known again
REFUSED_KEPT: Final = 512  # bytes of a refused request that are logged; a whole Ping of five folders has 200


@by_slots
@dataclass(frozen=True, slots=True)
class Answer(Generic[R_co]):
    """The answer to one command, read, and how it came."""

    reply: R_co
    http: HttpReply
    held: float
    """Seconds from the admission of the request to its answer."""


_SOME_PING: Final = Ping(0, ())  # what came of any Ping is read alike


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
    """Sends the commands of one mailbox, one at a time.

    A Ping takes two calls: `hold` sends it, and `answered` reads what came of it. Nothing waits in between.
    """

    __slots__ = (
        "_account",
        "_admissions",
        "_admitted",
        "_cookies",
        "_expiry",
        "_pings",
        "_rate",
        "_renewals",
        "_standing",
        "_transport",
        "_watches",
        "admission",
        "mailbox",
        "url",
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
        self.mailbox = account.mailbox
        """The mailbox whose commands these are."""
        self.url = url or account.url
        """Where requests go."""
        self.admission = admissions.admission(self.url, rate)
        """The admission to the server at that URL."""
        self._standing = ClientAdmission(account.mailbox, candidate=candidate)
        self._watches = False
        self._cookies: CookieJar | None = None
        """None: the server has set none."""
        self._renewals: tuple[str, ...] = ()
        """What X-MS-RP said lately."""
        self._expiry = ""
        """In how many days the password expires, as the server said last; empty: it did not say so."""

    @property
    def account(self) -> Account:
        """The account, at the URL where requests go."""
        return replace(self._account, url=self.url)

    @property
    def held(self) -> float:
        """Seconds since the last request was let through."""
        return asyncio.get_running_loop().time() - self._standing.began

    def watch_begins(self, refused_ago: float | None) -> None:
        """Count the mailbox among those watched at its server.

        `refused_ago`: how many seconds ago at least its credential was refused last; None: it is accepted.
        """
        self._watches = True
        self.admission.watch_begins(self.mailbox, refused_ago)

    def watch_ends(self) -> None:
        """Count the mailbox no longer; a Ping that it held was given up."""
        self._watches = False
        self.given_up()
        self.admission.watch_ends(self._standing)

    def ask(self) -> Hold | Poll:
        """Return whether a Ping may be sent now."""
        return self.admission.ask(self._standing)

    def polls(self, on_turn: Callable[[], None]) -> None:
        """Call `on_turn` when it is the mailbox's turn to hold a Ping, as long as it polls."""
        self.admission.polls(self._standing, on_turn)

    def polls_no_more(self) -> None:
        """End that."""
        self.admission.polls_no_more(self._standing)

    def address(self, url: str | None) -> None:
        """Send to a URL from now on; None: the account's."""
        url = url or self._account.url
        if url == self.url:
            return
        before, self.admission = self.admission, self._admissions.admission(url, self._rate)
        left, self.url = self._standing, url
        self._standing = ClientAdmission(self.mailbox, candidate=self._standing.candidate)
        self._cookies = None  # cookies are for the host that set them
        if self._watches:
            before.watch_ends(left)
            self.admission.watch_begins(self.mailbox, None)

    def showing(self, credential: Credential, transport: Transport) -> "EasClient":
        """Return a client that shows another credential at the same URL, admitted as this one is; no cookie is shared.

        Only one of the two may have a request under way.
        """
        account = replace(self.account, credential=credential)
        other = EasClient(account, transport, self._admissions, self._rate, admitted=self._admitted)
        other._standing = self._standing
        return other

    async def send(
        self, command: Command[R], partnership: Partnership, refusals: int = 0, admitted: Admitted | None = None
    ) -> Answer[R]:
        """Send one command when the server's admission allows it, and read its answer; raises EasError.

        `refusals` is how many times in a row the server has refused the credential. `admitted` replaces the client's.
        """
        standing = self._prepare(partnership, refusals)
        try:
            await _enter(self.admission, standing, admitted or self._admitted)
            with _Reporting(self.admission, standing):
                request = self._compose(command, partnership)
                http = await self._transmit(command, request)
                reply = await self._read(command, http)
        except EasError as error:
            self._admissions.count(command.name or OPTIONS, error)
            if isinstance(error, RequestRefused):
                self._note_refused(command, partnership)
            raise
        return self._accepted(command, reply, http)

    async def hold(
        self, ping: Ping, partnership: Partnership, refusals: int, done: Done, admitted: Admitted | None = None
    ) -> HeldRequest:
        """Send a Ping when the server's admission allows it; return once it is held. Raises EasError.

        `done` gets what is to be given to `answered`. If the held request is given up instead, `given_up` is due.
        """
        standing = self._prepare(partnership, refusals)
        try:
            await _enter(self.admission, standing, admitted or self._admitted, holds=True)
            with _Reporting(self.admission, standing) as report:
                request = self._compose(ping, partnership)
                self._ping_begins(ping)
                try:
                    held = await self._transport.hold(request, done)
                except BaseException as error:
                    self._ping_ends()
                    if isinstance(error, EasError):
                        self._note_failure(error)
                    raise
                report.goes_on()
        except EasError as error:
            self._admissions.count(ping.name, error)
            raise
        return held

    async def answered(
        self, ping: Callable[[], Ping], partnership: Partnership, came: HttpReply | Exception
    ) -> Answer[PingReply]:
        """Read what came of a held Ping; raises EasError.

        `partnership` is that with which it was sent, and `ping` returns it as it was sent, to see why it was refused.
        """
        standing = self._standing
        try:
            with _Reporting(self.admission, standing):
                self._ping_ends()
                if isinstance(came, Exception):
                    if isinstance(came, EasError):
                        self._note_failure(came)
                    try:
                        raise came
                    finally:
                        del came  # no cycle of references with the error's traceback
                self._note(came)
                raise_for_cut(came, asyncio.get_running_loop().time() - standing.sent_at)
                reply = await self._read(_SOME_PING, came)
        except EasError as error:
            self._admissions.count(Ping.name, error)
            if isinstance(error, RequestRefused):
                self._note_refused(ping(), partnership)
            raise
        return self._accepted(_SOME_PING, reply, came)

    def given_up(self) -> None:
        """Note that a Ping is held no longer, and that its answer will not be read; without any, do nothing."""
        if self._standing.sent == "Ping":
            self._ping_ends()
            self.admission.leave(self._standing)

    async def fetch(self, command: Command[Any], partnership: Partnership, counted_as: str = "") -> Fetched:
        """Send one command and return its answer whatever its status, to see how a server refuses.

        The request is counted under the name of its command, unless `counted_as` is another one. Raises an EasError
        that came instead of an answer.
        """
        self.address(partnership.url)
        transmit = partial(self._transmit, command, self._compose(command, partnership))
        enter = partial(_enter, self.admission, self._standing, self._admitted)
        reporting = _Reporting(self.admission, self._standing)
        return await _fetch(counted_as or command.name or OPTIONS, enter, reporting, transmit, self._admissions)

    async def look(self, transport: Transport) -> Look | None:
        """Ask the server for its options without any credential; return what its answer shows, None if none came.

        `transport` shows no credential either.
        """
        account = replace(self.account, credential=NoCredential(self._account.user))
        anonymous = EasClient(account, transport, self._admissions, self._rate)
        try:
            http = (await anonymous.fetch(Options(), Partnership(url=self.url), LOOK)).http
        except EasError as error:
            log.debug("look failed", extra={"url": self.url, "detail": str(error)})
            return None
        return read_look(http.status, http.headers)

    def _prepare(self, partnership: Partnership, refusals: int) -> ClientAdmission:
        """Address the server that a partnership is with; return how this client stands with its admission."""
        self.address(partnership.url)
        self._standing.refusals = refusals
        return self._standing

    def _compose(self, command: Command[Any], partnership: Partnership) -> HttpRequest:
        cookie = "" if self._cookies is None else self._cookies.header(self.url, self._admissions.now)
        return compose(self._account, command, partnership.version, partnership.policy_key, cookie, self.url)

    async def _transmit(self, command: Command[Any], request: HttpRequest) -> HttpReply:
        """Send one request and wait; a Ping is held, everything else is one of the few short requests at a time."""
        if not isinstance(command, Ping):
            async with self.admission.short:
                self.admission.sends(self._standing, ping=False)
                return await self._exchange(request)
        self._ping_begins(command)
        try:
            http = await self._exchange(request)
        finally:
            self._ping_ends()
        raise_for_cut(http, asyncio.get_running_loop().time() - self._standing.sent_at)
        return http

    async def _exchange(self, request: HttpRequest) -> HttpReply:
        try:
            http = await self._transport.send(request)
        except EasError as error:
            self._note_failure(error)
            raise
        self._note(http)
        return http

    def _ping_begins(self, ping: Ping) -> None:
        self.admission.sends(self._standing, ping=True)
        if self._pings is not None:
            self._pings.ping_begins(self.mailbox, ping.heartbeat)

    def _ping_ends(self) -> None:
        if self._pings is not None:
            self._pings.ping_ends(self.mailbox)

    def _note(self, http: HttpReply) -> None:
        """Keep the cookies of an answer, and its date, and what it says of the password."""
        took = asyncio.get_running_loop().time() - self._standing.sent_at
        self._admissions.clocks.answered(host_of(self.url), http.headers.get("date", ""), took)
        if (days := http.headers.get(EXPIRY, "")) and days != self._expiry and days.isdecimal() and len(days) <= DAYS:
            self._expiry = days
            log.warning("password expires", extra={"mailbox": self.mailbox, "days": int(days)})
        if self._cookies is None and http.set_cookies:
            self._cookies = CookieJar()
        if self._cookies is not None:
            self._cookies.answered(http.status, http.set_cookies, self.url, self._admissions.now)

    def _note_failure(self, error: EasError) -> None:
        """Note that a request got no answer: its cookies may be the cause, unless it never arrived."""
        if self._cookies is not None and (not isinstance(error, Unreachable) or error.reached):
            self._cookies.unanswered()

    def _accepted(self, command: Command[Any], reply: R, http: HttpReply) -> Answer[R]:
        """Count an answer that was read, and return it."""
        self._admissions.count(command.name or OPTIONS, None)
        if command.name:  # some servers answer OPTIONS to everybody
            self.admission.accepted(self._standing)
        return Answer(reply, http, self.held)

    async def _read(self, command: Command[R], http: HttpReply) -> R:
        """Read an answer; raises EasError.

        The worst answers take 0.2 s: a large one is read in a thread, so that other mailboxes need not wait for it.
        """
        try:
            raise_for_http(http, self._admissions.now)
            self._raise_for_renewal(command, http)
            if len(http.body) <= LARGE_ANSWER:
                reply = command.read(http)
            else:
                async with self._admissions.large_answer:
                    reply = await asyncio.to_thread(command.read, http)
        except (ServerBusy, ProtocolViolation):
            if http.status == OK and self._cookies is not None:
                # A login form, or the error of a back end that a cookie names.
                self._cookies.unanswered()
            raise
        if self._cookies is not None:
            self._cookies.worked()
        return reply

    def _note_refused(self, command: Command[Any], partnership: Partnership) -> None:
        """Log a request that the server calls malformed, unless it carries a policy key."""
        if command.policy_key is None and partnership.version is not None:
            # An operator needs the bytes to find the fault: they hold keys and ids, nothing of the mailbox.
            refused = {"command": command.name, "body": command.encode(partnership.version)[:REFUSED_KEPT].hex()}
            log.warning("request refused", extra={"mailbox": self.mailbox, **refused})

    def _raise_for_renewal(self, command: Command[Any], http: HttpReply) -> None:
        """Raise ServerRenewed, once, when the server wants all clients to start over [MS-ASHTTP 2.2.2.1.2].

        Servers repeat the header, and those of a farm that is being upgraded say different things in turn; in an answer
        to a start it means nothing.
        """
        said = http.headers.get("x-ms-rp", "")
        if not said or said in self._renewals:
            return
        self._renewals = (*self._renewals, said)[-RENEWALS:]
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

        enter = partial(_enter, admission, standing, self._admitted)
        reporting = _Reporting(admission, standing)
        fetched = await _fetch(AUTODISCOVER, enter, reporting, transmit, self._admissions)
        return fetched.http


def raise_for_cut(http: HttpReply, held: float) -> None:
    """Raise Unreachable for the answer of a gateway that gave up a Ping after `held` seconds.

    For the relay that is a connection cut on the path: the gateway's idle timeout is shorter than the heartbeat.
    """
    if http.status in GAVE_UP and held >= HELD:
        raise Unreachable(f"a gateway gave up the held request (HTTP {http.status})", held)


async def _fetch(
    name: str,
    enter: Callable[[], Awaitable[None]],
    reporting: "_Reporting",
    transmit: Callable[[], Awaitable[HttpReply]],
    admissions: Admissions,
) -> Fetched:
    """Return the answer to a request; its admission learns what the status means for the whole server."""
    error: EasError | None = None
    try:
        await enter()
        with reporting:
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
        raise_for_http(http, admissions.now)
    except EasError as error:
        return error
    return None


async def _enter(
    admission: ServerAdmission, standing: ClientAdmission, admitted: Admitted | None, *, holds: bool = False
) -> None:
    """Return when a request may be sent; raises EasError, or what `admitted` raises."""
    await admission.enter(standing, holds=holds)
    if admitted is not None:
        try:
            await admitted()
        except BaseException:
            admission.leave(standing)
            raise


class _Reporting:
    """The time in which a request is sent, or its answer is read: leaving it reports how the request ended."""

    __slots__ = ("_admission", "_goes_on", "_standing")

    def __init__(self, admission: ServerAdmission, standing: ClientAdmission) -> None:
        self._admission = admission
        self._standing = standing
        self._goes_on = False

    def goes_on(self) -> None:
        """Report nothing: the request is not over."""
        self._goes_on = True

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise the error as the admission understands it, if that differs."""
        if self._goes_on:
            return
        try:
            if error is None:
                self._admission.answered(self._standing)
            elif isinstance(error, EasError):
                understood = self._admission.failed(self._standing, error)
                if understood is not error:
                    raise understood from error
        finally:
            self._admission.leave(self._standing)
