"""Many mailboxes at once in the database of a sandbox's relay, as if each phone had registered long ago.

Registering 10,000 mailboxes takes minutes and is measured by a bench of its own; a bench of a large fleet plants them.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from relay.domain.model import Environment, Mode, NewMailbox, Platform, RegistrationState, shard_of
from relay.process.clock import now
from relay.registration.secret import hash_secret
from relay.sandbox.installation import APP
from relay.security.sealing import SealingPublicKey, derive_device_id
from relay.settings.database import DATABASE
from relay.store.tables import mailbox, registration

SERVER: Final = "sandbox"
AT_ONCE: Final = 5_000  # rows per statement


def user(number: int) -> str:
    """Return the user of a mailbox that `relay sandbox` adds; numbers begin at 1."""
    return f"user{number}@example.com"


def token(number: int) -> str:
    """Return the device token of a mailbox's only phone."""
    return f"{number:064x}"


def plant(folder: Path, mailboxes: int, password: str) -> None:
    """Make keys and database of a sandbox's relay, and insert mailboxes 1 to `mailboxes`; the relay must not run.

    `folder` is the sandbox's, `password` that of all mailboxes.
    """
    relay = [sys.executable, "-m", "relay"]
    for command in ("keygen", "migrate"):
        subprocess.run([*relay, command, "--config", str(folder / "relay.toml")], check=True, stdout=subprocess.DEVNULL)
    state = folder / "state"
    key = SealingPublicKey.load(state / "sealing-public.pem")
    engine = sa.create_engine(f"sqlite:///{state / DATABASE}")
    with engine.begin() as connection:
        insert(connection, key, range(1, mailboxes + 1), password)
    engine.dispose()


def insert(connection: sa.Connection, key: SealingPublicKey, numbers: Sequence[int], password: str) -> None:
    """Insert the mailboxes with these numbers, whose credentials only the holder of the key can open."""
    for start in range(0, len(numbers), AT_ONCE):
        owners, phones = _rows(key, numbers[start : start + AT_ONCE], password)
        connection.execute(sa.insert(mailbox), owners)
        connection.execute(sa.insert(registration), phones)


Rows = list[dict[str, Any]]


def _rows(key: SealingPublicKey, numbers: Sequence[int], password: str) -> tuple[Rows, Rows]:
    """Return the rows of mailboxes and of their phones."""
    moment = now()
    owners: Rows = []
    phones: Rows = []
    for number in numbers:
        id_ = MailboxId(f"planted-{number:08}")
        new = NewMailbox(id_, SERVER, user(number), derive_device_id(key, SERVER, user(number)), shard_of(id_))
        owners.append(
            {
                "id": id_,
                "server": SERVER,
                "user": new.user,
                "device_id": new.device_id,
                "shard": new.shard,
                "state": WatchState.STARTING.value,
                "since": moment,
                "sealed_credential": key.seal(new, BasicCredential(new.user, password)),
            }
        )
        phones.append(
            {
                "id": f"phone-{number:012}",
                "mailbox_id": id_,
                "secret_hash": hash_secret(f"secret {number}"),
                "app": APP,
                "platform": Platform.APNS.value,
                "environment": Environment.PRODUCTION.value,
                "device_token": token(number),
                "token_since": moment,
                "classes": ["email"],
                "mode": Mode.ALERT.value,
                "locale": "en",
                "state": RegistrationState.ACTIVE.value,
                "created_at": moment,
                "proved_at": moment,
            }
        )
    return owners, phones
