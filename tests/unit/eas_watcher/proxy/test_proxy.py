import pytest

from eas_watcher.proxy.proxy import NoProxy, Proxy, authority, proxy_at


def test_a_proxy_prints_as_host_and_port_and_never_shows_its_password() -> None:
    proxy = Proxy("proxy.example.com", 3128, user="relay", password="hunter2")

    assert str(proxy) == "proxy.example.com:3128"
    assert "hunter2" not in repr(proxy)
    assert "hunter2" not in str(proxy)


def test_without_a_user_there_is_no_authorization() -> None:
    assert Proxy("proxy.example.com", 3128, password="left over").authorization == ""


def test_addresses_are_written_as_urls_have_them() -> None:
    assert authority("192.0.2.1", 443) == "192.0.2.1:443"
    assert authority("2001:db8::1", 443) == "[2001:db8::1]:443"


def test_user_and_password_travel_as_utf_8() -> None:
    # The example of RFC 7617 2.1: a pound sign.
    assert Proxy("p", 1, user="test", password="123£").authorization == "Basic dGVzdDoxMjPCow=="


def test_a_ticket_is_no_fixed_authorization() -> None:
    proxy = Proxy("proxy.example.com", 3128, user="relay@EXAMPLE.COM", negotiates=True)

    assert proxy.authorization == ""
    assert proxy.authenticates


def test_what_was_learnt_of_a_credential_makes_no_other_proxy() -> None:
    one, other = Proxy("proxy.example.com", 3128, user="relay"), Proxy("proxy.example.com", 3128, user="relay")
    one.refusals.end(0.0, accepted=False)

    assert one == other
    assert hash(one) == hash(other)
    assert not Proxy("proxy.example.com", 3128).authenticates


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example.com:3128", Proxy("proxy.example.com", 3128)),
        ("http://Proxy.Example.com:3128/", Proxy("proxy.example.com", 3128)),
        ("https://[2001:db8::1]:443", Proxy("2001:db8::1", 443, tls=True)),
        ("socks5://192.0.2.1:1080", Proxy("192.0.2.1", 1080, speaks="socks5")),
        ("socks5h://proxy.example.com:1080", Proxy("proxy.example.com", 1080, speaks="socks5h")),
    ],
)
def test_a_url_names_a_proxy(url: str, proxy: Proxy) -> None:
    assert proxy_at(url, "network.proxy") == proxy


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("proxy.example.com:3128", "is no URL with a host"),
        ("http://", "is no URL with a host"),
        ("http://proxy.example.com:0", "is no URL with a host"),
        ("http://proxy.example.com:99999", "is no URL with a host"),
        ("http://[::1", "is no URL with a host"),
        ("socks4://proxy.example.com:1080", "begins with none of"),
        ("http://relay:hunter2@proxy.example.com:3128", "holds a user"),
        ("http://:hunter2@proxy.example.com:3128", "holds a user"),
        ("http://proxy.example.com:3128/pac", "has more than host and port"),
        ("http://proxy.example.com:3128?x", "has more than host and port"),
        ("http://proxy.example.com:3128#x", "has more than host and port"),
        ("http://proxy.example.com", "names no port"),
        ("http://bücher.example.com:3128", "other letters than ASCII"),
    ],
)
def test_a_url_that_is_none_of_a_proxy_is_refused_without_being_repeated(url: str, wrong: str) -> None:
    with pytest.raises(NoProxy, match=wrong) as caught:
        proxy_at(url, "network.proxy")
    assert "hunter2" not in str(caught.value)
