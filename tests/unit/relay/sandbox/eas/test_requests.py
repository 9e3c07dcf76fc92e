from base64 import b64encode

import pytest

from eas_watcher.names import ProtocolVersion
from eas_watcher.wbxml.element import PING
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.refusals import RefusedByHttp, RefusedByStatus
from relay.sandbox.eas.requests import EasRequest, read_authorization, read_body, read_command, read_request

QUERY = "Cmd=Ping&User=ann%40example.com&DeviceId=D1&DeviceType=PushRelay"
HEADERS = {"MS-ASProtocolVersion": "14.1", "Content-Type": "application/vnd.ms-sync.wbxml"}
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


def test_reads_the_command_of_a_query() -> None:
    assert read_command(QUERY) == "Ping"
    assert read_command("User=ann") == ""


def test_reads_a_request_of_the_right_form() -> None:
    assert read_request(QUERY, HEADERS, BODY, "ann@example.com", VERSIONS) == REQUEST
    with_key = read_request(QUERY, {**HEADERS, "X-MS-PolicyKey": "4294967295"}, BODY, "ann@example.com", VERSIONS)
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
        (QUERY, {**HEADERS, "Content-Type": "application/octet-stream"}, 400),
        (QUERY, {**HEADERS, "X-MS-PolicyKey": "-1"}, 400),
        (QUERY, {**HEADERS, "MS-ASProtocolVersion": "16.0.1"}, 400),
        (QUERY, {**HEADERS, "MS-ASProtocolVersion": "12.1"}, 400),
    ],
)
def test_refuses_a_wrong_form(query: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(RefusedByHttp) as refused:
        read_request(query, headers, BODY, "ann@example.com", VERSIONS)

    assert refused.value.status == status


def test_a_version_that_is_no_longer_served_is_refused_by_status() -> None:
    with pytest.raises(RefusedByStatus) as refused:
        read_request(QUERY, {**HEADERS, "MS-ASProtocolVersion": "14.0"}, BODY, "ann@example.com", VERSIONS)

    assert (refused.value.status, refused.value.fault) == (138, False)


def test_a_version_above_all_offered_is_malformed() -> None:
    headers = {**HEADERS, "MS-ASProtocolVersion": "16.1"}
    with pytest.raises(RefusedByHttp):
        read_request(QUERY, headers, BODY, "ann@example.com", (ProtocolVersion.V14_1,))


def test_a_content_type_needs_a_body_and_a_body_a_content_type() -> None:
    with pytest.raises(RefusedByHttp):
        read_request(QUERY, HEADERS, b"", "ann@example.com", VERSIONS)
    with pytest.raises(RefusedByHttp):
        read_request(QUERY, {"MS-ASProtocolVersion": "14.1"}, BODY, "ann@example.com", VERSIONS)
    assert read_request(QUERY, {"MS-ASProtocolVersion": "14.1"}, b"", "ann@example.com", VERSIONS) == REQUEST


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
