from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.http_connect import INTERIM, LARGEST, STEPS, Answer, AnswerReader, NotHttp, connect, request
from eas_watcher.proxy.proxy import Proxy, Send, Ticket

PLAIN = Proxy("proxy.example.com", 3128)
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def read(*parts: bytes) -> Answer | None:
    reader = AnswerReader()
    answer = None
    for part in parts:
        assert answer is None
        answer = reader.feed(part)
    return answer


def test_a_tunnel_is_asked_for_with_host_and_port() -> None:
    assert request(PLAIN, "api.push.apple.com", 443) == (
        b"CONNECT api.push.apple.com:443 HTTP/1.1\r\nHost: api.push.apple.com:443\r\nUser-Agent: push-relay\r\n\r\n"
    )


def test_a_user_authenticates_by_basic() -> None:
    proxy = Proxy("proxy.example.com", 3128, user="Aladdin", password="open sesame")

    # The example of RFC 7617 2.
    assert b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n" in request(proxy, "example.com", 443)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert request(PLAIN, "2001:db8::1", 443).startswith(
        b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443"
    )


@pytest.mark.parametrize(
    "head",
    [
        OPENED,
        b"HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n",
        b"HTTP/1.1 200 Connected\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 204 Whatever\r\nContent-Length: 17\r\n\r\n",
        b"HTTP/1.1 200 OK\nVia: old\n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_any_2xx_opens_the_tunnel(head: bytes) -> None:
    answer = read(head)

    assert answer is not None
    assert answer.opened


@given(st.lists(st.integers(0, len(OPENED)), max_size=6))
def test_an_answer_may_come_in_any_parts(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(OPENED)]
    parts = [OPENED[start:end] for start, end in pairwise(places)]
    while parts and not parts[-1]:
        parts.pop()

    assert read(*parts) == Answer(200, page=-1)


@pytest.mark.parametrize(
    ("headers", "schemes"),
    [
        (b'Proxy-Authenticate: Basic realm="Staff, only"\r\n', ("Basic",)),
        (b"proxy-authenticate:Negotiate\r\nPROXY-AUTHENTICATE: NTLM\r\n", ("Negotiate", "NTLM")),
        (b'Proxy-Authenticate: Digest realm="a", nonce="b", Basic realm="c"\r\n', ("Digest", "Basic")),
        (b"Server: x\r\n", ()),
        (b"no header at all\r\n", ()),
    ],
)
def test_a_refusal_names_the_schemes_that_the_proxy_offers(headers: bytes, schemes: tuple[str, ...]) -> None:
    answer = read(b"HTTP/1.1 407 Proxy Authentication Required\r\n" + headers + b"\r\n<html>a page that nobody needs")

    assert answer == Answer(407, schemes, page=-1)
    assert not answer.opened


def test_of_many_schemes_only_some_are_kept() -> None:
    many = b"".join(b"Proxy-Authenticate: Scheme%d\r\n" % number for number in range(500))

    answer = read(b"HTTP/1.1 407 No\r\n" + many + b"\r\n")

    assert answer is not None
    assert len(answer.schemes) == 8


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not answer in HTTP/1"),
        (b"HTTP/2 200\r\n\r\n", "not answer in HTTP/1"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "not answer in HTTP/1"),
        (b"HTTP/1.1 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "status line"),
        (OPENED + b"hello", "before the relay does"),
        (b"HTTP/1.1 100 Continue\r\n\r\nhello", "not answer in HTTP/1"),
    ],
)
def test_a_peer_that_is_no_http_proxy_is_found_out_at_once(answer: bytes, how: str) -> None:
    with pytest.raises(NotHttp, match=how):
        read(answer)


def test_endless_headers_end() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n") is None
    line = b"X-Padding: " + b"x" * 1000 + b"\r\n"
    for _ in range(LARGEST // len(line)):
        assert reader.feed(line) is None

    with pytest.raises(NotHttp, match="65536"):
        reader.feed(line)


def test_a_proxy_that_sends_interim_answers_without_end_is_no_proxy() -> None:
    reader = AnswerReader()
    assert reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * INTERIM) is None

    with pytest.raises(NotHttp, match="1xx"):
        reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)


TICKETS = Proxy("proxy.example.com", 3128, negotiates=True)
GOES_ON = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate b2s=\r\nContent-Length: 4\r\n\r\npage"


def talk(proxy: Proxy, answers: list[bytes], tokens: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return what is sent to a proxy that gives these answers, and the challenges that tokens were made for."""
    sent: list[bytes] = []
    challenges: list[bytes] = []
    speaker = connect(proxy, "mail.example.com", 443)
    step = next(speaker)
    try:
        while True:
            if isinstance(step, Ticket):
                challenges.append(step.challenge)
                step = speaker.send(tokens.pop(0))
            else:
                if step.data:
                    sent.append(step.data)
                step = speaker.send(answers.pop(0))
    except StopIteration:
        return sent, challenges


def refused(proxy: Proxy, answers: list[bytes], tokens: list[bytes]) -> NotConnected:
    with pytest.raises(NotConnected) as caught:
        talk(proxy, answers, tokens)
    return caught.value


def test_a_tunnel_opens_without_a_token_where_none_is_wanted() -> None:
    sent, challenges = talk(PLAIN, [OPENED[:9], OPENED[9:]], [])

    assert sent == [request(PLAIN, "mail.example.com", 443)]
    assert challenges == []


def test_a_ticket_goes_with_the_first_request() -> None:
    sent, challenges = talk(TICKETS, [OPENED], [b"first"])

    assert challenges == [b""]
    assert b"\r\nProxy-Authorization: Negotiate Zmlyc3Q=\r\n" in sent[0]


def test_a_proxy_may_ask_for_one_more_token_on_the_same_connection() -> None:
    sent, challenges = talk(TICKETS, [GOES_ON[:-2], GOES_ON[-2:], OPENED], [b"first", b"second"])

    assert challenges == [b"", b"ok"]
    assert b"Negotiate c2Vjb25k" in sent[1]


def test_a_proxy_that_asks_for_tokens_without_end_is_left() -> None:
    tokens = [b"token"] * 10

    fault = refused(TICKETS, [GOES_ON] * 10, tokens)

    assert fault.reason == "proxy-authentication-required"
    assert len(tokens) == 10 - STEPS


@pytest.mark.parametrize(
    "answer",
    [
        GOES_ON.replace(b" b2s=", b""),
        GOES_ON.replace(b"b2s=", b"b2s=="),
        GOES_ON.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GOES_ON.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
        GOES_ON.replace(b"Content-Length: 4", b"Content-Length: 4\r\nConnection: close"),
        GOES_ON.replace(b"Content-Length: 4", b"Content-Length: 4\r\nProxy-Connection: Close"),
        GOES_ON.replace(b"Content-Length: 4", b"Content-Length: 70000"),
        GOES_ON.replace(b"Content-Length: 4", b"Content-Length: 4444444444444"),
        GOES_ON.replace(b"Content-Length: 4", b"Server: x"),
    ],
)
def test_without_a_challenge_or_a_connection_that_stays_a_407_is_the_end(answer: bytes) -> None:
    tokens = [b"first", b"second"]

    assert refused(TICKETS, [answer], tokens).reason == "proxy-authentication-required"
    assert tokens == [b"second"]


def test_when_no_token_follows_the_proxy_has_refused() -> None:
    assert refused(TICKETS, [GOES_ON], [b"first", b""]).reason == "proxy-authentication-required"


def test_a_password_is_shown_once() -> None:
    proxy = Proxy("proxy.example.com", 3128, user="relay", password="hunter2")

    assert refused(proxy, [GOES_ON], []).reason == "proxy-authentication-required"


def test_a_peer_that_speaks_no_http_is_named() -> None:
    fault = refused(PLAIN, [b"SSH-2.0-OpenSSH_9.2p1\r\n"], [])

    assert fault.reason == "proxy-speaks-no-http"
    assert "does not answer in HTTP/1" in fault.remedy


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=20), st.booleans())
def test_no_answer_breaks_the_reader(answers: list[bytes], begins_well: bool) -> None:
    if begins_well:
        answers[0] = b"HTTP/1.1 407 " + answers[0]
    speaker = connect(PLAIN, "mail.example.com", 443)
    assert isinstance(next(speaker), Send)
    try:
        for answer in answers:
            speaker.send(answer)
    except NotConnected:
        return
    assert b"\r\n\r\n" not in b"".join(answers)
