from datetime import UTC, datetime

from relay.domain.model import Environment, Platform
from relay.push.stats import ChannelFault, Outage, PushStats


def fault(app: str, hour: int) -> ChannelFault:
    since = datetime(2026, 11, 23, hour, tzinfo=UTC)
    return ChannelFault(app, Environment.PRODUCTION, "TopicDisallowed", "allow it", since)


def test_the_oldest_fault_is_shown() -> None:
    stats = PushStats()
    assert stats.fault is None

    stats.faults["b", Environment.PRODUCTION] = fault("b", 9)
    stats.faults["a", Environment.PRODUCTION] = fault("a", 8)

    assert stats.fault == fault("a", 8)


def test_accepted_pushes_need_no_listener() -> None:
    stats = PushStats()

    stats.on_accepted(Platform.APNS, 0.7)

    assert not stats.dead


def test_a_provider_is_dead_when_every_channel_that_was_used_has_a_fault() -> None:
    stats = PushStats()
    assert not stats.dead
    stats.channels.add(("a", Environment.PRODUCTION))
    assert not stats.dead

    stats.faults["a", Environment.PRODUCTION] = fault("a", 8)
    assert stats.dead

    stats.channels.add(("b", Environment.PRODUCTION))
    assert not stats.dead


def test_the_oldest_outage_is_shown() -> None:
    stats = PushStats()
    assert stats.outage is None

    for environment, hour in ((Environment.PRODUCTION, 9), (Environment.SANDBOX, 8)):
        since = datetime(2026, 11, 23, hour, tzinfo=UTC)
        stats.outages[environment] = Outage(environment, "timed-out", "look at the firewall", since)

    assert stats.outage == stats.outages[Environment.SANDBOX]
