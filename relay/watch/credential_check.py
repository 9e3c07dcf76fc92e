"""Own the proof of a candidate credential: it is shown to the mailbox's server once, and the verdict is read.

A wrong password is tried once [promise 4]. A candidate equal to the credential in good use is accepted unasked.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import TypeVar

from eas_watcher.autodiscover.urls import eas_location
from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.http_status import raise_for_http
from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.provision import Acknowledgement, provision
from eas_watcher.commands.request import Command
from eas_watcher.commands.settings import InformDevice
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, Redirected, Unauthorized
from eas_watcher.machine.remedies import REDIRECTS
from eas_watcher.names import ProtocolVersion
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.http_request import compose
from eas_watcher.runtime.relocation import GONE, Seeker, look_for
from relay.watch.accounts import Door

log = logging.getLogger(__name__)
R = TypeVar("R")


class CheckResult(Enum):
    """Say what the server thinks of a candidate."""

    ACCEPTED = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    """The server could not be asked, or did not say; ask again later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold a verdict and, while it is unknown, why."""

    verdict: CheckResult
    detail: str = ""
    reason: Reason | None = None
    """Why access is denied, which an administrator must correct first; None if it is not."""
    url: str | None = None
    """Where the server was that accepted the candidate; None: none was asked."""


async def check_credential(
    account: Account,
    transport: Transport,
    stranger: Transport,
    door: Door,
    now: datetime,
    hosts: frozenset[str] = frozenset(),
    seeker: Seeker | None = None,
) -> Finding:
    """Ask the server with the candidate: OPTIONS costs nothing and changes nothing [MS-ASHTTP 2.2.3].

    It needs authorization, says the specification. Whether this server thinks so is found out once, without a
    credential, by the `stranger`'s transport; if not, a command that every server guards must be answered too.
    A server that sends the mailbox to another of `hosts` has not judged, so that one is asked. So it is with one that
    has the mailbox no longer, if a `seeker` may look for it.
    """
    try:
        for _ in range(REDIRECTS):
            try:
                await _find_and_show(account, transport, stranger, door, now, seeker)
            except Redirected as error:
                url = eas_location(error.location, hosts)
                if url is None:
                    raise
                account, door = replace(account, url=url), Door()
            else:
                return Finding(CheckResult.ACCEPTED, url=account.url)
        await _show(account, transport, stranger, door, now)
    except (Unauthorized, CredentialVoid):
        return Finding(CheckResult.REFUSED)
    except EasError as error:
        log.info("candidate not proved", extra={"mailbox": account.mailbox, "detail": str(error)})
        reason = error.reason if isinstance(error, AccessDenied) else None
        return Finding(CheckResult.UNKNOWN, str(error), reason)
    return Finding(CheckResult.ACCEPTED, url=account.url)


async def _find_and_show(
    account: Account, transport: Transport, stranger: Transport, door: Door, now: datetime, seeker: Seeker | None
) -> None:
    """Show a candidate to one server; raise Redirected when that has the mailbox no longer and another one has it."""
    try:
        await _show(account, transport, stranger, door, now)
    except AccessDenied as error:
        if seeker is None or error.reason not in GONE:
            raise
        understood, note = await look_for(account, seeker, error)
        if note:
            understood = AccessDenied(f"{error}; {note}", error.reason)
        raise understood from error


async def _show(account: Account, transport: Transport, stranger: Transport, door: Door, now: datetime) -> None:
    """Show a candidate to one server; return if that accepts it."""
    offer = await _ask(account, transport, Options(), None, now)
    if door.unguarded is None:
        door.unguarded = await _answers_anybody(account, stranger, now)
    if door.unguarded:
        await _knock(account, transport, offer, now)


async def _ask(
    account: Account, transport: Transport, command: Command[R], version: ProtocolVersion | None, now: datetime
) -> R:
    reply = await transport.send(compose(account, command, version, None))
    raise_for_http(reply, now)
    return command.read(reply)


async def _answers_anybody(account: Account, transport: Transport, now: datetime) -> bool:
    """Send OPTIONS without any credential; raises EasError when that tells nothing."""
    request = compose(account, Options(), None, None)
    headers = {name: value for name, value in request.headers.items() if name != "Authorization"}
    try:
        raise_for_http(await transport.send(replace(request, headers=headers)), now)
    except (Unauthorized, AccessDenied):
        return False
    return True


async def _knock(account: Account, transport: Transport, offer: Capabilities, now: datetime) -> None:
    """Send what a watch sends first, which no server takes from a stranger; raises Unauthorized, EasError."""
    version = choose_version(offer, tuple(ProtocolVersion))
    if "Provision" in offer.commands:
        first = next(provision(version, Acknowledgement.THIRD_PARTY))
        raise_for_http(await transport.send(compose(account, first, version, None)), now)
    else:
        await _ask(account, transport, InformDevice(DEVICE), version, now)
