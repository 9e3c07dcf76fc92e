"""The due push that tests of the push role start from."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from eas_watcher.names import MailboxId
from relay.domain.model import DuePush, Environment, Mark, Mode, Platform, RegistrationId

BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)


def due_push(number: int = 1, **changes: Any) -> DuePush:
    """Return a due push; each number has its own registration and device token."""
    first = DuePush(
        RegistrationId(f"registration-{number}"),
        Mark.EMAIL,
        count=2,
        certain=True,
        generation=1,
        attempts=0,
        first_at=BEGAN,
        last_at=BEGAN,
        platform=Platform.APNS,
        app="com.example.mail",
        environment=Environment.PRODUCTION,
        device_token=f"{number:064x}",
        token_since=BEGAN,
        mode=Mode.ALERT,
        locale="en",
        mailbox_id=MailboxId("a-mailbox"),
    )
    return replace(first, **changes)
