import pytest

from relay.settings.kerberos import principals


def counted(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def entry(realm: str, *components: str) -> bytes:
    """Write one key as ktutil does: name, NT-PRINCIPAL, time 0, version 2, AES-256 (18) and its 32 bytes, version 2."""
    name = len(components).to_bytes(2, "big") + counted(realm) + b"".join(map(counted, components))
    rest = name + bytes.fromhex("00000001 00000000 02 0012 0020") + bytes(32) + bytes.fromhex("00000002")
    return len(rest).to_bytes(4, "big") + rest


RELAY = entry("EXAMPLE.COM", "push-relay")
HTTP = entry("EXAMPLE.COM", "HTTP", "relay.example.com")
HOLE = (-8).to_bytes(4, "big", signed=True) + bytes(8)


def test_each_name_is_found_whatever_was_removed_between_them() -> None:
    found = principals(b"\x05\x02" + RELAY + HOLE + HTTP)

    assert found == {"push-relay@EXAMPLE.COM", "HTTP/relay.example.com@EXAMPLE.COM"}


def test_an_empty_keytab_has_no_names() -> None:
    assert principals(b"\x05\x02") == frozenset()
    assert principals(b"\x05\x02" + bytes(8) + RELAY) == frozenset()


@pytest.mark.parametrize("content", [b"", b"\x05\x01", b"-----BEGIN", b"\x05\x02" + RELAY[:20]])
def test_what_is_no_keytab_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"no keytab|cut off"):
        principals(content)
