import pytest
from push_relay_client import Attention, Challenge, NewItems, Push, TestPush, Unknown, read_push

from relay.domain.model import Mark, Mode, RegistrationId
from relay.push.payload import ApnsMessage, FcmMessage, Notice, WebPushMessage

ID = "Vq0zM3yX8sT1"


@pytest.mark.parametrize(
    ("mark", "certain", "push"),
    [
        (Mark.EMAIL, True, NewItems(ID, "email", 3, certain=True)),
        (Mark.CALENDAR, False, NewItems(ID, "calendar", 3, certain=False)),
        (Mark.ATTENTION, True, Attention(ID, certain=True, reason=None)),
        (Mark.ATTENTION, False, Attention(ID, certain=False, reason=None)),
        (Mark.TEST, True, TestPush(ID)),
    ],
)
def test_what_the_relay_sends_is_read_alike_from_every_provider(mark: Mark, certain: bool, push: Push) -> None:
    notice = Notice(mark, 3, certain, RegistrationId(ID), Mode.ALERT, "en")

    assert read_push(ApnsMessage(notice).body) == push
    assert read_push(FcmMessage(notice).data) == push
    assert read_push(WebPushMessage(notice).body) == push


def test_a_reason_and_a_nonce_are_read() -> None:
    assert read_push({"registration": ID, "kind": "attention", "reason": "wiped"}) == Attention(
        ID, certain=True, reason="wiped"
    )
    assert read_push({"relay": {"registration": ID, "kind": "challenge", "nonce": "abc"}}) == Challenge(ID, "abc")
    assert "abc" not in repr(Challenge(ID, "abc"))


@pytest.mark.parametrize("kind", ["later", "challenge"])
def test_a_kind_that_this_version_cannot_use_is_unknown(kind: str) -> None:
    assert read_push({"registration": ID, "kind": kind, "nonce": ""}) == Unknown(ID, kind)


@pytest.mark.parametrize(
    "data", [{}, {"relay": 1}, {"registration": ID}, {"registration": 7, "kind": "test"}, {"aps": {"alert": "other"}}]
)
def test_a_push_that_is_not_from_the_relay_is_none(data: dict[str, object]) -> None:
    assert read_push(data) is None


@pytest.mark.parametrize(
    ("sent", "count"), [(2, 2), ("17", 17), ("many", 1), (None, 1), ("-3", 1), ("9" * 40, 1), ("٣", 1), (0, 1)]
)
def test_a_count_is_a_number_that_a_badge_may_show(sent: object, count: int) -> None:
    read = read_push({"registration": ID, "kind": "new-items", "class": "email", "count": sent})

    assert isinstance(read, NewItems)
    assert read.count == count
