import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.push.fcm.errors import Detail, FcmError, message_name, read_error


def body(*details: object, status: object = "ABORTED") -> bytes:
    return json.dumps({"error": {"status": status, "details": details}}).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"error":"text"}',
        b"[" * 100_000,
        b'{"error":{"status":"no code","details":{}}}',
        b"\xff",
    ],
)
def test_a_body_that_is_not_googles_names_nothing(text: bytes) -> None:
    assert read_error(text) == FcmError()


def test_all_codes_are_found_and_the_first_of_a_kind_counts() -> None:
    details = (
        {"@type": Detail.FCM_ERROR, "errorCode": "INTERNAL"},
        {"@type": Detail.FCM_ERROR, "errorCode": "UNAVAILABLE"},
        {"@type": Detail.ERROR_INFO, "reason": "FIRST"},
        {"@type": Detail.ERROR_INFO, "reason": "SECOND"},
        {"@type": Detail.FCM_ERROR, "errorCode": 7},
    )

    assert read_error(body(*details)) == FcmError("ABORTED", "INTERNAL", "FIRST")


def test_all_fields_at_fault_are_found_and_free_text_among_them_is_not_kept() -> None:
    found = read_error(
        body(
            {
                "@type": Detail.BAD_REQUEST,
                "fieldViolations": [{"field": "message.token"}, {"field": "ann@example.com"}],
            },
            {"@type": Detail.BAD_REQUEST, "fieldViolations": [{"field": 7}, {}, "no object"]},
            {"@type": Detail.BAD_REQUEST, "fieldViolations": {"field": "no list"}},
        )
    )

    assert found.fields == {"message.token", "unknown-field"}


@pytest.mark.parametrize(
    ("violation", "device"),
    [
        ({"subject": "device:abc"}, True),
        ({"subject": "x", "description": "Device message rate exceeded"}, True),
        ({"subject": "x", "description": "Rate of the FID exceeded"}, True),
        ({"subject": "project:12", "description": "Message rate exceeded"}, False),
        ({"subject": "devices-of-the-project"}, False),
        ({}, False),
    ],
)
def test_a_quota_of_one_device_is_recognised(violation: object, device: bool) -> None:
    assert read_error(body({"@type": Detail.QUOTA_FAILURE, "violations": [violation]})).device_quota is device


@pytest.mark.parametrize(
    ("delay", "seconds"), [("27s", 27.0), ("1.5s", 1.5), ("27", None), ("-1s", None), (27, None), ("1e9s", None)]
)
def test_a_delay_in_the_body_is_a_duration(delay: object, seconds: float | None) -> None:
    assert read_error(body({"@type": Detail.RETRY_INFO, "retryDelay": delay})).retry_delay == seconds


def test_the_most_specific_code_names_an_error() -> None:
    assert FcmError("A", "B", "C").name(400) == "B"
    assert FcmError("A", "", "C").name(400) == "C"
    assert FcmError("A").name(400) == "A"
    assert FcmError().name(400) == "http-400"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    st.sampled_from(Detail),
    st.dictionaries(st.sampled_from(["errorCode", "fieldViolations", "violations"]), json_values),
)
def test_details_of_any_form_are_read_without_an_error(kind: Detail, fields: dict[str, object]) -> None:
    assert read_error(body({"@type": kind, **fields})).canonical == "ABORTED"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b'{"name":"projects/p/messages/0:12%34"}', "projects/p/messages/0:12%34"),
        (b'{"name":"a text"}', ""),
        (b'{"name":null}', None),
        (b"<html>", None),
    ],
)
def test_an_accepted_message_has_a_name(text: bytes, name: str | None) -> None:
    assert message_name(text) == name
