from base64 import b64encode

import pytest

from eas_watcher.names import ProtocolVersion
from eas_watcher.wbxml.element import PING
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.refusals import RefusedByHttp, RefusedByStatus
from relay.sandbox.eas.requests import EasRequest, Target, read_authorization, read_body, read_request, read_target

QUERY = "Cmd=Ping&User=ann%40example.com&DeviceId=D1&DeviceType=PushRelay"
TARGET = read_target(f"/?{QUERY}")
HEADERS = {"ms-asprotocolversion": "14.1", "content-type": "application/vnd.ms-sync.wbxml"}
VERSIONS = (ProtocolVersion.V14_1, ProtocolVersion.V16_1)
REQUEST = EasRequest("Ping", "D1", ProtocolVersion.V14_1, None)
BODY = encode(PING("Ping"))


def basic(text: bytes) -> str:
    return "Basic " + b64encode(text).decode()


@pytest.mark.parametrize(
    ("value", "login"),
    [
        (basic(b"ann:secret"), ("ann", "secret")),
        (basic("ann:pä:ss".encode()), ("ann", "pä:ss")),
        (basic(b"EXAMPLE\\ann:"), ("EXAMPLE\\ann", "")),
        (basic(b"ann:secret").replace("Basic", "basic"), ("ann", "secret")),
        (basic("ann:pä".encode("latin-1")), None),
        (basic(b"ann"), None),
        (basic(b":secret"), None),
        ("Basic ***", None),
        ("Bearer abc", None),
        ("", None),
        (None, None),
    ],
)
def test_reads_basic_authentication_in_utf_8(value: str | None, login: tuple[str, str] | None) -> None:
    assert read_authorization(value) == login


def test_reads_the_parts_of_a_target() -> None:
    parameters = {"User": "ann@example.com", "Note": "a b", "Cmd": ""}

    assert read_target("/eas?&User=ann%40example.com&Note=a+b&Cmd") == Target("/eas", parameters, repeats=False)
    assert read_target("/?Cmd=Sync&Cmd=Ping") == Target("/", {"Cmd": "Ping"}, repeats=True)
    assert read_target("/") == Target("/", {}, repeats=False)


def test_reads_a_request_of_the_right_form() -> None:
    assert read_request(TARGET, HEADERS, BODY, "ann@example.com", VERSIONS) == REQUEST
    with_key = read_request(TARGET, {**HEADERS, "x-ms-policykey": "4294967295"}, BODY, "ann@example.com", VERSIONS)
    assert with_key.policy_key == "4294967295"


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        (QUERY + "&Cmd=Ping", HEADERS, 400),
        ("jAAJBAp2MTQwRGV2aWNlAApTbWFydFBob25l", HEADERS, 400),
        (QUERY.replace("ann", "ben"), HEADERS, 403),
        (QUERY.replace("ann", "Ann"), HEADERS, 403),
        (QUERY.replace("Ping", "MoveItems"), HEADERS, 501),
        (QUERY.replace("D1", "D%C3%A4"), HEADERS, 400),
        (QUERY.replace("PushRelay", "Push%2FRelay"), HEADERS, 400),
        (QUERY, {**HEADERS, "content-type": "application/octet-stream"}, 400),
        (QUERY, {**HEADERS, "x-ms-policykey": "-1"}, 400),
        (QUERY, {**HEADERS, "ms-asprotocolversion": "16.0.1"}, 400),
        (QUERY, {**HEADERS, "ms-asprotocolversion": "12.1"}, 400),
    ],
)
def test_refuses_a_wrong_form(query: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(RefusedByHttp) as refused:
        read_request(read_target(f"/?{query}"), headers, BODY, "ann@example.com", VERSIONS)

    assert refused.value.status == status


def test_a_version_that_is_no_longer_served_is_refused_by_status() -> None:
    with pytest.raises(RefusedByStatus) as refused:
        read_request(TARGET, {**HEADERS, "ms-asprotocolversion": "14.0"}, BODY, "ann@example.com", VERSIONS)

    assert (refused.value.status, refused.value.fault) == (138, False)


def test_a_version_above_all_offered_is_malformed() -> None:
    headers = {**HEADERS, "ms-asprotocolversion": "16.1"}
    with pytest.raises(RefusedByHttp):
        read_request(TARGET, headers, BODY, "ann@example.com", (ProtocolVersion.V14_1,))


def test_a_content_type_needs_a_body_and_a_body_a_content_type() -> None:
    with pytest.raises(RefusedByHttp):
        read_request(TARGET, HEADERS, b"", "ann@example.com", VERSIONS)
    with pytest.raises(RefusedByHttp):
        read_request(TARGET, {"ms-asprotocolversion": "14.1"}, BODY, "ann@example.com", VERSIONS)
    assert read_request(TARGET, {"ms-asprotocolversion": "14.1"}, b"", "ann@example.com", VERSIONS) == REQUEST


def test_only_ping_and_sync_may_have_no_body() -> None:
    assert read_body(REQUEST, b"") is None
    with pytest.raises(RefusedByStatus) as refused:
        read_body(EasRequest("Settings", "D1", ProtocolVersion.V14_1, None), b"")
    assert refused.value.status == 103


@pytest.mark.parametrize(("body", "status"), [(BODY[:-1], 102), (encode(PING("Status")), 103)])
def test_a_body_is_the_document_of_its_command(body: bytes, status: int) -> None:
    assert read_body(REQUEST, BODY) == PING("Ping")
    with pytest.raises(RefusedByStatus) as refused:
        read_body(REQUEST, body)
    assert refused.value.status == status
