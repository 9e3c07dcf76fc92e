"""Own what of a mailbox makes its watch another one when it changes: the credential, and what is to be watched."""

from dataclasses import dataclass, field

from eas_watcher.names import CollectionClass
from relay.model import WatchRecord


@dataclass(frozen=True, slots=True)
class Basis:
    """Hold what a watch was started with."""

    sealed: bytes | None = field(repr=False)
    classes: frozenset[CollectionClass]
    subfolders: frozenset[CollectionClass]

    @classmethod
    def of(cls, record: WatchRecord) -> "Basis":
        """Take it from a record."""
        return cls(record.sealed_credential, record.memory.classes, record.memory.subfolders)
