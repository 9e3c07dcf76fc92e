from ipaddress import ip_network

import pytest

from relay.admin.people import LONGEST, Person, TrustedProxy
from relay.admin.tokens import AdminToken, Scope
from relay.http.addresses import Proxies

PROXY = TrustedProxy(
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    Proxies((ip_network("192.0.2.0/28"),)),
    {Scope.READ: frozenset({"group:helpdesk", "ann"}), Scope.ACT: frozenset({"ann"})},
)
PEER = "192.0.2.3"


def test_a_listed_person_has_the_scopes_of_name_and_groups() -> None:
    ann = PROXY.person(PEER, ["ann"], [])
    ben = PROXY.person(PEER, [" ben "], ["sales, helpdesk"])

    assert ann == Person("proxy:ann", frozenset({Scope.READ, Scope.ACT}), proxied=True)
    assert ben == Person("proxy:ben", frozenset({Scope.READ}), proxied=True)


def test_others_are_known_and_may_do_nothing() -> None:
    assert PROXY.person(PEER, ["eve"], ["sales"]) == Person("proxy:eve", frozenset(), proxied=True)


@pytest.mark.parametrize("peer", [None, "198.51.100.1", "not-an-address"])
def test_nobody_else_is_believed(peer: str | None) -> None:
    assert PROXY.person(peer, ["ann"], []) is None


@pytest.mark.parametrize(
    "names",
    [[], ["ann", "ben"], [""], ["a\tb"], ["ann\n"[:3] + "\x00"], ["a" * (LONGEST + 1)], ["\udcff"], ["group:helpdesk"]],
)
def test_what_is_no_single_name_is_nobody(names: list[str]) -> None:
    assert PROXY.person(PEER, names, []) is None


def test_a_group_that_is_no_name_opens_nothing() -> None:
    found = PROXY.person(PEER, ["eve"], ["", "help\x00desk", "x" * 200])

    assert found is not None
    assert found.scopes == frozenset()


def test_the_holder_of_a_token_has_its_name_and_scopes() -> None:
    token = AdminToken("helpdesk", b"digest", frozenset({Scope.READ}))

    assert Person.of_token(token) == Person("helpdesk", frozenset({Scope.READ}))
