"""Test which topics are woken for marks."""

from relay.domain.ports.wakeups import Topic
from relay.store.marks import outbox_topics


def test_each_platform_is_woken_once() -> None:
    assert outbox_topics(["webpush", "apns", "apns"]) == [Topic.OUTBOX_APNS, Topic.OUTBOX_WEBPUSH]
    assert outbox_topics([]) == []


def test_a_platform_that_only_another_version_knows_has_no_topic() -> None:
    assert outbox_topics({"pigeon", "fcm"}) == [Topic.OUTBOX_FCM]
