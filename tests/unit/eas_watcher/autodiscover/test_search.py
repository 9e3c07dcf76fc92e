"""Test which hosts are asked, in which order, and that no other host gets a question or the credential."""

from collections.abc import Callable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.autodiscover.search import ADDRESSES, HOPS, Lookup, discover, may_discover
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    ProtocolViolation,
    ServerBusy,
    Unauthorized,
    Unreachable,
)

ANN = "Ann@Example.com"
HOSTS = frozenset({"autodiscover.example.com", "example.com:8443", "mail.example.com", "mail2.example.com"})
FOUND = "https://mail.example.com/Microsoft-Server-ActiveSync"
NOTHING = HttpReply(404, {}, b"")

Answer = HttpReply | EasError


def json(url: str) -> HttpReply:
    return HttpReply(200, {}, f'{{"Protocol": "ActiveSync", "Url": "{url}"}}'.encode())


def pox(inner: str) -> HttpReply:
    return HttpReply(200, {}, f"<Autodiscover><Response><Action>{inner}</Action></Response></Autodiscover>".encode())


def settings(url: str) -> HttpReply:
    return pox(f"<Settings><Server><Type>MobileSync</Type><Url>{url}</Url></Server></Settings>")


def to(location: str, status: int = 302) -> HttpReply:
    return HttpReply(status, {"x-ms-location" if status == 451 else "location": location}, b"")


def search(
    answer: Callable[[Lookup], Answer], address: str = ANN, hosts: frozenset[str] = HOSTS
) -> tuple[str | EasError, list[Lookup]]:
    """Run a search to its end; return its result and the questions that it asked."""
    asked: list[Lookup] = []
    flow = discover(address, hosts)
    try:
        lookup = next(flow)
        while True:
            assert len(asked) < 200, "it never ends"
            asked.append(lookup)
            reply = answer(lookup)
            lookup = flow.throw(reply) if isinstance(reply, EasError) else flow.send(reply)
    except StopIteration as end:
        found: str = end.value
        return found, asked
    except EasError as error:
        return error, asked


def scripted(*answers: Answer) -> Callable[[Lookup], Answer]:
    rest = iter(answers)
    return lambda _: next(rest)


def short(lookup: Lookup) -> tuple[str, str, bool]:
    return lookup.method, lookup.url.partition("?")[0], lookup.credential


def test_asks_the_hosts_of_the_domain_without_the_credential_first() -> None:
    ended, asked = search(scripted(NOTHING, NOTHING, NOTHING, settings("https://mail.example.com")))

    assert ended == FOUND
    assert list(map(short, asked)) == [
        ("GET", "https://autodiscover.example.com/autodiscover/autodiscover.json", False),
        ("GET", "https://example.com:8443/autodiscover/autodiscover.json", False),
        ("POST", "https://autodiscover.example.com/autodiscover/autodiscover.xml", True),
        ("POST", "https://example.com:8443/autodiscover/autodiscover.xml", True),
    ]
    assert b"<EMailAddress>Ann@Example.com<" in asked[-1].body


def test_the_first_answer_ends_the_search() -> None:
    ended, asked = search(scripted(json("https://mail.example.com/eas?x")))

    assert (ended, len(asked)) == ("https://mail.example.com/eas", 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 451])
def test_redirects_between_allowed_hosts_are_followed_with_what_was_asked(status: int) -> None:
    there = "https://mail2.example.com/autodiscover/autodiscover.xml"
    ended, asked = search(scripted(NOTHING, NOTHING, to(there, status), settings("https://mail.example.com/")))

    assert ended == FOUND
    assert asked[3] == Lookup("POST", there, asked[2].body, credential=True)


@pytest.mark.parametrize("status", [302, 451])
@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example.net/autodiscover/autodiscover.xml",
        "http://mail2.example.com/autodiscover/autodiscover.xml",
        "https://mail2.example.com:444/",
        "//evil.example.net/",
        "login",
        "",
    ],
)
def test_no_redirect_leads_out_of_the_allowed_hosts(location: str, status: int) -> None:
    ended, asked = search(lambda _: to(location, status))

    assert isinstance(ended, AccessDenied)
    assert "which the settings do not allow" in str(ended)
    assert {host_and_port(lookup.url.replace("http:", "https:")) for lookup in asked} <= HOSTS
    assert len(asked) == 5


@pytest.mark.parametrize(
    "before",
    [(to("https://www.example.com/"), NOTHING, NOTHING), (NOTHING, NOTHING, to("https://www.example.com/"))],
    ids=["by version 2", "by version 1"],
)
def test_a_host_that_redirects_out_does_not_keep_the_others_from_being_asked(before: tuple[HttpReply, ...]) -> None:
    """A company's web site often redirects everything."""
    ended, _ = search(scripted(*before, settings(FOUND)))

    assert ended == FOUND


def test_a_redirect_to_a_path_stays_at_its_host() -> None:
    ended, asked = search(scripted(NOTHING, NOTHING, to("/Autodiscover/Autodiscover.xml"), settings(FOUND)))

    assert ended == FOUND
    assert asked[3].url == "https://autodiscover.example.com/Autodiscover/Autodiscover.xml"


def test_a_url_at_a_host_that_is_not_allowed_is_no_result_and_is_named() -> None:
    ended, _ = search(scripted(json("https://cloud.example.net/eas")))

    assert isinstance(ended, AccessDenied)
    assert "cloud.example.net, which the settings do not allow" in str(ended)


def test_a_refused_credential_is_sent_to_no_other_host() -> None:
    ended, asked = search(scripted(NOTHING, NOTHING, HttpReply(401, {}, b"")))

    assert isinstance(ended, Unauthorized)
    assert sum(lookup.credential for lookup in asked) == 1


def test_a_401_to_a_request_without_credential_is_no_refusal() -> None:
    ended, _ = search(scripted(HttpReply(401, {}, b""), json(FOUND)))

    assert ended == FOUND


@pytest.mark.parametrize("status", [403, 456, 457])
def test_a_denied_account_is_tried_at_no_other_host(status: int) -> None:
    ended, asked = search(scripted(NOTHING, NOTHING, HttpReply(status, {}, b"")))

    assert isinstance(ended, AccessDenied)
    assert ended.reason == f"http-{status}"
    assert len(asked) == 3


@pytest.mark.parametrize(
    "trouble", [Unreachable("x"), HttpReply(503, {}, b""), HttpReply(200, {}, b"<html>"), ProtocolViolation("x")]
)
def test_a_host_that_fails_does_not_keep_the_others_from_being_asked(trouble: Answer) -> None:
    ended, _ = search(scripted(NOTHING, NOTHING, trouble, settings(FOUND)))

    assert ended == FOUND


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(Unreachable("x"), Unreachable), (HttpReply(503, {}, b""), ServerBusy), (NOTHING, AccessDenied)],
)
def test_no_result_is_final_unless_every_host_answered(trouble: Answer, kind: type[EasError]) -> None:
    ended, asked = search(lambda lookup: trouble if lookup.url.startswith("https://autodiscover.") else NOTHING)

    assert type(ended) is kind
    assert len(asked) == 5


def test_another_address_is_asked_for_from_the_start() -> None:
    ended, asked = search(
        scripted(NOTHING, NOTHING, pox("<Redirect>ben@example.com</Redirect>"), json(FOUND)),
    )

    assert ended == FOUND
    assert "ben%40example.com" in asked[-1].url


@pytest.mark.parametrize("address", ["ann@example.com", "ann@example.net", "ann"])
def test_an_address_seen_before_or_elsewhere_ends_the_search(address: str) -> None:
    ended, asked = search(scripted(NOTHING, NOTHING, pox(f"<Redirect>{address}</Redirect>")))

    assert isinstance(ended, AccessDenied)
    assert len(asked) == 3


def test_a_server_that_redirects_too_often_is_given_up() -> None:
    hops, asked = search(lambda _: to("https://mail2.example.com/again"))
    assert isinstance(hops, ProtocolViolation)
    assert len(asked) == 4 * (HOPS + 1) + 1 + HOPS + 1

    names = (f"<Redirect>a{number}@example.com</Redirect>" for number in range(99))
    addresses, asked = search(lambda lookup: pox(next(names)) if lookup.credential else NOTHING)
    assert isinstance(addresses, AccessDenied)
    assert len(asked) == 3 * ADDRESSES


def test_only_domains_of_allowed_hosts_can_be_discovered() -> None:
    assert may_discover("ann@EXAMPLE.com", HOSTS)
    assert may_discover("ann@example.com", frozenset({"autodiscover.example.com"}))
    for address in ("ann@mail.example.net", "ann@notexample.com", "example.com", "EXAMPLE\\ann", "ann@"):
        assert not may_discover(address, HOSTS)


ANSWERS = st.one_of(
    st.sampled_from(
        [
            NOTHING,
            HttpReply(500, {}, b""),
            HttpReply(200, {}, b"<a/>"),
            Unreachable("x"),
            json("https://evil.example.net"),
        ]
    ),
    st.builds(
        to,
        st.sampled_from(["https://mail2.example.com/x", "https://evil.example.net/", "http://example.com:8443/", "x"]),
        st.sampled_from([302, 451]),
    ),
    st.sampled_from(["ben@example.com", "eve@evil.example.net"]).map(lambda to: pox(f"<Redirect>{to}</Redirect>")),
    st.sampled_from([FOUND, "https://evil.example.net/eas"]).map(settings),
)


@given(st.lists(ANSWERS, min_size=1, max_size=12))
def test_whatever_the_answers_only_allowed_hosts_are_asked(answers: list[Answer]) -> None:
    rest = cycle(answers)

    ended, asked = search(lambda _: next(rest))

    plain = "http://autodiscover.example.com/autodiscover/autodiscover.xml"
    assert all(host_and_port(lookup.url) in HOSTS or lookup == Lookup("GET", plain) for lookup in asked)
    assert isinstance(ended, EasError) or host_and_port(ended) in HOSTS


def test_a_plain_question_without_a_credential_comes_last_and_may_point_to_an_allowed_host() -> None:
    there = "https://mail2.example.com/autodiscover/autodiscover.xml"
    ended, asked = search(scripted(*[NOTHING] * 4, to(there), settings(FOUND)))

    assert ended == FOUND
    assert asked[4] == Lookup("GET", "http://autodiscover.example.com/autodiscover/autodiscover.xml")
    assert asked[5] == Lookup("POST", there, asked[2].body, credential=True)


@pytest.mark.parametrize(
    "answer",
    [
        to("https://evil.example.net/autodiscover/autodiscover.xml"),
        to("http://mail2.example.com/autodiscover/autodiscover.xml"),
        to("https://autodiscover.example.com/autodiscover/autodiscover.xml"),
        settings(FOUND),
        HttpReply(401, {}, b""),
        Unreachable("x"),
    ],
)
def test_an_answer_in_plain_text_leads_to_allowed_hosts_only(answer: Answer) -> None:
    ended, asked = search(scripted(*[NOTHING] * 4, answer))

    assert isinstance(ended, AccessDenied)
    assert str(ended) == "no host of [autodiscover] knows the mailbox"
    assert len(asked) == 5


def test_no_host_is_asked_in_plain_text_that_the_operator_did_not_name() -> None:
    ended, asked = search(lambda _: NOTHING, hosts=frozenset({"example.com", "mail.example.com"}))

    assert isinstance(ended, AccessDenied)
    assert all(lookup.url.startswith("https://") for lookup in asked)


def test_the_cause_that_a_host_gives_is_repeated_in_our_words() -> None:
    said = HttpReply(
        200, {}, b"<Autodiscover><Response><Error><ErrorCode>601</ErrorCode></Error></Response></Autodiscover>"
    )

    ended, _ = search(lambda lookup: said if lookup.credential else NOTHING)

    assert str(ended).endswith("knows the mailbox: it knows no phones, perhaps Outlook only (error 601)")
