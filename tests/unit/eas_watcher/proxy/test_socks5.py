from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy, Send
from eas_watcher.proxy.socks5 import REPLIES, connect

OPEN = Proxy("proxy.example.com", 1080, speaks="socks5h")
KNOWN = Proxy(
    "proxy.example.com", 1080, setting="servers.main.proxy", user="relay", password="hunter2", speaks="socks5h"
)
GREETED = bytes.fromhex("0500")
CONNECTED = bytes.fromhex("05000001c00002010438")  # by 192.0.2.1:1080


def talk(proxy: Proxy, answers: list[bytes], host: str = "mail.example.com") -> list[bytes]:
    """Return what is said to a proxy that answers in these parts, until the tunnel is open."""
    said, speaker = [], connect(proxy, host, 443)
    step = next(speaker)
    try:
        for answer in answers:
            assert isinstance(step, Send)
            said.append(step.data)
            step = speaker.send(answer)
    except StopIteration:
        return [part for part in said if part]
    raise AssertionError("the tunnel is not open yet")


def fault(proxy: Proxy, *answers: bytes) -> NotConnected:
    with pytest.raises(NotConnected) as caught:
        talk(proxy, list(answers))
    return caught.value


def test_a_name_is_left_to_the_proxy() -> None:
    assert talk(OPEN, [GREETED, CONNECTED]) == [
        bytes.fromhex("050100"),
        bytes.fromhex("05010003 10") + b"mail.example.com" + bytes.fromhex("01bb"),
    ]


@pytest.mark.parametrize(
    ("host", "address"),
    [("192.0.2.7", "01 c0000207"), ("2001:db8::7", "04 20010db8000000000000000000000007")],
)
def test_an_address_goes_as_it_is(host: str, address: str) -> None:
    assert talk(OPEN, [GREETED, CONNECTED], host)[1] == bytes.fromhex("050100" + address + "01bb")


@pytest.mark.parametrize("host", ["", "x" * 300, ".".join(["x" * 60] * 5), "a..b"])
def test_what_is_no_name_is_not_asked_for(host: str) -> None:
    with pytest.raises(NotConnected) as caught:
        talk(OPEN, [GREETED, CONNECTED], host)
    assert caught.value.reason == "target-name-not-resolved"


def test_a_name_of_other_letters_goes_as_dns_has_it() -> None:
    assert b"xn--bcher-kva.example.com" in talk(OPEN, [GREETED, CONNECTED], "bücher.example.com")[1]


def test_a_user_logs_in_where_the_proxy_wants_it() -> None:
    said = talk(KNOWN, [bytes.fromhex("0502"), bytes.fromhex("0100"), CONNECTED])

    assert said[:2] == [bytes.fromhex("05020002"), b"\x01\x05relay\x07hunter2"]


def test_a_proxy_that_wants_no_login_gets_no_password() -> None:
    assert b"hunter2" not in b"".join(talk(KNOWN, [GREETED, CONNECTED]))


@pytest.mark.parametrize(
    ("proxy", "answers"),
    [
        (OPEN, ["05ff"]),
        (OPEN, ["0502"]),
        (KNOWN, ["05ff"]),
        (KNOWN, ["0501"]),
        (KNOWN, ["0502", "0101"]),
    ],
)
def test_a_refused_login_is_told_and_its_password_never(proxy: Proxy, answers: list[str]) -> None:
    found = fault(proxy, *map(bytes.fromhex, answers))

    assert (found.reason, found.lasting) == ("proxy-authentication-required", True)
    assert "hunter2" not in found.remedy
    assert proxy.setting in found.remedy


@pytest.mark.parametrize("reply", REPLIES)
def test_each_reply_is_told_in_words(reply: int) -> None:
    found = fault(OPEN, GREETED, bytes([5, reply, 0, 1]))

    assert found.reason == ("proxy-denied" if reply == 2 else "proxy-cannot-reach")
    assert REPLIES[reply] in found.remedy
    assert "mail.example.com:443" in found.remedy


def test_an_unknown_reply_is_told_by_its_number() -> None:
    assert "it replies 99" in fault(OPEN, GREETED, bytes([5, 99, 0, 1])).remedy


@pytest.mark.parametrize(
    ("answers", "how"),
    [
        (["4854"], "version 72"),  # "HT": an HTTP proxy
        (["0503"], "method 3"),
        (["0500", "04000001"], "version 4"),
        (["0500", "05000007"], "kind 7"),
        (["0500", "05000001c00002010438" + "ff"], "bytes into the tunnel"),
        (["0500" + "05000001c00002010438"], "before it is asked"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_found_out(answers: list[str], how: str) -> None:
    found = fault(OPEN, *map(bytes.fromhex, answers))

    assert found.reason == "proxy-speaks-no-socks"
    assert how in found.remedy


@given(
    st.lists(st.integers(0, 40), max_size=8),
    st.sampled_from(["01c00002010438", "0420010db80000000000000000000000010438", "0305" + b"proxy".hex() + "0438"]),
)
def test_answers_may_come_in_any_parts(cuts: list[int], bound: str) -> None:
    parts = []
    for message in ("0502", "0100", "050000" + bound):
        came = bytes.fromhex(message)
        places = [0, *sorted(min(cut, len(came)) for cut in cuts), len(came)]
        parts += [came[start:end] for start, end in pairwise(places) if end > start]

    said = b"".join(talk(KNOWN, parts))

    assert said.endswith(b"mail.example.com\x01\xbb")


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=20))
def test_no_answer_breaks_the_reader(answers: list[bytes]) -> None:
    speaker = connect(KNOWN, "mail.example.com", 443)
    next(speaker)
    try:
        for answer in answers:
            speaker.send(answer)
    except (NotConnected, StopIteration):
        return
    assert len(b"".join(answers)) < 4 + 4 + 1 + 255 + 2
