import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from relay.domain.subscription import (
    BROWSERS,
    ENDPOINT,
    WINDOWS,
    Subscription,
    SubscriptionInvalid,
    base64url,
    is_listed,
    naming,
    read_auth,
    read_endpoint,
    read_p256dh,
    read_service,
)
from relay.push.webpush.encryption import point

KEY = point(derive_private_key(7, SECP256R1()).public_key())
AUTH = bytes(range(16))


def subscription(endpoint: str = "https://push.example.com/up/abc?up=1", **changes: str) -> Subscription:
    return Subscription.of(endpoint, **({"p256dh": base64url(KEY), "auth": base64url(AUTH)} | changes))


def test_a_subscription_is_read_as_it_is() -> None:
    read = subscription()

    assert (read.endpoint, read.service) == ("https://push.example.com/up/abc?up=1", "push.example.com")
    assert (read.p256dh, read.auth) == (KEY, AUTH)


def test_its_token_has_one_spelling_and_reads_back() -> None:
    spelled = subscription(
        "HTTPS://Push.Example.COM:443/up/abc?up=1", p256dh=base64url(KEY) + "=", auth=base64url(AUTH) + "=="
    )

    assert spelled.token == subscription().token
    assert Subscription.read(spelled.token) == subscription()


def test_its_token_names_its_push_service_and_no_other() -> None:
    token = subscription("https://push.example.com:8443/push.example.org/https://push.example.net/").token

    assert naming("push.example.com:8443") in token
    for other in (
        "push.example.com",
        "push.example.com:844",
        "example.com:8443",
        "push.example.org",
        "push.example.net",
    ):
        assert naming(other) not in token


def test_nothing_of_a_subscription_shows() -> None:
    shown = repr(subscription("https://push.example.com/canary"))

    assert "canary" not in shown
    assert "push.example.com" in shown


@pytest.mark.parametrize(
    ("endpoint", "service"),
    [
        ("https://push.example.com/", "push.example.com"),
        ("https://push.example.com:8443/x", "push.example.com:8443"),
        ("https://10.0.0.7:8443/x%2Fy", "10.0.0.7:8443"),
        ("https://[2001:DB8::7]:8443/x", "[2001:db8::7]:8443"),
        ("https://push_1.example.com/UP?x=~!$&'()*+,;=:@/", "push_1.example.com"),
    ],
)
def test_an_endpoint_names_its_push_service(endpoint: str, service: str) -> None:
    written, found = read_endpoint(endpoint)

    assert found == service
    assert written == f"https://{service}{ENDPOINT.fullmatch(endpoint)['rest']}"  # type: ignore[index]
    assert read_service(service) == service


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "http://push.example.com/x",
        "https://push.example.com",
        "https:///x",
        "https://push.example.com:0/x",
        "https://push.example.com:65536/x",
        "https://push.example.com:/x",
        "https://ann@push.example.com/x",
        "https://push.example.com@10.0.0.1/x",
        "https://push.example.com\\@10.0.0.1/x",
        "https://push.example.com#/x",
        "https://push.example.com?/x",
        "https://push.example.com/x#y",
        "https://push.example.com/x?",
        "https://push.example.com/x y",
        "https://push.example.com/x\n",
        "https://push.example.com/x\r\nHost: 10.0.0.1",
        "https://push.example.com/%2",
        "https://push.example.com/ü",
        "https://püsh.example.com/x",
        "https://push.example.com./x",
        "https://-push.example.com/x",
        "https://push..example.com/x",
        "https://[::1/x",
        "https://[1.2.3.4]/x",
        "https://[fe80::1%25eth0]/x",
        "https://" + "a." * 127 + "a" * 10 + "/x",
        "https://push.example.com/" + "x" * 1000,
        "ftp://push.example.com/x",
        "//push.example.com/x",
    ],
)
def test_an_endpoint_that_parsers_could_read_differently_is_none(endpoint: str) -> None:
    with pytest.raises(SubscriptionInvalid) as refusal:
        read_endpoint(endpoint)
    assert "example" not in str(refusal.value)


@given(st.from_regex(ENDPOINT, fullmatch=True))
def test_the_client_asks_the_host_and_path_that_were_checked(endpoint: str) -> None:
    try:
        written, service = read_endpoint(endpoint)
    except SubscriptionInvalid:
        return
    url = URL(written, encoded=True)

    assert url.scheme == "https"
    assert url.user is url.password is None
    host = f"[{url.host}]" if ":" in str(url.host) else url.host
    assert service == (host if url.port == 443 else f"{host}:{url.port}")
    assert str(url) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!" * 87,
        base64url(KEY)[:-2],
        base64url(KEY + b"\0"),
        base64url(b"\x04" + bytes(64)),
        base64url(b"\x02" + KEY[1:33]),
        base64url(b"\x05" + KEY[1:]),
        "A" * 10_000,
        base64url(KEY) + "*",
    ],
)
def test_what_is_no_point_of_the_curve_is_no_key(text: str) -> None:
    with pytest.raises(SubscriptionInvalid):
        read_p256dh(text)


def test_keys_are_read_in_both_alphabets_of_base64_and_over_lines() -> None:
    standard = base64url(KEY).replace("-", "+").replace("_", "/")

    assert read_p256dh(standard + "=\n") == read_p256dh(f"{standard[:76]}\r\n{standard[76:]}") == KEY
    assert read_auth(base64url(AUTH) + "==\n") == AUTH


@pytest.mark.parametrize("text", ["", base64url(AUTH[:15]), base64url(AUTH + b"x"), "A" * 21, "A" * 1000, "ä" * 22])
def test_a_secret_has_sixteen_bytes(text: str) -> None:
    with pytest.raises(SubscriptionInvalid):
        read_auth(text)


@pytest.mark.parametrize(
    "token",
    ["", "c0ffee", "{}", "[]", "null", "[" * 5000, json.dumps({"endpoint": 1, "p256dh": None, "auth": []})],
    ids=lambda token: token[:10],
)
def test_another_device_token_is_no_subscription(token: str) -> None:
    with pytest.raises(SubscriptionInvalid):
        Subscription.read(token)


@pytest.mark.parametrize(
    "name", ["", "https://push.example.com", "push.example.com/x", "push.example.com:", "*", "a b"]
)
def test_what_is_no_host_is_no_push_service(name: str) -> None:
    assert read_service(name) is None


def test_a_push_service_has_one_spelling() -> None:
    names: list[Any] = ["Push.Example.com", "push.example.com:443"]

    assert {read_service(name) for name in names} == {"push.example.com"}


def test_a_list_names_the_services_of_edge_by_one_word_and_no_other_host_of_microsoft() -> None:
    services = {WINDOWS, "push.example.com"}

    assert is_listed("push.example.com", services)
    for name in ("wns2-par02p", "wns2-ln2p", "wns2-pn1p", "wns2-bl2p"):
        assert is_listed(f"{name}.notify.windows.com", services)
        assert not is_listed(f"{name}.notify.windows.com", {"push.example.com"})
    for other in (
        "notify.windows.com",
        "db5.notify.windows.com",
        "a.wns2-par02p.notify.windows.com",
        "wns2-par02p.notify.windows.com:8443",
        "wns2-par02p.notify.windows.com.example.com",
        "wns2-par02pxnotify.windows.com",
        "wns2-p.notify.windows.com",
    ):
        assert not is_listed(other, services)


def test_no_endpoint_names_the_pattern_itself() -> None:
    assert read_service(WINDOWS) is None
    assert all(read_service(host) == host for word, host in BROWSERS.items() if word != "microsoft")
