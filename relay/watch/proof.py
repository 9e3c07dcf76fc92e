"""Own the proof of a candidate credential: one request to the mailbox's server, and its verdict.

A wrong password is tried once [promise 4]. A candidate equal to the credential in good use is accepted unasked.
"""

import hmac
import logging
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.http_status import raise_for_http
from eas_watcher.commands.options import Options
from eas_watcher.errors import EasError, Unauthorized
from eas_watcher.ports import Transport
from eas_watcher.wire import Account, compose

log = logging.getLogger(__name__)


class Verdict(Enum):
    """Say what the server thinks of a candidate."""

    ACCEPTED = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    """The server could not be asked, or did not say; ask again later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold a verdict and, while it is unknown, why."""

    verdict: Verdict
    detail: str = ""


def same(left: BasicCredential, right: BasicCredential) -> bool:
    """Compare two credentials in constant time."""
    return hmac.compare_digest(left.authorization().encode(), right.authorization().encode())


async def prove(account: Account, transport: Transport, now: datetime) -> Finding:
    """Ask the server once: OPTIONS needs authorization, costs nothing and changes nothing [MS-ASHTTP 2.2.3]."""
    request = compose(account, Options(), None, None)
    try:
        reply = await transport.send(request)
        raise_for_http(reply, now)
        Options().read(reply)
    except Unauthorized:
        return Finding(Verdict.REFUSED)
    except EasError as error:
        log.info("candidate not proved", extra={"mailbox": account.mailbox, "detail": str(error)})
        return Finding(Verdict.UNKNOWN, str(error))
    return Finding(Verdict.ACCEPTED)
