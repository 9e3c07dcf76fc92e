from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.names import MailboxId
from relay.domain.model import Mark, Registration, RegistrationId
from relay.domain.receipts import A_SEALED_ID, LONGEST, OLDEST, PushId, read_noticed_at, read_receipts
from tests.contract.samples import new_registration

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
CHANGED = NOW - timedelta(seconds=2.5)
MAILBOX, REGISTRATION = MailboxId("a-random-mailbox"), RegistrationId("a-registration-of-an-app")
ID = PushId.of(Mark.EMAIL, CHANGED, 3)
SEALED = ID.seal(MAILBOX, REGISTRATION)


def own(created_at: datetime = NOW - timedelta(days=30)) -> Registration:
    return replace(new_registration(), id=REGISTRATION, mailbox_id=MAILBOX, created_at=created_at)


def sealed(mark: Mark, at: datetime) -> str:
    return PushId.of(mark, at, 1).seal(MAILBOX, REGISTRATION)


def test_an_id_says_which_change_a_push_reports() -> None:
    assert ID.noticed_at == CHANGED
    assert ID.text == "email-1795420797500-3"
    assert read_noticed_at(ID.text) == CHANGED


@given(
    st.sampled_from([mark for mark in Mark if mark is not Mark.CHALLENGE]),
    st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 -- Hypothesis adds the zone
    st.integers(0, 2**63 - 1),
)
def test_every_id_is_opened_as_it_was_sealed(mark: Mark, at: datetime, generation: int) -> None:
    push = PushId.of(mark, at, generation)
    text = push.seal(MAILBOX, REGISTRATION)

    assert PushId.open(text, MAILBOX, REGISTRATION) == push
    assert A_SEALED_ID.fullmatch(text)
    assert len(text) <= LONGEST
    assert timedelta(0) <= at - push.noticed_at < timedelta(milliseconds=1)


@given(st.integers(0, 127))
def test_an_id_of_which_a_bit_differs_is_none(bit: int) -> None:
    changed = bytearray(urlsafe_b64decode(f"{SEALED}=="))
    changed[bit // 8] ^= 1 << bit % 8

    assert PushId.open(urlsafe_b64encode(changed).decode().rstrip("="), MAILBOX, REGISTRATION) is None


@pytest.mark.parametrize("text", ["", "email", SEALED[:-1], f"{SEALED}A", f"{SEALED[:-1]}+", f"{SEALED[:-1]}٣"])
def test_a_text_of_another_form_is_no_id(text: str) -> None:
    assert PushId.open(text, MAILBOX, REGISTRATION) is None


def test_an_id_is_that_of_one_registration_and_mailbox() -> None:
    assert PushId.open(SEALED, MAILBOX, RegistrationId("b-registration-of-an-app")) is None
    assert PushId.open(SEALED, MailboxId("b-random-mailbox"), REGISTRATION) is None


def test_ids_of_one_moment_have_nothing_in_common_that_a_provider_sees() -> None:
    phones = [RegistrationId(f"phone-{number}") for number in range(50)]
    texts = [PushId.of(Mark.EMAIL, NOW, 1).seal(MAILBOX, phone) for phone in phones]

    for place in range(21):  # the last letter has two bits only
        assert len({text[place] for text in texts}) > 10


def test_an_id_of_a_mark_that_only_a_later_version_knows_is_none() -> None:
    def digest(purpose: bytes, data: bytes, size: int) -> bytes:
        return blake2b(REGISTRATION.encode() + data, key=MAILBOX.encode(), digest_size=size, person=purpose).digest()

    def seal(inside: bytes) -> str:
        tag = digest(b"push id tag", inside, 6)
        hidden = bytes(one ^ other for one, other in zip(inside, digest(b"push id inside", tag, 10), strict=True))
        return urlsafe_b64encode(tag + hidden).decode().rstrip("=")

    rest = ID.since.to_bytes(6, "big") + (3).to_bytes(3, "big")

    assert seal(b"\x01" + rest) == SEALED
    assert PushId.open(seal(b"\xc8" + rest), MAILBOX, REGISTRATION) is None


@pytest.mark.parametrize("text", ["", "BadDeviceToken", "email-1-", "email--1", f"email-{10**15}-1"])
def test_the_code_of_another_event_has_no_moment(text: str) -> None:
    assert read_noticed_at(text) is None


def test_a_receipt_says_when_the_app_showed_the_push_by_the_clock_of_the_relay() -> None:
    [receipt] = read_receipts([(SEALED, 0.5)], own(), NOW)

    assert receipt.push == ID
    assert receipt.shown_at == NOW - timedelta(seconds=0.5)
    assert receipt.waited == 2.0


def test_a_phone_that_is_a_little_wrong_has_shown_the_push_at_its_change() -> None:
    [receipt] = read_receipts([(SEALED, 4.0)], own(), NOW)

    assert receipt.waited == 0.0


@pytest.mark.parametrize(
    ("sent", "created_at"),
    [
        pytest.param(("of a later version", 0.0), CHANGED, id="another form"),
        pytest.param((SEALED, 60.0), CHANGED, id="shown before the change"),
        pytest.param((sealed(Mark.EMAIL, NOW + timedelta(minutes=1)), 0.0), CHANGED, id="of a change to come"),
        pytest.param(
            (sealed(Mark.EMAIL, NOW - OLDEST - timedelta(minutes=1)), 0.0), NOW - 2 * OLDEST, id="of long ago"
        ),
        pytest.param((SEALED, 0.0), NOW + timedelta(minutes=1), id="older than the registration"),
    ],
)
def test_a_receipt_that_cannot_be_true_is_left_out(sent: tuple[str, float], created_at: datetime) -> None:
    assert read_receipts([sent], own(created_at), NOW) == []


def test_one_receipt_that_cannot_be_true_costs_its_neighbours_nothing() -> None:
    assert len(read_receipts([("?", 0.0), (SEALED, 0.0)], own(), NOW)) == 1
