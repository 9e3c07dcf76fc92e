from relay.domain.model import Platform
from relay.domain.ports.wakeups import Topic


def test_each_platform_has_a_topic_of_its_own() -> None:
    topics = [Topic.outbox(platform) for platform in Platform]

    assert topics == [Topic.OUTBOX_APNS, Topic.OUTBOX_FCM, Topic.OUTBOX_WEBPUSH]
