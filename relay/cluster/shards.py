"""Own how mailboxes fall into shards: a fixed number, and a hash that never changes."""

import hashlib
from typing import Final

from eas_watcher.names import MailboxId

SHARDS: Final = 256
"""Fixed for ever: the database has one row per shard, and every mailbox keeps the shard it was given."""


def shard_of(mailbox: MailboxId) -> int:
    """Tell the shard of a mailbox, 0 to SHARDS - 1: 8 bytes of its id's SHA-256, big-endian, modulo SHARDS."""
    return int.from_bytes(hashlib.sha256(mailbox.encode()).digest()[:8], "big") % SHARDS
