from relay.network.route import DIRECT, Proxy, Route, authority


def test_a_proxy_prints_as_host_and_port_and_never_shows_its_password() -> None:
    proxy = Proxy("proxy.example.com", 3128, user="relay", password="hunter2")

    assert str(proxy) == "proxy.example.com:3128"
    assert "hunter2" not in repr(Route(proxy))
    assert "hunter2" not in str(proxy)


def test_without_a_user_there_is_no_authorization() -> None:
    assert Proxy("proxy.example.com", 3128, password="left over").authorization == ""


def test_the_direct_route_has_neither_proxy_nor_source() -> None:
    assert Route() == DIRECT
    assert DIRECT.proxy is None
    assert DIRECT.sources == ()


def test_addresses_are_written_as_urls_have_them() -> None:
    assert authority("192.0.2.1", 443) == "192.0.2.1:443"
    assert authority("2001:db8::1", 443) == "[2001:db8::1]:443"
