from contextlib import suppress
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.autodiscover.pox import (
    LARGEST,
    REQUEST_SCHEMA,
    RESPONSE_SCHEMA,
    PoxReply,
    question,
    read,
    request,
)
from eas_watcher.errors import ProtocolViolation

OUTER = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"


def answer(inner: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<Autodiscover xmlns="{OUTER}"><Response xmlns="{RESPONSE_SCHEMA}">{inner}</Response></Autodiscover>'
    ).encode()


def server(kind: str, url: str) -> str:
    return f"<Server><Type>{kind}</Type><Url>{url}</Url><Name>x</Name></Server>"


def settings(*servers: str) -> bytes:
    return answer(f"<Culture>en:us</Culture><Action><Settings>{''.join(servers)}</Settings></Action>")


def test_asks_for_the_address_in_the_schema_for_phones() -> None:
    root = ET.fromstring(request("ann&<ben>@example.com"))  # noqa: S314 -- our own words

    assert root.tag == f"{{{REQUEST_SCHEMA}}}Autodiscover"
    assert [child.text for child in root[0]] == ["ann&<ben>@example.com", RESPONSE_SCHEMA]
    assert question("mail.example.com:8443") == "https://mail.example.com:8443/autodiscover/autodiscover.xml"


def test_reads_the_url_of_activesync_and_of_nothing_else() -> None:
    enrol = server("CertEnroll", "https://ca.example.com")
    body = settings(
        enrol, server("MobileSync", " https://mail.example.com/eas?a=1&amp;b=2 "), server("MobileSync", "no")
    )

    assert read(body) == PoxReply("https://mail.example.com/eas?a=1&b=2")


def test_any_namespace_is_read() -> None:
    plain = settings(server("MobileSync", "https://mail.example.com/eas")).replace(b' xmlns="', b' x="')

    assert read(plain) == PoxReply("https://mail.example.com/eas")


def test_reads_another_address_to_ask_for() -> None:
    assert read(answer("<Action><Redirect> ben@example.com </Redirect></Action>")) == PoxReply(None, "ben@example.com")


@pytest.mark.parametrize(
    "body",
    [
        answer("<Action><Error><Status>2</Status></Error></Action>"),
        answer("<Error><ErrorCode>601</ErrorCode></Error>"),
        answer("<Action><Redirect/></Action>"),
        settings(server("MobileSync", "")),
        settings("<Server><Url>https://mail.example.com</Url></Server>"),
        settings(server("CertEnroll", "https://ca.example.com"), "<Server><Url>https://x.example.com</Url></Server>"),
        b"<a/>",
    ],
)
def test_an_answer_that_names_neither_url_nor_address_is_no_result(body: bytes) -> None:
    reply = read(body)

    assert (reply.url, reply.address) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<a>",
        b"no xml",
        b'<?xml version="1.0" encoding="x-unheard-of"?><a/>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>" * 17 + b"</a>" * 17,
        answer("x" * LARGEST),
    ],
)
def test_a_document_that_is_no_plain_xml_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read(body)


@given(st.binary(max_size=200) | st.text(alphabet="<>/&;!?ab \"'=", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_are_a_violation(body: bytes) -> None:
    with suppress(ProtocolViolation):
        read(body)


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<Error><ErrorCode>600</ErrorCode><Message>secret</Message></Error>", "600"),
        ("<Error><ErrorCode>601</ErrorCode></Error>", "601"),
        ("<Action><Error><Status>2</Status><DebugData>secret</DebugData></Error></Action>", "status 2"),
        ("<Error><ErrorCode>999 secret</ErrorCode></Error>", "an error of its own"),
    ],
)
def test_an_error_is_described_in_our_words(inner: str, words: str) -> None:
    reply = read(f"<Autodiscover><Response>{inner}</Response></Autodiscover>".encode())

    assert words in reply.error
    assert "secret" not in reply.error
    assert (reply.url, reply.address) == (None, None)


def test_an_error_beside_a_server_is_ignored() -> None:
    server = "<Settings><Server><Type>MobileSync</Type><Url>https://x/</Url></Server></Settings>"
    body = (
        f"<Autodiscover><Response><Action><Error><Status>2</Status></Error>{server}</Action></Response></Autodiscover>"
    )

    assert read(body.encode()) == PoxReply("https://x/")


def test_a_server_for_certificates_only_is_not_taken_for_the_mailbox() -> None:
    enrol = "<Server><Type>CertEnroll</Type><Url>https://ca.example.com/</Url><ServerData>T</ServerData></Server>"
    mobile = "<Server><Type>MobileSync</Type><Url>https://mail.example.com/</Url></Server>"
    body = f"<Autodiscover><Response><Action><Settings>{enrol}{mobile}</Settings></Action></Response></Autodiscover>"

    assert read(body.encode()) == PoxReply("https://mail.example.com/")
    assert read(body.replace(mobile, "").encode()) == PoxReply()
