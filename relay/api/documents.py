"""The JSON documents of the API; none has a credential or a device token."""

from datetime import UTC, datetime

from eas_watcher.machine.memory import WatchState
from relay.domain.model import Platform, Quarantine, Registration, RegistrationView
from relay.registration.guidance import advise, proved, visible_reason

Json = dict[str, object]


def registration(view: RegistrationView) -> Json:
    """Return a registration as its app may see it.

    What the mailbox does is shown only after the mail server accepted a credential of this registration.
    """
    own, advice = view.registration, advise(view)
    return {
        "id": own.id,
        "state": own.state.value,
        "remedy": {"by": advice.by.value, "text": advice.text},
        "mailbox": _mailbox(view) if proved(view) else _unproved(view),
        "device": _device(own),
        "classes": sorted(cls.value for cls in own.classes),
        "subfolders": sorted(cls.value for cls in own.subfolders),
        "mode": own.mode.value,
        "locale": own.locale,
        "credential": {"pending": view.candidate_pending, "refused": view.candidate_refused},
        "created_at": _moment(own.created_at),
        "last_push_at": _moment(own.last_push_at),
        "last_outcome": None if own.last_outcome is None else own.last_outcome.line,
        "quarantine": _quarantine(own.quarantine),
    }


def _mailbox(view: RegistrationView) -> Json:
    mailbox = view.mailbox
    return {
        **_condition(view),
        "device_id": mailbox.device_id,
        "last_ping_at": _moment(mailbox.last_ping_at),
        "last_change_at": _moment(mailbox.last_change_at),
    }


def _unproved(view: RegistrationView) -> Json:
    """Return a mailbox without any accepted credential as it is, and only the name of one that others have watched."""
    mailbox = view.mailbox
    if mailbox.state is WatchState.VERIFYING:
        return _condition(view)
    return {"server": mailbox.server, "user": mailbox.user}


def _condition(view: RegistrationView) -> Json:
    mailbox, reason = view.mailbox, visible_reason(view)
    return {
        "server": mailbox.server,
        "user": mailbox.user,
        "state": mailbox.state.value,
        "reason": None if reason is None else reason.value,
        "since": _moment(mailbox.since),
        "next_try_at": _moment(mailbox.next_try_at),
    }


def _quarantine(quarantine: Quarantine | None) -> Json | None:
    if quarantine is None:
        return None
    since, recheck_at = _moment(quarantine.since), _moment(quarantine.recheck_at)
    return {"reason": quarantine.reason, "since": since, "recheck_at": recheck_at}


def _device(own: Registration) -> Json:
    device: Json = {"platform": own.platform.value, "app": own.app, "token_since": _moment(own.token_since)}
    if own.platform is Platform.APNS:
        device["environment"] = own.environment.value
    return device


def _moment(moment: datetime | None) -> str | None:
    """Return a moment as RFC 3339 in UTC, whole seconds."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
