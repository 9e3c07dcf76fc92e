import pytest
from aioapns import NotificationRequest, PushType

from relay.push.apns.exchange import Ending, MaybeSent, NotBegun, NotSent, Request

COMMON = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"api.push.apple.com"),
    (b":path", b"/3/device/00ff"),
    (b"apns-topic", b"com.example.mail"),
    (b"apns-push-type", b"background"),
    (b"apns-priority", b"5"),
]
UNIQUE = [(b"apns-id", b"5f0e"), (b"apns-expiration", b"1795420800"), (b"apns-collapse-id", b"registration-1.email")]


@pytest.mark.parametrize(
    ("authorization", "headers"),
    [
        ("bearer x", [*COMMON, (b"authorization", b"bearer x"), *UNIQUE]),
        ("", [*COMMON, *UNIQUE]),  # a client certificate says who the relay is
    ],
)
def test_a_request_has_the_headers_that_apple_wants(authorization: str, headers: list[tuple[bytes, bytes]]) -> None:
    notification = NotificationRequest(
        "00ff",
        {},
        notification_id="5f0e",
        priority=5,
        collapse_key="registration-1.email",
        push_type=PushType.BACKGROUND,
        apns_topic="com.example.mail",
    )

    assert Request(notification, b"{}", 1_795_420_800).headers(b"api.push.apple.com", authorization) == headers


def test_a_request_that_has_not_begun_was_not_sent() -> None:
    with pytest.raises(NotSent):
        raise NotBegun(Ending.CONNECTION_LOST)


def test_the_text_of_an_ending_is_the_reason_that_operators_read() -> None:
    assert str(NotSent(Ending.STREAM_REFUSED)) == "stream-refused"
    assert str(MaybeSent(Ending.SERVER_HANGS_UP, "ENHANCE_YOUR_CALM")) == "server-hangs-up: ENHANCE_YOUR_CALM"


@pytest.mark.parametrize("ending", Ending)
def test_what_ends_one_request_or_comes_from_the_relay_says_nothing_about_apns(ending: Ending) -> None:
    own = {"stream-refused", "stream-reset", "stream-ids-used-up", "key-changed", "connecting-stopped", "relay-stops"}

    assert ending.concerns_all == (ending.value not in own)
