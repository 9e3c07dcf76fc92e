"""The server families that the sandbox can simulate: the personality of each, with its limits."""

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
            # With a maximum that an operator chose: with SOGo's default of 10 s every Ping would be a poll.
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
"""Family -> its rules."""
