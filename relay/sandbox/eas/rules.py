"""The behaviour of a simulated server that its operator chooses, and the session of a command."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from eas_watcher.names import ProtocolVersion
from eas_watcher.ports import Now
from relay.sandbox.eas.devices import KeyMint, SimulatedDevice
from relay.sandbox.eas.mailboxes import SimulatedMailbox
from relay.sandbox.eas.personality import EXCHANGE, Personality


@dataclass(frozen=True, slots=True)
class EasRules:
    """The behaviour of the server; the defaults are those of Exchange."""

    versions: tuple[ProtocolVersion, ...] = tuple(ProtocolVersion)
    heartbeat_minimum: int = 60
    """Seconds [MS-ASCMD 2.2.3.79.1]."""
    heartbeat_maximum: int = 3540
    max_folders: int = 200
    """The most folders in one Ping."""
    policy: bool = True
    """Whether there is a policy; without one the server asks for no key, and Provision answers policy status 2."""
    acknowledgements: frozenset[int] = frozenset({1, 4})
    """The accepted acknowledgements of the policy [MS-ASPROV 2.2.2.54.1]."""
    any_change_wakes: bool = False
    """Whether changed read flags and deletions end a Ping too [observed: Z-Push 2.7.1, SOGo 5.8, 2026-11]."""
    personality: Personality = EXCHANGE
    """The oddities of the server's family."""
    workers: int | None = None
    """The most concurrent requests, held Pings included [observed: SOGo 5.8, 2026-11]; others queue. None: no limit."""
    patience: float | None = 60.0
    """Seconds after which the proxy before the server answers 504 to a request that no worker took; None: never."""
    any_password: str | None = None
    """A password that adds a mailbox for any user who sends it; None: only mailboxes that were added exist."""


class Session(NamedTuple):
    """The state and the rules that answer a command."""

    mailbox: SimulatedMailbox
    device: SimulatedDevice
    version: ProtocolVersion
    policy_key: str | None
    """The X-MS-PolicyKey header."""
    rules: EasRules
    mint: KeyMint
    now: Now
    complain: Callable[[str], None]
    """Records a fault of the client that the answer does not show."""
