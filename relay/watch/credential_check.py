"""The check of a candidate credential: the relay shows it to the mailbox's server once and reads the result.

A wrong password is tried once [promise 4].
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto

from eas_watcher.auth.anonymous import NoCredential
from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.provision import Acknowledgement, provision
from eas_watcher.commands.settings import InformDevice
from eas_watcher.errors import (
    AccessDenied,
    CredentialVoid,
    EasError,
    ProtocolViolation,
    Redirected,
    ServerBusy,
    ServerRenewed,
    Unauthorized,
    Unreachable,
    in_doubt,
)
from eas_watcher.machine.memory import Partnership
from eas_watcher.machine.remedies import redirect_target
from eas_watcher.names import ProtocolVersion
from eas_watcher.reasons import Reason
from eas_watcher.runtime.client import EasClient
from eas_watcher.runtime.relocation import GONE, Seeker, look_for
from eas_watcher.server.breaker import concerns_server
from relay.watch.accounts import Connection

log = logging.getLogger(__name__)


class CheckResult(Enum):
    """What the server says about a candidate."""

    ACCEPTED = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    """The server could not be asked, or gave no answer to this; ask again later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A result and, while it is unknown, why and for how long."""

    result: CheckResult
    detail: str = ""
    reason: Reason | None = None
    """Why there is no result; None: nothing in particular."""
    url: str | None = None
    """Where the server was that accepted the candidate; None: none was asked."""
    retry_in: float | None = None
    """Seconds until the next check, where the server says so; None: it does not."""
    queues: bool = False
    """Whether the next check waits for the admission of its server, which is away, and so needs no wait before."""
    replaces: bool = False
    """Whether the credential that the mailbox had before is void, now that the candidate was accepted."""
    succeeded: bool = False
    """Whether the tries of the account are forgotten with the acceptance, because no other credential was compared."""
    in_doubt: bool = False
    """Whether the server may have refused the candidate in an answer that was lost."""


class OptionsGuards:
    """Whether servers answer OPTIONS to clients without a credential, so that an answer proves nothing.

    OPTIONS needs authorization, says the specification [MS-ASHTTP 2.2.3]. Each server is asked once whether it agrees.
    """

    def __init__(self) -> None:
        """Know of no server."""
        self._answers_all: dict[str, bool] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def answers_all(self, url: str, ask: Callable[[], Awaitable[bool]]) -> bool:
        """Return True if the server at a URL answers OPTIONS to every client; `ask` finds out, and may raise EasError.

        Thousands of candidates that wait for this wait for one answer.
        """
        async with self._asking[url]:
            if url not in self._answers_all:
                self._answers_all[url] = await ask()
            return self._answers_all[url]


async def check_credential(
    connection: Connection, client: EasClient, guards: OptionsGuards, seeker: Seeker | None = None
) -> Finding:
    """Show a candidate to its server with OPTIONS, which costs nothing and changes nothing [MS-ASHTTP 2.2.3].

    A server that answers OPTIONS to every client must also take a command that every server guards. A server that sends
    the mailbox to another allowed host gives no result, so that host is asked. The same holds for a server that has the
    mailbox no longer, if `seeker` finds it elsewhere.
    """
    hosts, followed = connection.server.policy.hosts, 0
    account = replace(connection.account, url=client.url)
    try:
        while True:
            try:
                await _show(connection, client, account.url, guards)
            except Redirected as error:
                url = redirect_target(error, hosts, followed)
            except AccessDenied as error:
                if seeker is None or error.reason not in GONE:
                    raise
                understood, note = await look_for(account, seeker, error)
                if not isinstance(understood, Redirected):
                    raise AccessDenied(f"{error}; {note}", error.reason) if note else understood from error
                url = redirect_target(understood, hosts, followed)
            else:
                return Finding(CheckResult.ACCEPTED, url=account.url)
            account, followed = replace(account, url=url), followed + 1
    except (Unauthorized, CredentialVoid):
        return Finding(CheckResult.REFUSED)
    except EasError as error:
        log.info("candidate not proved", extra={"mailbox": account.mailbox, "detail": str(error)})
        return _unknown(error, client)


def _unknown(error: EasError, client: EasClient) -> Finding:
    """Return the finding of a check that failed without a result."""
    if concerns_server(error) and client.admission.state == "away":
        wait = client.admission.expected_wait()
        return Finding(
            CheckResult.UNKNOWN, str(error), reason_of(error), None, wait, queues=True, in_doubt=in_doubt(error)
        )
    retry_in = error.retry_after if isinstance(error, ServerBusy) else None
    return Finding(CheckResult.UNKNOWN, str(error), reason_of(error), retry_in=retry_in, in_doubt=in_doubt(error))


def reason_of(error: EasError) -> Reason | None:
    """Return the reason why a candidate waits after a failed check; None: nothing in particular."""
    match error:
        case AccessDenied(reason=reason) | Unreachable(reason=reason):
            return reason
        case ServerBusy():
            return Reason.SERVER_BUSY
        case ProtocolViolation():
            return Reason.PROTOCOL_VIOLATION
        case _:
            return None


async def _show(connection: Connection, client: EasClient, url: str, guards: OptionsGuards) -> None:
    """Show a candidate to one server; return if that accepts it, raises EasError if it does not."""
    start = Partnership(url=url)
    offer = (await client.send(Options(), start)).reply

    async def ask() -> bool:
        return await _answers_anonymous(connection, client)

    if await guards.answers_all(url, ask):
        await _send_first_command(client, offer, start)


async def _answers_anonymous(connection: Connection, client: EasClient) -> bool:
    """Send OPTIONS without a credential; return True if the server answers it all the same."""
    anonymous = client.showing(NoCredential(connection.account.user), connection.server.transport)
    match (await anonymous.fetch(Options(), Partnership())).error:
        case None:
            return True
        case Unauthorized() | AccessDenied():
            return False
        case error:
            raise error


async def _send_first_command(client: EasClient, offer: Capabilities, start: Partnership) -> None:
    """Send what a watch sends first, which no server takes without a credential; raises EasError."""
    version = choose_version(offer, tuple(ProtocolVersion))
    start = replace(start, version=version)
    if "Provision" in offer.commands:
        fetched = await client.fetch(next(provision(version, Acknowledgement.THIRD_PARTY)), start)
        if fetched.error is not None:
            raise fetched.error
        return
    with suppress(ServerRenewed):  # the server took the credential; the watch learns what it offers now
        await client.send(InformDevice(DEVICE), start)
