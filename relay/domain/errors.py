"""The exceptions that pass between parts of the relay; every class has the name of a situation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from relay.domain.counted import counted


class RelayError(Exception):
    """The base of everything that the relay raises on purpose."""


class MailboxExists(RelayError):
    """This server and user already have a mailbox with another id: look it up and try again."""


class RegistrationExists(RelayError):
    """There is a registration of this id already: look it up."""


class MailboxFull(RelayError):
    """A mailbox has as many registrations as it may have, and each of them works or may soon."""


class StoreUnavailable(RelayError):
    """The database did not answer; it is unknown whether the transaction is durable."""


class RowUnreadable(StoreUnavailable):
    """The one row that a request concerns cannot be read; it may be mended, so the request may come again."""

    def __init__(self, key: str, fault: str) -> None:
        super().__init__(f"row {key} cannot be read: {fault}")


class PortTaken(RelayError):
    """Ports that the relay shall listen on are in use."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        named = ", ".join(f"{setting}: {port} is in use (address already in use)" for setting, port in ports.items())
        super().__init__(f"{named}: stop the program that listens there (`ss -ltnp` names it), or choose another port")


class DatabaseInUse(RelayError):
    """Another process uses the embedded database."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another relay process uses the database {path}: stop it, or use PostgreSQL for several")


class DatabaseRefuses(RelayError):
    """The database answers but refuses the connection or the work: the settings or its rights are wrong."""

    def __init__(self, detail: str, *, embedded: bool = False) -> None:
        server = "Check database.url, database.password_file and its rights."
        file = (
            "Check database.url (unset: relay.sqlite3 in relay.state_dir) and the rights on that file; if the file is "
            "damaged, stop the relay, move it away with its -wal and -shm, and restore the newest backup."
        )
        super().__init__(f"the database refuses: {detail}. {file if embedded else server}")


class SessionsShared(RelayError):
    """A pooler gives a connection another session of the database for each transaction."""

    def __init__(self) -> None:
        super().__init__(
            "database.url leads to a pooler that shares sessions, as PgBouncer does with pool_mode = transaction, so "
            "wake-ups between processes would be lost: set pool_mode = session for this database, or name PostgreSQL "
            "itself"
        )


class NotificationsLost(RelayError):
    """Notifications of the database do not arrive."""

    def __init__(self) -> None:
        super().__init__(
            "database.url leads to a pooler or proxy that passes no notifications on (LISTEN, NOTIFY), so wake-ups "
            "between processes would be lost: name PostgreSQL itself"
        )


class RowsForbidden(RelayError):
    """Rows hold what the new schema does not allow."""

    def __init__(self, rows: str) -> None:
        super().__init__(f"the new schema does not allow what these rows hold: {rows}. Correct or delete them")


class SchemaNewer(RelayError):
    """A newer version of the relay has upgraded the database."""

    def __init__(self) -> None:
        super().__init__("a newer relay upgraded the database: install that version again, or restore the backup")


class DatabaseNewer(RelayError):
    """A newer version of the relay has upgraded a database that should take another one's content."""

    def __init__(self, file: Path | None) -> None:
        here = "the database" if file is None else f"the database {file}"
        empty = (
            "let its administrator make an empty one, and name that"
            if file is None
            else f"move the file away, with {file.name}-wal and {file.name}-shm if they are there"
        )
        super().__init__(
            f"a newer relay upgraded {here}, so this version does not know what is in it and replaces nothing: "
            f"{empty}; then run the command again"
        )


class DatabaseMoved(RelayError):
    """The content of the database was moved to another one, which is the one to use."""

    def __init__(self) -> None:
        super().__init__(
            "the database was moved to another one: name that one in database.url. If the move was interrupted, run "
            "`relay move` again; to use this one all the same, `relay move --undo`"
        )


class DatabaseFilled(RelayError):
    """A database that should take another one's content has content of its own."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        held = ", ".join(f"{counted(number, 'row')} of {table}" for table, number in rows.items())
        super().__init__(f"the database is not empty, it has {held}: name another one, or destroy these with --replace")


class DatabaseBusy(RelayError):
    """Processes of the relay use a database that must stand still."""

    def __init__(self, users: Sequence[str]) -> None:
        super().__init__(f"processes of the relay use the database, {', '.join(users)}: stop them first")


class RowsUnreadable(RelayError):
    """Rows of the database are not what its schema says."""

    def __init__(self, names: Sequence[str], most: int) -> None:
        shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
        super().__init__(
            f"rows cannot be read: {shown}. Mend or delete them, or leave them out with `relay backup --leave-out`"
        )


class BackupInvalid(RelayError):
    """A file is no backup, or not as it was written."""


class SealBroken(RelayError):
    """A sealed credential does not open: another key, another mailbox, or changed bytes."""


class KeyLost(RelayError):
    """The database holds credentials that are sealed for keys which are not here."""

    def __init__(self, credentials: int, file: Path, keys: Sequence[str]) -> None:
        """Set up with their number, the file of the present key, and the ids of theirs, which old seals do not name."""
        id_ = keys[0] if len(keys) == 1 else "ID"
        beside = file.with_name(f"{file.stem}-{id_}{file.suffix}")
        verb = "was" if credentials == 1 else "were"
        super().__init__(
            f"the database holds {counted(credentials, 'credential')} that {verb} sealed for another key: "
            f"{', '.join(keys) or 'its id is not known'}. Put it back from your backup as {beside}, or as {file} if "
            "there is no key, or name it in sealing.former_private_key_files; a retired one loses its ending .retired. "
            "If it is lost for good, `relay keygen --forget` destroys these credentials, and users must log in again"
        )


class SettingsInvalid(RelayError):
    """The settings have faults; `faults` has all of them, as (key, what is wrong, remedy)."""

    def __init__(self, faults: list[tuple[str, str, str]]) -> None:
        super().__init__("\n".join(f"{key}: {wrong}. {remedy}" for key, wrong, remedy in faults))
        self.faults = faults


class MigrationsPending(RelayError):
    """The database has an older schema than this version needs."""

    def __init__(self) -> None:
        super().__init__("the database lacks migrations of this version: run `relay migrate` first")


class RelayBroke(RelayError):
    """The relay stopped because of a fault of its own, which is in the log."""

    def __init__(self) -> None:
        super().__init__("the relay stopped by a fault of its own: see the log, and start it again")
