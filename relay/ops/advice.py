"""What the operator should do about a mailbox and about a registration."""

from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DEVICE_TYPE
from relay.domain.explanation import KnownRegistration, MailboxExplanation
from relay.domain.model import Mailbox, Registration, RegistrationState
from relay.domain.outcome import OutcomeKind
from relay.domain.reasons import row_of

SLACK: Final = timedelta(minutes=10)
"""How much older than its heartbeat interval the last noted Ping may be: Pings are noted with a delay, and Syncs come
between them."""


def advise_on_mailbox(explanation: MailboxExplanation, now: datetime) -> str:
    """Return what to do about the watch of a mailbox."""
    mailbox = explanation.mailbox
    if explanation.owner is None or explanation.owned_until is None or explanation.owned_until < now:
        return "No process watches this mailbox: start `relay serve` (role all or watch), or see why it holds no lease."
    if mailbox.state is WatchState.WATCHING and _late(mailbox, now):
        return "The last Ping is older than it may be: look at the log of the process that watches, and restart it."
    row = row_of(mailbox.state, mailbox.reason)
    again = f"The relay checks again {row.recheck}." if mailbox.state is WatchState.BLOCKED else ""
    return " ".join(filter(None, (row.remedy, _allow(mailbox) if row.access_rule else "", again)))


def advise_on_registration(known: KnownRegistration, now: datetime) -> str:
    """Return what to do about the pushes of a registration."""
    registration = known.registration
    if registration.state is not RegistrationState.ACTIVE:
        return _BY_REGISTRATION[registration.state]
    if known.candidate_pending:
        return "Nothing yet: its new credential waits for the mail server's word."
    if (quarantine := registration.quarantine) is not None:
        return f"The provider refuses its device token ({quarantine.reason}): {quarantine.remedy}."
    return _waits(known, now) if known.marks else _idle(registration)


def _idle(registration: Registration) -> str:
    """Return what to do about a registration without waiting pushes."""
    if _ended(registration) is OutcomeKind.EXPIRED:
        return "Nothing waits: what came was not delivered in time. /healthz of the push process tells what lasts."
    return "Nothing waits. If the phone showed no push, look at its notification settings for the app."


def _waits(known: KnownRegistration, now: datetime) -> str:
    """Return what to do about a registration with waiting pushes."""
    last = _ended(known.registration)
    if any(mark.parked for mark in known.marks):
        return "Its push breaks the relay: report it with the log lines `push set aside`; it is tried once an hour."
    if last is OutcomeKind.REFUSED:
        return "The provider refuses the push: /healthz of the push process names the setting to correct."
    late = [mark for mark in known.marks if mark.attempts or now - mark.first_at > SLACK]
    if not late:
        return "Nothing: a push is on its way."
    if max(mark.attempts for mark in late):
        return f"The provider did not take it so far; it is tried again at {min(m.due_at for m in late):%H:%M:%S} UTC."
    if last is OutcomeKind.RETRY_LATER:
        return "The provider serves nobody: /healthz of the push process tells why; all is sent once it is back."
    # While their provider or push service is away, marks stay unclaimed, so nothing about them shows the cause.
    return (
        "No push process takes it: see that `relay serve` (role all or push) runs with its provider configured, and "
        "what its /healthz says: the provider or the push service may be away."
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


_BY_REGISTRATION: Final = {
    RegistrationState.VERIFYING: "Nothing yet: its credential waits for the mail server's word.",
    RegistrationState.ACTIVE: "Nothing.",
    RegistrationState.REFUSED: "The user must enter the right password in the app.",
    RegistrationState.TOKEN_GONE: "The app is gone from the device, or must send its present token: open it there.",
    RegistrationState.WIPED: "It goes as soon as the phone was told of the wipe.",
}
