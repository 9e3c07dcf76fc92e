"""When the relay looks again for a mailbox that Autodiscover once found, and what the result means for its watch.

Servers are replaced and mailboxes are moved, and the old server does not always say so. The relay never looks for a
mailbox of a configured server: its operator says where it is.
"""

from typing import Final, Protocol

from eas_watcher.errors import AccessDenied, EasError, Redirected, ServerBusy, Unauthorized, Unreachable
from eas_watcher.machine.counters import MOST_REFUSALS
from eas_watcher.machine.remedies import HOPELESS, may_provision
from eas_watcher.machine.state import Pinging, State
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account

GONE: Final = frozenset({Reason.HTTP_404, Reason.HTTP_451, Reason.EAS_127, Reason.EAS_128})
"""Reasons of AccessDenied which say that the mailbox is not at this URL [MS-ASHTTP 2.2.2.1.1, MS-ASCMD 2.2.2]."""


class Seeker(Protocol):
    """Looks for mailboxes that may have moved."""

    async def seek(self, account: Account, *, show: bool) -> str:
        """Return the ActiveSync URL where a mailbox is now, one that the operator allows.

        Without `show` its credential is not sent. Raises Unauthorized when Autodiscover refuses the credential now,
        any other EasError when it does not know, or when it was asked for this mailbox lately: the text says which.
        """


def astray(state: State, error: EasError) -> bool:
    """Return True if a failure in a state suggests that the mailbox is elsewhere.

    The first sign is a server that says that it has no such mailbox. The others are failures after which the watch
    would wait an hour or end. A lost connection of a Ping is no sign, since its answer may have been lost with it: the
    watch sends a Sync first.
    """
    watch = state.watch
    if not watch.policy.discovered:
        return False
    match error:
        case AccessDenied(reason=Reason.HTTP_403):
            return not may_provision(watch)
        case AccessDenied(reason=reason):
            return reason in GONE
        case Unauthorized():
            return watch.counters.refusals >= MOST_REFUSALS - 1
        case ServerBusy(retry_after=None) | Unreachable():
            return watch.counters.failures >= HOPELESS and not isinstance(state, Pinging)
        case _:
            return False


async def look_for(account: Account, seeker: Seeker, error: EasError, *, refused: bool = False) -> tuple[EasError, str]:
    """Look for an account's mailbox after a failure at its URL.

    Return the failure as the watch should understand it, and a note for the operator about what the search found:
    Redirected when the mailbox is elsewhere; Unauthorized when Autodiscover refuses the credential, which counts like
    any other refusal; else the failure as it was, with the note. A credential that was `refused` is not shown once
    more: another try could lock the user out.
    """
    show = not (refused or isinstance(error, Unauthorized))
    try:
        url = await seeker.seek(account, show=show)
    except Unauthorized as void:
        if show:
            return void, ""
        found = str(void)
    except EasError as unknown:
        found = str(unknown)
    else:
        if url != account.url:
            return Redirected(url, "Autodiscover names another URL for this mailbox"), ""
        found = "Autodiscover names the same URL"
    return error, f"looked for elsewhere: {found}"
