"""What the operator should do about a mailbox and about a registration."""

from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DEVICE_TYPE
from eas_watcher.reasons import Reason
from relay.domain.explanation import KnownRegistration, MailboxExplanation
from relay.domain.model import Mailbox, Platform, Registration, RegistrationState
from relay.domain.outcome import OutcomeKind
from relay.domain.reasons import row_of

RESTS: Final = "push-service-rests"
"""The beginning of the reason of a push that was not sent because its push service is away."""
UNLOGGED: Final = "egress-log: "
"""The beginning of the reason of a push that was not sent because the egress log cannot be written."""
SLACK: Final = timedelta(minutes=10)
"""How much older than its heartbeat interval the last noted Ping may be: Pings are noted with a delay, and Syncs come
between them."""


def advise_on_mailbox(explanation: MailboxExplanation, now: datetime) -> str:
    """Return what to do about the watch of a mailbox."""
    mailbox = explanation.mailbox
    if mailbox.state is WatchState.PAUSED or mailbox.reason is Reason.MAINTENANCE:
        return row_of(mailbox.state, mailbox.reason).remedy
    if explanation.owner is None or explanation.owned_until is None or explanation.owned_until < now:
        return "No process watches this mailbox: start `relay serve` (role all or watch), or see why it holds no lease."
    if mailbox.state is WatchState.WATCHING and _late(mailbox, now):
        return "The last Ping is older than it may be: look at the log of the process that watches, and restart it."
    row = row_of(mailbox.state, mailbox.reason)
    again = f"The relay checks again {row.recheck}." if mailbox.state is WatchState.BLOCKED else ""
    if mailbox.reason is Reason.HTTP_401_DOUBTFUL and mailbox.next_try_at is not None:
        again = (
            f"The credential is tried again at {mailbox.next_try_at:%Y-%m-%d %H:%M} UTC, or on a sign of the server."
        )
    return " ".join(filter(None, (row.remedy, _allow(mailbox) if row.access_rule else "", again)))


def advise_on_registration(
    known: KnownRegistration, reason: Reason | None, now: datetime, *, paused: bool = False
) -> str:
    """Return what to do about the pushes of a registration; `reason` is that of its mailbox, which may be `paused`."""
    registration = known.registration
    if paused and registration.state is not RegistrationState.WIPED:
        return "An administrator paused its mailbox: no push leaves, and what waits does so until it is resumed."
    if registration.state is RegistrationState.VERIFYING and reason not in {None, Reason.NOT_ASKED}:
        return "Its credential waits for the mail server's word: do what is said above about the mailbox."
    if registration.state is not RegistrationState.ACTIVE:
        return _BY_REGISTRATION[registration.state]
    if known.candidate_pending:
        return "Nothing yet: its new credential waits for the mail server's word."
    if (quarantine := registration.quarantine) is not None:
        what = "subscription" if registration.platform is Platform.WEBPUSH else "device token"
        again = f"{quarantine.due_at(now):%Y-%m-%d %H:%M} UTC"
        return (
            f"The provider refuses its {what} ({quarantine.reason}), tried again from {again} on: {quarantine.remedy}."
        )
    return _waits(known, now) if known.marks else _idle(registration)


def _idle(registration: Registration) -> str:
    """Return what to do about a registration without waiting pushes."""
    if _ended(registration) is OutcomeKind.EXPIRED:
        return "Nothing waits: what came was not delivered in time. /healthz of the push process tells what lasts."
    if _ended(registration) is OutcomeKind.SHADOWED:
        return "Its last push was due and did not leave, for push.mode of the push process was shadow then."
    return "Nothing waits. If the phone showed no push, look at its notification settings for the app."


def _waits(known: KnownRegistration, now: datetime) -> str:
    """Return what to do about a registration with waiting pushes."""
    kind = _ended(known.registration)
    if any(mark.parked for mark in known.marks):
        return "Its push breaks the relay: report it with the log lines `push set aside`; it is tried once an hour."
    if kind is OutcomeKind.REFUSED:
        return "The provider refuses the push: /healthz of the push process names the setting to correct."
    if (retried := _retried(known)) is not None:
        return retried
    if all(now - mark.first_at <= SLACK for mark in known.marks):
        return "Nothing: a push is on its way."
    if kind is OutcomeKind.RETRY_LATER:
        return "The provider serves nobody: /healthz of the push process tells why; all is sent once it is back."
    # While their provider or push service is away, marks stay unclaimed, so nothing about them shows the cause.
    return (
        "No push process takes it: see that `relay serve` (role all or push) runs with its provider configured, and "
        "what its /healthz says: the provider or the push service may be away."
    )


def _retried(known: KnownRegistration) -> str | None:
    """Return what to do about pushes that were tried, or held back; None: there are none."""
    registration, last = known.registration, known.registration.last_outcome
    again = f"it is tried again at {min(mark.due_at for mark in known.marks):%H:%M:%S} UTC."
    if last is not None and last.kind is OutcomeKind.RETRY_LATER and last.reason.startswith(RESTS):
        return f"Its push service rests{last.reason.removeprefix(RESTS)}; {again} See /healthz of the push process."
    if last is not None and last.kind is OutcomeKind.RETRY_LATER and last.reason.startswith(UNLOGGED):
        return (
            f"What leaves cannot be logged ({last.reason.removeprefix(UNLOGGED)}), so nothing leaves: make room there."
        )
    if not any(mark.attempts for mark in known.marks):
        return None
    said = "" if last is None or last.kind is OutcomeKind.DELIVERED else f" ({last.reason})"
    return (
        f"The provider did not take it so far{said}; {again}{_OWN if registration.platform is Platform.WEBPUSH else ''}"
    )


def _ended(registration: Registration) -> OutcomeKind | None:
    """Return how the last push ended; None: none has."""
    return None if registration.last_outcome is None else registration.last_outcome.kind


def _allow(mailbox: Mailbox) -> str:
    rule = f"New-ActiveSyncDeviceAccessRule -QueryString {DEVICE_TYPE} -Characteristic DeviceType -AccessLevel Allow"
    one = f'Set-CASMailbox -Identity "{mailbox.user}" -ActiveSyncAllowedDeviceIDs @{{Add="{mailbox.device_id}"}}'
    return f"Allow the type once for all ({rule}), or this device alone ({one}); see docs/exchange-admin.md."


def _late(mailbox: Mailbox, now: datetime) -> bool:
    if mailbox.last_ping_at is None:
        return now - mailbox.since > SLACK
    return now - mailbox.last_ping_at > timedelta(seconds=mailbox.heartbeat or 0.0) + SLACK


_OWN: Final = (
    " If other phones of this push service get theirs, open the app on this phone, and the app that its pushes come "
    "through (e.g. ntfy)."
)
_BY_REGISTRATION: Final = {
    RegistrationState.VERIFYING: "Nothing yet: its credential waits for the mail server's word.",
    RegistrationState.PROVING: "The app must return the nonce of a challenge push: open it on the phone.",
    RegistrationState.ACTIVE: "Nothing.",
    RegistrationState.REFUSED: "The user must enter the right password in the app.",
    RegistrationState.TOKEN_GONE: "The app is gone from the device, or must send its present token: open it there.",
    RegistrationState.WIPED: "It ends as soon as the phone was told of the wipe.",
}
