from relay.network.route import DIRECT, Route


def test_the_direct_route_has_neither_proxy_nor_source() -> None:
    assert Route() == DIRECT
    assert DIRECT.proxy is None
    assert DIRECT.sources == ()
