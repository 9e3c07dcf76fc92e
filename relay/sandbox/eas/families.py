"""Own the server families that can be simulated: the personality of each, with the limits that go with it."""

from types import MappingProxyType
from typing import Final

from eas_watcher.names import ProtocolVersion
from relay.sandbox.eas.personality import EXCHANGE, SOGO, TRAVELER, ZPUSH
from relay.sandbox.eas.rules import EasRules

OLD: Final = (ProtocolVersion.V12_1, ProtocolVersion.V14_0, ProtocolVersion.V14_1)
RECENT: Final = (ProtocolVersion.V14_0, ProtocolVersion.V14_1, ProtocolVersion.V16_0, ProtocolVersion.V16_1)

FAMILIES: Final = MappingProxyType(
    {
        rules.personality.name: rules
        for rules in (
            EasRules(personality=EXCHANGE),
            # The operator chose 300 s; SOGo's own maximum of 10 s makes of every Ping a poll.
            EasRules(
                versions=OLD,
                heartbeat_minimum=10,
                heartbeat_maximum=300,
                policy=False,
                any_change_wakes=True,
                personality=SOGO,
            ),
            EasRules(versions=OLD, heartbeat_minimum=1, any_change_wakes=True, personality=ZPUSH),
            EasRules(versions=RECENT, heartbeat_minimum=30, heartbeat_maximum=900, personality=TRAVELER),
        )
    }
)
"""Name -> rules; a test that needs other limits replaces them."""
