"""The account of one mailbox: what is the same in all its requests."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from eas_watcher.auth.credential import Credential
from eas_watcher.names import DeviceId, MailboxId

HOSTS: Final = 256  # servers whose names are remembered


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, where, and with which credential."""

    mailbox: MailboxId
    url: str
    """The server's ActiveSync URL, without a query."""
    user: str
    """The login name; must name the authenticated user [MS-ASHTTP 2.2.1.1.1.2.3]."""
    device_id: DeviceId
    credential: Credential


@lru_cache(HOSTS)
def host_of(url: str) -> str:
    """Return the host of a URL; it is read for each answer, and there are few."""
    return urlsplit(url).hostname or ""
