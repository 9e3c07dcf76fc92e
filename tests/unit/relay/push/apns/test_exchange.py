import pytest
from aioapns import NotificationRequest, PushType
from hpack import Decoder

from eas_watcher.http2.header_block import NO_TABLE
from relay.domain.model import Mark, Mode, RegistrationId
from relay.push.apns.exchange import Ending, HeaderBlocks, MaybeSent, NotSent, Request
from relay.push.egress.leaving import Leaving
from relay.push.payload import ApnsMessage, Notice

MESSAGE = ApnsMessage(
    Notice(Mark.EMAIL, 3, certain=True, registration_id=RegistrationId("r"), mode=Mode.BACKGROUND, locale="en")
)
PSEUDO = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"api.push.apple.com")]
COMMON = [(b"apns-topic", b"com.example.mail"), (b"apns-push-type", b"background"), (b"apns-priority", b"5")]


DEVICE = "00ff"


def request(device: str = DEVICE, push_type: PushType | None = PushType.BACKGROUND) -> Request:
    notification = NotificationRequest(
        device,
        {},
        notification_id="5f0e",
        priority=5,
        collapse_key="registration-1.email",
        push_type=push_type,
        apns_topic="com.example.mail",
    )
    return Request(notification, MESSAGE, 1_795_420_800)


def headers(block: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in Decoder().decode(NO_TABLE + block, raw=True)]


@pytest.mark.parametrize("device", [DEVICE, DEVICE * 50])
def test_a_request_has_the_headers_that_apple_wants(device: str) -> None:
    blocks = HeaderBlocks("api.push.apple.com")
    own = [
        (b"apns-id", b"5f0e"),
        (b"apns-expiration", b"1795420800"),
        (b"apns-collapse-id", b"registration-1.email"),
    ]
    path = (b":path", b"/3/device/" + device.encode())
    for authorization in "bearer x", "bearer x", "bearer y":
        authorized = (b"authorization", authorization.encode())
        assert headers(blocks.write(request(device), authorization)) == [*PSEUDO, path, *COMMON, authorized, *own]

    assert headers(blocks.write(request(device), "")) == [*PSEUDO, path, *COMMON, *own], (
        "a client certificate says who the relay is"
    )
    assert (b"apns-push-type", b"") in headers(blocks.write(request(device, None), ""))


def test_a_request_says_what_the_egress_log_records() -> None:
    assert request().leaving == Leaving("com.example.mail", DEVICE, MESSAGE)
    assert request().body == MESSAGE.rendered.encode()


def test_the_text_of_an_ending_is_the_reason_that_operators_read() -> None:
    assert str(NotSent(Ending.STREAM_REFUSED)) == "stream-refused"
    assert str(MaybeSent(Ending.SERVER_HANGS_UP, "ENHANCE_YOUR_CALM")) == "server-hangs-up: ENHANCE_YOUR_CALM"


@pytest.mark.parametrize("ending", Ending)
def test_what_ends_one_request_or_comes_from_the_relay_says_nothing_about_apns(ending: Ending) -> None:
    own = {"stream-refused", "stream-reset", "stream-ids-used-up", "key-changed", "relay-stops"}

    assert ending.concerns_all == (ending.value not in own)
