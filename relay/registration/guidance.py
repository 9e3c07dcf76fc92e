"""Own what an app is told about the state of its registration: whether it works, who must act, and what to do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from eas_watcher.machine.memory import WatchState
from relay.domain.model import Mailbox, RegistrationState, RegistrationView

RELAYS_OWN: Final = frozenset(
    {
        *(
            "server-unknown",
            "host-not-allowed",
            "seal-broken",
            "credential-kind",
            "oauth-client",
            "oauth-audience",
        ),
        *(
            "kerberos-keytab",
            "kerberos-clock",
            "kerberos-target",
            "kerberos-delegation",
            "kerberos-refused",
        ),
        *("kerberos-not-offered", "kerberos-ticket"),
    }
)
"""Reasons that only who runs the relay can remove; what else its server does is not for the unproved to know."""


class Actor(StrEnum):
    """Name who must act."""

    NOBODY = "nobody"
    APP = "app"
    USER = "user"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Advice:
    """Say who must do what; the text is for people, in English, and may change."""

    by: Actor
    text: str


def proved(view: RegistrationView) -> bool:
    """Tell whether the registration ever showed a good credential; only then may it hear what its mailbox does."""
    return view.registration.state in {
        RegistrationState.ACTIVE,
        RegistrationState.TOKEN_GONE,
        RegistrationState.WIPED,
    }


def advise(view: RegistrationView) -> Advice:
    """Advise on a registration as it is now."""
    match view.registration.state:
        case RegistrationState.VERIFYING:
            return _verifying(view.mailbox)
        case RegistrationState.REFUSED:
            return Advice(Actor.USER, "The mailbox's server refused the credential: enter it again.")
        case RegistrationState.TOKEN_GONE:
            return Advice(Actor.APP, "The push provider says the app left the device: send the present device token.")
        case RegistrationState.WIPED:
            return _ACTIVE[WatchState.WIPED]
        case RegistrationState.ACTIVE:
            return _active(view)


def _verifying(mailbox: Mailbox) -> Advice:
    if mailbox.reason in RELAYS_OWN:
        return Advice(Actor.ADMINISTRATOR, "The relay cannot ask the mailbox's server: its administrator sees why.")
    return Advice(Actor.NOBODY, "The mailbox's server did not answer so far; the relay asks it again by itself.")


def _active(view: RegistrationView) -> Advice:
    """Advise on the watch of its mailbox first: without one nothing is pushed, whatever the token."""
    quarantine, advice = view.registration.quarantine, _watched(view)
    if quarantine is None or advice.by is not Actor.NOBODY:
        return advice
    text = (
        f"The push provider refuses the device token ({quarantine.reason}): send the present one and its environment."
    )
    return Advice(Actor.APP, text)


def _watched(view: RegistrationView) -> Advice:
    mailbox = view.mailbox
    if mailbox.reason in RELAYS_OWN:
        return Advice(Actor.ADMINISTRATOR, "The relay cannot watch the mailbox: its administrator sees why.")
    match mailbox.state:
        case WatchState.BLOCKED if mailbox.reason == "kerberos-user-locked":
            advice = Advice(Actor.ADMINISTRATOR, "The user's account is disabled, expired or locked: unlock it.")
        case WatchState.BLOCKED:
            text = f"The mailbox's server denies access: allow the device {mailbox.device_id} there."
            advice = Advice(Actor.ADMINISTRATOR, text)
        case WatchState.CREDENTIAL_REFUSED if mailbox.reason in _VOID:
            advice = _VOID[mailbox.reason]
        case WatchState.WAITING if mailbox.reason == "http-401":
            text = "The mailbox's server refused the credential; the relay makes sure before it says so."
            advice = Advice(Actor.NOBODY, text)
        case WatchState.WATCHING | WatchState.STARTING if view.candidate_refused:
            text = "All is well: the last new credential was refused, the one before is in use."
            advice = Advice(Actor.NOBODY, text)
        case state:
            advice = _ACTIVE[state]
    return advice


_VOID: Final = {
    "oauth-invalid_grant": Advice(Actor.USER, "The grant was withdrawn or has ended: log in anew."),
    "certificate-expired": Advice(Actor.APP, "The client certificate has ended: send the next one."),
    "kerberos-user-unknown": Advice(Actor.ADMINISTRATOR, "The company's directory does not know the user any more."),
}
_ACTIVE: Final = {
    WatchState.VERIFYING: Advice(Actor.NOBODY, "All is well."),
    WatchState.STARTING: Advice(Actor.NOBODY, "All is well."),
    WatchState.WATCHING: Advice(Actor.NOBODY, "All is well."),
    WatchState.WAITING: Advice(Actor.NOBODY, "The relay cannot watch the mailbox now; it tries again by itself."),
    WatchState.CREDENTIAL_REFUSED: Advice(
        Actor.USER, "The mailbox's server does not take the credential any more: log in with the new one."
    ),
    WatchState.WIPING: Advice(Actor.NOBODY, "An administrator wipes this device: the last push says when it is done."),
    WatchState.WIPED: Advice(
        Actor.ADMINISTRATOR,
        "An administrator wiped this device: remove its data, ask for leave, then register anew.",
    ),
}
