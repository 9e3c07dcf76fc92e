from eas_watcher.proxy.proxy import Proxy, authority


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
