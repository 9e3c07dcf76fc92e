"""The Huffman code of header strings, read only: what the relay writes is not compressed [RFC 7541 5.2, appendix B]."""

from functools import cache
from typing import Any, Final

from eas_watcher.http2.violations import ErrorCode, Violation

END: Final = 256
"""The symbol that ends a string; a string must not contain it."""
ALL: Final = 257

_SHORT: Final = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\0$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
}
"""Symbols by the bits of their codes. The code is canonical: the lengths define it [RFC 7541 appendix B]."""
_LONG: Final = {
    20: "80 82 83 a2 b8 c2 e0 e2",
    21: "99 a1 a7 ac b0 b1 b3 d1 d8 d9 e3 e5 e6",
    22: "81 84 85 86 88 92 9a 9c a0 a3 a4 a9 aa ad b2 b5 b9 ba bb bd be c4 c6 e4 e8 e9",
    23: "01 87 89 8a 8b 8c 8d 8f 93 95 96 97 98 9b 9d 9e a5 a6 a8 ae af b4 b6 b7 bc bf c5 e7 ef",
    24: "09 8e 90 91 94 9f ab ce d7 e1 ec ed",
    25: "c7 cf ea eb",
    26: "c0 c1 c8 c9 ca cd d2 d5 da db ee f0 f2 f3 ff",
    27: "cb cc d3 d4 d6 dd de df f1 f4 f5 f6 f7 f8 fa fb fc fd fe",
    28: "02 03 04 05 06 07 08 0b 0c 0e 0f 10 11 12 13 14 15 17 18 19 1a 1b 1c 1d 1e 1f 7f dc f9",
    30: "0a 0d 16",
}
"""The same for symbols that hardly a header has, in hex."""

_NOTHING: Final = -1
_WRONG: Final = -2
_PADDING: Final = 7
"""Bits at most that fill the last octet, all of them 1."""


def unhuffman(coded: bytes) -> bytes:
    """Decode a string; raises Violation for one that is not in the code."""
    following, symbols, ends = _tables()
    decoded = bytearray()
    state = 0
    for octet in coded:
        for half in (octet >> 4, octet & 15):
            step = state | half
            symbol = symbols[step]
            if symbol >= 0:
                decoded.append(symbol)
            elif symbol == _WRONG:
                raise Violation(ErrorCode.COMPRESSION_ERROR, "the end of a string inside of it")
            state = following[step]
    if state not in ends:
        raise Violation(ErrorCode.COMPRESSION_ERROR, "a string with wrong padding")
    return bytes(decoded)


@cache
def _tables() -> tuple[list[int], list[int], frozenset[int]]:
    """Return for each state (times 16) and half octet the next state and the symbol found; and states to end in."""
    tree = _tree()
    inner = {id(node): number * 16 for number, node in enumerate(tree)}
    following, symbols = [], []
    for root in tree:
        for half in range(16):
            node, found = root, _NOTHING
            for bit in (8, 4, 2, 1):
                branch = node[bool(half & bit)]
                if isinstance(branch, int):
                    found, node = _WRONG if branch == END else branch, tree[0]
                else:
                    node = branch
            following.append(inner[id(node)])
            symbols.append(found)
    ends, node = {0}, tree[0]
    for _ in range(_PADDING):
        node = node[1]
        ends.add(inner[id(node)])
    return following, symbols, frozenset(ends)


def _tree() -> list[list[Any]]:
    """Return the inner nodes of the code's tree, the root first: each a pair of nodes or symbols, for bit 0 and 1."""
    nodes: list[list[Any]] = [[None, None]]
    code = bits = 0
    for length, symbols in lengths():
        for symbol in symbols:
            code <<= length - bits
            bits = length
            node = nodes[0]
            for place in range(length - 1, 0, -1):
                bit = code >> place & 1
                if node[bit] is None:
                    node[bit] = [None, None]
                    nodes.append(node[bit])
                node = node[bit]
            node[code & 1] = symbol
            code += 1
    return nodes


def lengths() -> list[tuple[int, list[int]]]:
    """Return the symbols by the lengths of their codes, shortest first, in the order of the codes."""
    found = {**_SHORT, **{length: bytes.fromhex(text) for length, text in _LONG.items()}}
    return [(length, [*found[length], *([END] if length == max(found) else [])]) for length in sorted(found)]
