"""Own what a simulated server's owner may decide, and what every command needs to be answered."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from eas_watcher.names import ProtocolVersion
from relay.sandbox.eas.devices import KeyMint, SimulatedDevice
from relay.sandbox.eas.mailboxes import SimulatedMailbox
from relay.sandbox.eas.personality import EXCHANGE, Personality


@dataclass(frozen=True, slots=True)
class EasRules:
    """Hold how the server behaves; the defaults are those of Exchange."""

    versions: tuple[ProtocolVersion, ...] = tuple(ProtocolVersion)
    heartbeat_minimum: int = 60
    """Seconds [MS-ASCMD 2.2.3.79.1]."""
    heartbeat_maximum: int = 3540
    max_folders: int = 200
    """Folders in one Ping."""
    policy: bool = True
    """Whether there is a policy; without one no key is asked for, and Provision says so (policy status 2)."""
    acknowledgements: frozenset[int] = frozenset({1, 4})
    """The acknowledgements of the policy that are accepted [MS-ASPROV 2.2.2.54.1]."""
    any_change_wakes: bool = False
    """Whether read flags and deletes end a Ping too [observed: Z-Push 2.7.1, SOGo 5.8, 2026-11]."""
    personality: Personality = EXCHANGE
    """What is odd about the server."""
    workers: int | None = None
    """How many requests are served at a time, a held Ping being one [observed: SOGo 5.8, 2026-11]; None: no end."""
    any_password: str | None = None
    """A password with which every user has a mailbox; None: only mailboxes that were added exist."""


@dataclass(frozen=True, slots=True)
class Session:
    """Hold what a command is answered from."""

    mailbox: SimulatedMailbox
    device: SimulatedDevice
    version: ProtocolVersion
    policy_key: str | None
    """The X-MS-PolicyKey header."""
    rules: EasRules
    mint: KeyMint
    now: datetime
    complain: Callable[[str], None]
    """Take note of a fault of the client that no answer tells it of."""
