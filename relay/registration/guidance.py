"""What the API tells an app about its registration: whether it works, who must act, and what to do."""

from dataclasses import dataclass
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.model import Mailbox, PushTest, PushTestState, Quarantine, RegistrationState, RegistrationView
from relay.domain.reasons import REASONS, STATES, Actor, Concern, row_of


@dataclass(frozen=True, slots=True)
class Advice:
    """Who must act, and how; the text is for people, in English, and may change."""

    by: Actor
    text: str


def proved(view: RegistrationView) -> bool:
    """Return True if the mail server ever accepted a credential of the registration.

    Only then does the API show what its mailbox does.
    """
    return view.registration.state in {
        RegistrationState.PROVING,
        RegistrationState.ACTIVE,
        RegistrationState.TOKEN_GONE,
        RegistrationState.WIPED,
    }


def advise(view: RegistrationView) -> Advice:
    """Return the advice for a registration in its present state."""
    match view.registration.state:
        case RegistrationState.VERIFYING:
            return _verifying(view)
        case RegistrationState.PROVING:
            return _proving(view)
        case RegistrationState.REFUSED:
            return Advice(Actor.USER, "The mailbox's server refused the credential: enter it again.")
        case RegistrationState.TOKEN_GONE:
            return Advice(
                Actor.APP,
                "The push provider says the app left, or the relay was restored: send the present device token.",
            )
        case RegistrationState.WIPED:
            return Advice(STATES[WatchState.WIPED].actor, STATES[WatchState.WIPED].words)
        case RegistrationState.ACTIVE:
            return _active(view)


def advise_test(test: PushTest) -> Advice:
    """Return the advice after a test push in its present state."""
    if test.state is PushTestState.REFUSED and not test.channel:
        text = (
            f"The push to this device was refused ({test.reason}): send the present device token, and for APNs the "
            "environment that issued it, then test again."
        )
        return Advice(Actor.APP, text)
    if test.state is PushTestState.EXPIRED and test.ended_at is None:
        return Advice(Actor.APP, "The test push was dropped: look at the state of the registration.")
    return _TESTED[test.state]


_TESTED: Final = {
    PushTestState.QUEUED: Advice(
        Actor.NOBODY, "The relay has the test push; the provider has not taken it yet: ask again."
    ),
    PushTestState.DELIVERED: Advice(
        Actor.NOBODY,
        "The provider took the test push. If the phone shows nothing, look at its settings for notifications.",
    ),
    PushTestState.REFUSED: Advice(
        Actor.ADMINISTRATOR,
        "The provider refuses what the relay sends for this app: the administrator of the relay sees why.",
    ),
    PushTestState.SUPERSEDED: Advice(Actor.NOBODY, "A later test push took its place: ask about that one."),
    PushTestState.EXPIRED: Advice(
        Actor.ADMINISTRATOR, "The provider did not take the test push in time: the administrator of the relay sees why."
    ),
}


def visible_reason(view: RegistrationView) -> Reason | None:
    """Return the reason of the mailbox as far as the app may know it.

    Before the mail server has accepted a credential of this registration, the app learns only what the relay or the
    whole server lacks; anything else would tell strangers about a mailbox.
    """
    mailbox = view.mailbox
    if proved(view) or mailbox.reason is None or _concern(mailbox) is not Concern.MAILBOX:
        return mailbox.reason
    return Reason.NOT_ASKED


def _concern(mailbox: Mailbox) -> Concern:
    return row_of(mailbox.state, mailbox.reason).concern


def _verifying(view: RegistrationView) -> Advice:
    if not view.candidate_pending:
        text = (
            "Enter the credential of the mailbox again: another phone has sent a new one, or the relay could not check "
            "the last one in time."
        )
        return Advice(Actor.USER, text)
    match _concern(view.mailbox):
        case Concern.RELAY:
            return Advice(Actor.ADMINISTRATOR, "The relay cannot ask the mailbox's server: its administrator sees why.")
        case Concern.SERVER:
            text = (
                "The mailbox's server does not answer as it should; the relay asks again. Its administrator sees why."
            )
            return Advice(Actor.ADMINISTRATOR, text)
        case Concern.MAILBOX:  # pragma: no branch -- mypy proves that there is no other
            row = REASONS[Reason.NOT_ASKED]
            return Advice(row.actor, row.words)


def _proving(view: RegistrationView) -> Advice:
    quarantine = view.registration.quarantine
    if quarantine is None:
        text = "Send the nonce of the challenge push as proof; ask for another challenge if none comes."
        return Advice(Actor.APP, text)
    return Advice(Actor.APP, _refused_token(quarantine))


def _refused_token(quarantine: Quarantine) -> str:
    return (
        f"The push provider refuses the device token ({quarantine.reason}): send the present one and its environment."
    )


def _active(view: RegistrationView) -> Advice:
    """Return the advice for an active registration; a mailbox without a watch comes before a refused device token."""
    quarantine, advice = view.registration.quarantine, _watched(view)
    if quarantine is None or advice.by is not Actor.NOBODY:
        return advice
    return Advice(Actor.APP, _refused_token(quarantine))


def _watched(view: RegistrationView) -> Advice:
    mailbox = view.mailbox
    if mailbox.state in {WatchState.WATCHING, WatchState.STARTING}:
        if view.candidate_refused:
            text = "All is well: the last new credential was refused, or not checked in time; the one before is in use."
            return Advice(Actor.NOBODY, text)
        row = STATES[mailbox.state]  # the hints about a watched mailbox are for administrators
    else:
        row = row_of(mailbox.state, mailbox.reason)
    return Advice(row.actor, f"{row.words} Its id is {mailbox.device_id}." if row.access_rule else row.words)
