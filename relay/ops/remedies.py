"""Own what an operator is to do about a mailbox and about a registration, by what is known of them."""

from datetime import datetime, timedelta
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DEVICE_TYPE
from eas_watcher.reasons import Reason
from relay.domain.explanation import KnownRegistration, MailboxExplanation
from relay.domain.model import Mailbox, Registration, RegistrationState
from relay.ops.checks import ABSENT_REASONS, LOGIN_REASONS, OWN_REASONS

SLACK: Final = timedelta(minutes=10)
"""How much later than its heartbeat a Ping may have begun: it is noted now and then, and Syncs come in between."""


def advise_on_mailbox(case: MailboxExplanation, now: datetime) -> str:
    """Say what to do about the watch of a mailbox."""
    mailbox = case.mailbox
    if case.owner is None or case.owned_until is None or case.owned_until < now:
        return "No process watches this mailbox: start `relay serve` (role all or watch), or see why it holds no lease."
    if mailbox.state is WatchState.BLOCKED or (mailbox.state is WatchState.VERIFYING and mailbox.reason in _DENIED):
        return _blocked(mailbox)
    if mailbox.reason is Reason.PERHAPS_QUARANTINED:
        return f"Look whether the mail server quarantines device {mailbox.device_id}. {_allow(mailbox)}"
    if mailbox.state is WatchState.WAITING:
        return _WAITING.get(mailbox.reason or "") or f"Nothing yet: it tries again by itself ({mailbox.reason})."
    if mailbox.state is WatchState.WATCHING and _late(mailbox, now):
        return "The last Ping is older than it may be: look at the log of the process that watches, and restart it."
    return _BY_REASON.get(mailbox.reason or "") or _BY_STATE[mailbox.state]


def advise_on_registration(known: KnownRegistration, now: datetime) -> str:
    """Say what to do about the pushes of a registration."""
    registration = known.registration
    if registration.state is not RegistrationState.ACTIVE:
        return _BY_REGISTRATION[registration.state]
    if known.candidate_pending:
        return "Nothing yet: its new credential waits for the mail server's word."
    if (quarantine := registration.quarantine) is not None:
        return f"The provider refuses its device token ({quarantine.reason}): {quarantine.remedy}."
    return _waits(known, now) if known.marks else _idle(registration)


def _idle(registration: Registration) -> str:
    """Advise on a registration that nothing waits for."""
    if registration.last_outcome.startswith("expired"):
        return "Nothing waits: what came was not delivered in time. /healthz of the push process tells what lasts."
    return "Nothing waits. If the phone showed no push, look at its notification settings for the app."


def _waits(known: KnownRegistration, now: datetime) -> str:
    """Advise on a registration that is still to be pushed to."""
    last = known.registration.last_outcome
    if any(mark.parked for mark in known.marks):
        return "Its push breaks the relay: report it with the log lines `push set aside`; it is tried once an hour."
    if last.startswith("refused"):
        return "The provider refuses the push: /healthz of the push process names the setting to correct."
    late = [mark for mark in known.marks if mark.attempts or now - mark.first_at > SLACK]
    if not late:
        return "Nothing: a push is on its way."
    if max(mark.attempts for mark in late):
        return f"The provider did not take it so far; it is tried again at {min(m.due_at for m in late):%H:%M:%S} UTC."
    if last.startswith("retry-later"):
        return "The provider serves nobody: /healthz of the push process tells why; all is sent once it is back."
    # Marks are left where they are while their provider or push service rests, so nothing of theirs tells it.
    return (
        "No push process takes it: see that `relay serve` (role all or push) runs with its provider configured, and "
        "what its /healthz says: the provider or the push service may be away."
    )


def _blocked(mailbox: Mailbox) -> str:
    if mailbox.reason in OWN_REASONS:
        return OWN_REASONS[mailbox.reason]
    return _DENIED.get(mailbox.reason or "") or f"The mail server denies access. {_allow(mailbox)}"


def _allow(mailbox: Mailbox) -> str:
    rule = f"New-ActiveSyncDeviceAccessRule -QueryString {DEVICE_TYPE} -Characteristic DeviceType -AccessLevel Allow"
    one = f'Set-CASMailbox -Identity "{mailbox.user}" -ActiveSyncAllowedDeviceIDs @{{Add="{mailbox.device_id}"}}'
    return f"Allow the type once for all ({rule}), or this device alone ({one}); see docs/exchange-admin.md."


def _late(mailbox: Mailbox, now: datetime) -> bool:
    if mailbox.last_ping_at is None:
        return now - mailbox.since > SLACK
    return now - mailbox.last_ping_at > timedelta(seconds=mailbox.heartbeat or 0.0) + SLACK


_WAITING: Final = ABSENT_REASONS | {
    "http-401": "Nothing yet: the mail server refused the credential; that is confirmed before the user hears of it.",
    "policy-loop": "The mail server is content with no policy key: see its ActiveSync policy, and `acknowledgement`.",
    "redirected": "Let the mailbox go where its server sends it: name that host in [servers] or [autodiscover].",
    "no-folder": "The mailbox has no folder of the classes that were asked for.",
    "version": "Allow a protocol version that the mail server offers: servers.NAME.versions.",
    "ping-too-fast": "Look whether another program uses the same device id at this mailbox.",
}

_DENIED: Final = LOGIN_REASONS | {
    "kerberos-user-locked": "The user's account is disabled, expired or locked: unlock it; the relay asks hourly.",
    "eas-112": "The mail server may not read the account in its directory: see the account's permissions there.",
    "eas-123": "The user has no mailbox on the mail server.",
    "eas-126": "Switch ActiveSync on for the user: Set-CASMailbox -ActiveSyncEnabled $true.",
    "eas-131": "The user's account is disabled.",
    "eas-139": "The mail server wants its policy enforced by the device: allow devices that cannot, or set "
    "acknowledgement_fallback.",
    "eas-145": "The mail server refuses devices managed by others: allow them in its policy, or set "
    "acknowledgement_fallback.",
    "eas-177": "The user has too many devices: remove old ones on the mail server (Remove-MobileDevice).",
    "http-404": "Nothing is at this URL: correct servers.NAME.url.",
    "http-456": "The user's account is blocked: unlock it.",
    "http-457": "The user's password has expired: it must be changed, then entered in the app.",
}

_BY_REASON: Final = {
    "perhaps-in-discovery": "Nothing yet: the mail server may still find out what device this is; then its items show.",
    "oauth-invalid_grant": "The user must log in anew in the app: the grant was withdrawn or has ended.",
    "certificate-expired": "The app must register the user's next certificate: issue one.",
    "credential-unusable": "The app must register anew: what is stored cannot be used, as the line `because` says.",
    "kerberos-user-unknown": "The directory has no such user: nothing, if the user left; else see the user's spelling.",
}

_BY_STATE: Final = {
    WatchState.VERIFYING: "Nothing yet: the mail server has not judged a credential so far; it is asked again.",
    WatchState.STARTING: "Nothing yet: the watch begins.",
    WatchState.WATCHING: "Nothing: the mail server holds a Ping for this mailbox.",
    WatchState.WAITING: "Nothing yet: it tries again by itself.",
    WatchState.CREDENTIAL_REFUSED: "The user must log in anew, e.g. with the present password; none is tried before.",
    WatchState.BLOCKED: "The mail server denies access.",
    WatchState.WIPING: "Nothing: a wipe is being acknowledged, then all that is kept of the mailbox goes.",
    WatchState.WIPED: "The device was wiped: once that is settled, the user registers anew in the app.",
}

_BY_REGISTRATION: Final = {
    RegistrationState.VERIFYING: "Nothing yet: its credential waits for the mail server's word.",
    RegistrationState.ACTIVE: "Nothing.",
    RegistrationState.REFUSED: "The user must enter the right password in the app.",
    RegistrationState.TOKEN_GONE: "The app is gone from the device, or must send its present token: open it there.",
    RegistrationState.WIPED: "It goes as soon as the phone was told of the wipe.",
}
