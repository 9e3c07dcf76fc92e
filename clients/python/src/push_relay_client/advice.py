"""What an app does next, decided from what the relay answered. Nothing here asks, waits or stores."""

from enum import Enum
from typing import Final

from push_relay_client.problem import Problem
from push_relay_client.registration import Registration, TestResult


class Step(Enum):
    """What an app does next."""

    NOTHING = "nothing"
    WAIT = "wait"
    """Look again later; the relay goes on by itself."""
    REPEAT = "repeat"
    """The same request again, after `Retry-After` or a growing wait."""
    ASK_USER = "ask the user for the credential"
    """Never repeat a refused password by itself: the account could be locked."""
    SEND_TOKEN = "send the device token"
    TELL_ADMINISTRATOR = "tell the administrator"
    REGISTER_AGAIN = "register again"
    """The registration ended for a reason that is nobody's fault: register, if the user is still logged in."""
    NOT_REGISTERED = "not registered"
    """There is no registration, or none any more: forget id and secret, and register when the user asks for it."""
    WIPE = "wipe"
    """An administrator wiped this phone: remove the company's data, and do not register again by yourself."""
    CORRECT_APP = "correct the app"


# region advise
def advise(registration: Registration) -> Step:
    """Return what to do about a registration that the relay shows."""
    if "wiped" in (registration.state, registration.mailbox_state) or registration.mailbox_state == "wiping":
        return Step.WIPE
    if registration.state == "token-gone" or registration.quarantined:
        return Step.SEND_TOKEN
    proving = registration.state == "proving"  # wait for the challenge push, which `App.received` answers
    match "nobody" if proving else registration.remedy_by:
        case "user":
            return Step.ASK_USER
        case "administrator":
            return Step.TELL_ADMINISTRATOR
        case "app":
            return Step.SEND_TOKEN
        case _:
            settled = registration.state == "active" and not registration.credential_pending
            return Step.NOTHING if settled else Step.WAIT


REFUSALS: Final = {
    "not-authorized": Step.NOT_REGISTERED,
    "wiped": Step.WIPE,
    "gone": Step.REGISTER_AGAIN,
    "replaced": Step.NOT_REGISTERED,
    "credential-refused": Step.ASK_USER,
    "wrong-proof": Step.WAIT,
    "mailbox-wiped": Step.TELL_ADMINISTRATOR,
    "enrolment-refused": Step.TELL_ADMINISTRATOR,
    "mailbox-full": Step.TELL_ADMINISTRATOR,
    "unknown-server": Step.TELL_ADMINISTRATOR,
    "unknown-app": Step.TELL_ADMINISTRATOR,
    "unsupported-credential": Step.ASK_USER,
    "not-active": Step.WAIT,
    "broken-body": Step.REPEAT,
    "too-slow": Step.REPEAT,
}
"""By code. Other refusals go by their status: the relay may learn new codes."""

PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later, no matter which answered: the relay or a proxy before it."""


def advise_refusal(problem: Problem) -> Step:
    """Return what to do about a refusal."""
    if problem.code in REFUSALS:
        return REFUSALS[problem.code]
    if problem.status == 410:  # noqa: PLR2004 - Gone: an ended registration never comes back
        return Step.NOT_REGISTERED
    return Step.REPEAT if problem.status in PASSING else Step.CORRECT_APP


# endregion


def advise_test(test: TestResult) -> Step:
    """Return what to do about a test push."""
    if test.state == "queued":
        return Step.WAIT
    if test.state != "refused":
        return Step.NOTHING
    return Step.SEND_TOKEN if test.remedy_by == "app" else Step.TELL_ADMINISTRATOR


FIRST: Final = 2.0
"""Seconds before the first repetition."""
LONGEST: Final = 3600.0
"""Seconds that an app waits at most where the relay named no time."""


def wait(attempt: int, retry_after: float | None, chance: float) -> float:
    """Return the seconds before repetition `attempt` (from 1): doubled each time, spread by `chance` (0 to 1).

    Without the spread all phones of a company would come back in the same second after an outage. A time that the
    relay named is never shortened, only spread by up to a tenth.
    """
    if retry_after is not None:
        return retry_after * (1 + 0.1 * chance)
    return min(FIRST * 2.0 ** (attempt - 1), LONGEST) * (0.5 + 0.5 * chance)
