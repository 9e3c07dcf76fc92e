from datetime import UTC, datetime

import pytest

from relay.domain.outcome import Delivered, Refused, RetryLater, TokenGone
from relay.push.webpush.answers import TAKEN, is_page, read_webpush

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize("status", sorted(TAKEN))
def test_an_accepted_push_is_delivered_and_its_receipt_is_not_kept(status: int) -> None:
    assert read_webpush(status, {"location": "https://push.example.com/m/canary"}, NOON) == Delivered()


def test_only_410_ends_a_subscription_without_further_proof() -> None:
    ending = [status for status in range(100, 600) if isinstance(read_webpush(status, {}, NOON), TokenGone)]

    assert ending == [410]


def test_404_ends_a_subscription_that_others_prove_gone() -> None:
    doubted = read_webpush(404, {}, NOON)

    assert isinstance(doubted, Refused)
    assert not doubted.channel
    assert read_webpush(404, {}, NOON, proved=True) == TokenGone("http-404")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_key_is_the_channels_fault_when_others_prove_it(status: int) -> None:
    one, all_ = read_webpush(status, {}, NOON), read_webpush(status, {}, NOON, proved=True)

    assert isinstance(one, Refused)
    assert isinstance(all_, Refused)
    assert (one.channel, all_.channel) == (False, True)
    assert "relay vapid" in one.remedy
    assert "webpush.vapid_key_file" in all_.remedy


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (429, {}, 60.0),
        (429, {"retry-after": "17"}, 17.0),
        (503, {"retry-after": "Tue, 24 Nov 2026 12:02:00 GMT"}, 120.0),
        (503, {}, None),
        (500, {}, None),
        (507, {}, None),
        (408, {}, None),
    ],
)
def test_a_passing_refusal_is_tried_again(status: int, headers: dict[str, str], after: float | None) -> None:
    assert read_webpush(status, headers, NOON) == RetryLater(f"http-{status}", after)


@pytest.mark.parametrize(
    ("status", "words"),
    [(413, "4096"), (301, "elsewhere"), (307, "elsewhere"), (405, "no push service"), (299, "no push")],
)
def test_a_lasting_refusal_names_a_remedy(status: int, words: str) -> None:
    outcome = read_webpush(status, {}, NOON)

    assert isinstance(outcome, Refused)
    assert not outcome.channel
    assert words in outcome.remedy


@pytest.mark.parametrize(
    ("body", "page"),
    [
        (b"", False),
        (b'{"id": "x"}', False),
        (b"<html><body>Sign in</body></html>", True),
        (b"\r\n<!DOCTYPE HTML>\n<title>Access denied</title>", True),
        (b"message <html>", False),
        (b" " * 100_000, False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_web_page_is_recognised(body: bytes, page: bool) -> None:
    assert is_page(body) is page
