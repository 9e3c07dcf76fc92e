"""Own the reading of keytabs [MIT: The Kerberos keytab binary file format], for the names in them alone."""

from typing import Final

MAGIC: Final = b"\x05\x02"  # version 2, numbers in network order


def principals(content: bytes) -> frozenset[str]:
    """Name whose keys a keytab has, e.g. push-relay@EXAMPLE.COM; raises ValueError for what is no keytab."""
    if content[:2] != MAGIC:
        raise ValueError("no keytab")
    names, position = set(), 2
    while position + 4 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big", signed=True)
        position += 4
        if size > 0:
            names.add(_principal(content[position : position + size]))
        elif size == 0:
            break
        position += abs(size)  # a negative size: a hole where a key was removed
    return frozenset(names)


def _principal(entry: bytes) -> str:
    """Read the name at the start of one entry: the number of its components, the realm, the components."""
    count, rest = int.from_bytes(entry[:2], "big"), entry[2:]
    realm, rest = _counted(rest)
    components = []
    for _ in range(count):
        component, rest = _counted(rest)
        components.append(component)
    return f"{'/'.join(components)}@{realm}"


def _counted(octets: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(octets[:2], "big")
    if len(octets) < 2 + size:
        raise ValueError("cut off")
    return octets[2 : 2 + size].decode("utf-8", "replace"), octets[2 + size :]
