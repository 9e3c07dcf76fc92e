"""A mailbox and a registration in good order, for tests that look at some of their fields only."""

from dataclasses import replace
from datetime import UTC, datetime

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from relay.domain.model import Environment, Mailbox, Mode, Platform, Registration, RegistrationId, RegistrationState

BEGAN = datetime(2026, 11, 24, 12, tzinfo=UTC)


def mailbox(**changes: object) -> Mailbox:
    """Return a mailbox that is watched since BEGAN and never had a Ping."""
    sample = Mailbox(
        id=MailboxId("mb-ann"),
        server="main",
        user="ann@example.com",
        device_id=DeviceId("DEVICE"),
        shard=7,
        state=WatchState.WATCHING,
        reason=None,
        detail="",
        since=BEGAN,
        next_try_at=None,
        last_ping_at=None,
        heartbeat=None,
        last_change_at=None,
    )
    return replace(sample, **changes)  # type: ignore[arg-type]


def registration(**changes: object) -> Registration:
    """Return a registration of that mailbox, active since BEGAN."""
    sample = Registration(
        id=RegistrationId("reg-ann"),
        mailbox_id=MailboxId("mb-ann"),
        secret_hash=b"h" * 32,
        app="com.example.mail",
        platform=Platform.APNS,
        environment=Environment.PRODUCTION,
        device_token="ab" * 32,
        token_since=BEGAN,
        classes=frozenset({CollectionClass.EMAIL}),
        mode=Mode.ALERT,
        locale="en",
        state=RegistrationState.ACTIVE,
        created_at=BEGAN,
    )
    return replace(sample, **changes)  # type: ignore[arg-type]
