"""The errors that operators read: each says what to do."""

from pathlib import Path

import pytest

from relay.domain.errors import (
    DatabaseBusy,
    DatabaseFilled,
    DatabaseInUse,
    DatabaseMoved,
    DatabaseNewer,
    DatabaseRefuses,
    KeyLost,
    MigrationsPending,
    NotificationsLost,
    PortTaken,
    RelayBroke,
    RelayError,
    RowsForbidden,
    RowsUnreadable,
    RowUnreadable,
    SchemaNewer,
    SessionsShared,
    SettingsInvalid,
    StoreUnavailable,
)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (DatabaseInUse(Path("/var/lib/relay.db")), "/var/lib/relay.db: stop it"),
        (DatabaseRefuses("no such role"), "no such role. Check database.url, database.password_file"),
        (
            DatabaseRefuses("no file", embedded=True),
            "no file. Check database.url (unset: relay.sqlite3 in relay.state_dir)",
        ),
        (
            KeyLost(3, Path("key.pem"), ("c0", "ff")),
            "3 credentials that were sealed for another key: c0, ff. Put it back",
        ),
        (
            KeyLost(1, Path("key.pem"), ("c0",)),
            "as key-c0.pem, or as key.pem if there is no key, or name it in sealing.former_private_key_files",
        ),
        (KeyLost(1, Path("key.pem"), ()), "another key: its id is not known. Put it back from your backup as key-ID"),
        (RowsForbidden("shard 9 (epoch)"), "shard 9 (epoch). Correct or delete them"),
        (PortTaken({"api.port": 8443}), "api.port: 8443 is in use (address already in use): stop the program"),
        (PortTaken({"api.port": 8443, "ops.port": 9090}), "in use), ops.port: 9090 is in use"),
        (SchemaNewer(), "install that version again"),
        (DatabaseNewer(Path("/var/lib/relay.db")), "move the file away, with relay.db-wal and relay.db-shm"),
        (DatabaseNewer(None), "let its administrator make an empty one"),
        (DatabaseMoved(), "name that one in database.url"),
        (DatabaseFilled({"mailbox": 2, "wipe": 1}), "2 rows of mailbox, 1 row of wipe: name another one"),
        (DatabaseBusy(["watch process host-1"]), "watch process host-1: stop them first"),
        (RowsUnreadable(["mailbox a (x)", "mailbox b (y)"], 1), "mailbox a (x) and 1 more. Mend or delete them"),
        (MigrationsPending(), "run `relay migrate` first"),
        (RelayBroke(), "see the log"),
        (SessionsShared(), "set pool_mode = session"),
        (NotificationsLost(), "name PostgreSQL itself"),
    ],
)
def test_an_error_names_its_remedy(error: RelayError, remedy: str) -> None:
    assert remedy in str(error)


def test_all_faults_of_the_settings_are_named_at_once() -> None:
    faults = [("api.port", "is taken", "Choose another."), ("apns.topics", "is empty", "Name an app.")]
    error = SettingsInvalid(faults)

    assert error.faults == faults
    assert str(error) == "api.port: is taken. Choose another.\napns.topics: is empty. Name an app."


def test_a_row_that_cannot_be_read_is_named_and_asked_for_again_later() -> None:
    error = RowUnreadable("reg-1", "state: 'paused'")

    assert str(error) == "row reg-1 cannot be read: state: 'paused'"
    assert isinstance(error, StoreUnavailable)
