"""Own what the relay's parts raise at each other; every class is named after the situation."""

from pathlib import Path


class RelayError(Exception):
    """Cover everything the relay raises on purpose."""


class MailboxExists(RelayError):
    """Tell that this server and user are already a mailbox under another id; look it up and try again."""


class StoreUnavailable(RelayError):
    """Tell that the database did not answer; nothing of the transaction is durable for sure."""


class DatabaseInUse(RelayError):
    """Tell that another process has the embedded database."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another relay process uses the database {path}: stop it, or use PostgreSQL for several")


class DatabaseRefuses(RelayError):
    """Tell that the database answers and does not let us in or do our work: a fault of the settings or its rights."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"the database refuses: {detail}. Check database.url, database.password_file and its rights.")


class SchemaNewer(RelayError):
    """Tell that a newer version of the relay upgraded the database."""

    def __init__(self) -> None:
        super().__init__("a newer relay upgraded the database: install that version again, or restore the backup")


class SealBroken(RelayError):
    """Tell that a sealed credential does not open: another key, another mailbox, or changed bytes."""


class SettingsInvalid(RelayError):
    """Hold every fault of the configuration at once; `faults` are (key, what is wrong, remedy)."""

    def __init__(self, faults: list[tuple[str, str, str]]) -> None:
        super().__init__("\n".join(f"{key}: {wrong}. {remedy}" for key, wrong, remedy in faults))
        self.faults = faults


class MigrationsPending(RelayError):
    """Tell that the database has an older schema than this version needs."""

    def __init__(self) -> None:
        super().__init__("the database lacks migrations of this version: run `relay migrate` first")


class RelayBroke(RelayError):
    """Tell that the relay stopped by a fault of its own, which is in the log."""

    def __init__(self) -> None:
        super().__init__("the relay stopped by a fault of its own: see the log, and start it again")
