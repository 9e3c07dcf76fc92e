import pytest

from relay.sandbox.place import Place


@pytest.mark.parametrize(
    ("place", "address", "reached", "shown", "certified", "public"),
    [
        (Place(), "127.0.0.1", "127.0.0.1", "127.0.0.1", ("127.0.0.1",), False),
        (Place("0.0.0.0"), "127.0.0.1", "127.0.0.1", "127.0.0.1", ("127.0.0.1",), True),
        (Place("::"), "::1", "[::1]", "[::1]", ("::1",), True),
        (
            Place("192.0.2.7", ("mac.example.com", "192.0.2.7")),
            *("192.0.2.7", "192.0.2.7", "mac.example.com", ("mac.example.com", "192.0.2.7"), True),
        ),
        (Place("::1", ("2001:db8::7",)), "::1", "[::1]", "[2001:db8::7]", ("2001:db8::7", "::1"), False),
    ],
)
def test_a_place_says_how_it_is_reached(
    place: Place, address: str, reached: str, shown: str, certified: tuple[str, ...], public: bool
) -> None:
    assert (place.address, place.reached, place.shown) == (address, reached, shown)
    assert place.certified == certified
    assert place.public is public


@pytest.mark.parametrize(
    ("host", "names"),
    [("localhost", ()), ("", ()), ("127.0.0.1", ("",)), ("127.0.0.1", ("https://a",)), ("127.0.0.1", ("a:8443",))],
)
def test_a_place_without_an_address_or_with_another_name_is_refused(host: str, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"address|name"):
        Place(host, names)
