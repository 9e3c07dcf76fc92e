"""Own what the relay's parts raise at each other; every class is named after the situation."""


class RelayError(Exception):
    """Cover everything the relay raises on purpose."""


class MailboxExists(RelayError):
    """Tell that this server and user are already a mailbox under another id; look it up and try again."""


class StoreUnavailable(RelayError):
    """Tell that the database did not answer; nothing of the transaction is durable for sure."""


class SealBroken(RelayError):
    """Tell that a sealed credential does not open: another key, another mailbox, or changed bytes."""


class SettingsInvalid(RelayError):
    """Hold every fault of the configuration at once; `faults` are (key, what is wrong, remedy)."""

    def __init__(self, faults: list[tuple[str, str, str]]) -> None:
        super().__init__("\n".join(f"{key}: {wrong}. {remedy}" for key, wrong, remedy in faults))
        self.faults = faults
