import socket

import pytest

from eas_watcher.transport.sources import Sources


def bound(sources: Sources, family: int = socket.AF_INET) -> str:
    """Bind a new socket; return its address."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sources.bind(sock)
        return str(sock.getsockname()[0])


def test_without_addresses_the_host_chooses() -> None:
    sources = Sources([])

    assert bound(sources) == "0.0.0.0"
    assert sources.serves(socket.AF_INET)
    assert sources.serves(socket.AF_INET6)


def test_addresses_of_a_kind_take_turns() -> None:
    sources = Sources(["127.0.0.2", "127.0.0.3"])

    assert [bound(sources) for _ in range(4)] == ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]


def test_the_port_is_chosen_when_the_destination_is_known() -> None:
    with socket.socket() as sock:
        Sources(["127.0.0.2"]).bind(sock)

        assert sock.getsockname() == ("127.0.0.2", 0)


def test_a_kind_without_an_address_is_not_used() -> None:
    sources = Sources(["127.0.0.2"])

    assert not sources.serves(socket.AF_INET6)
    with pytest.raises(OSError, match="no source address of this kind"):
        bound(sources, socket.AF_INET6)


def test_an_address_of_another_host_is_named() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        bound(Sources(["192.0.2.1"]))


def test_a_text_that_is_no_address_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"mail\.example\.com"):
        Sources(["mail.example.com"])
