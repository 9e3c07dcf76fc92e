"""RSA keys that all tests of one process share: making one and checking one take some 30 ms of CPU each."""

from collections.abc import Callable
from functools import cache, partial
from itertools import cycle
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.sandbox.certificates import make_rsa_key

FEW: Final = 3
"""A test that changes a key twice sees a different key each time."""


@cache
def rsa_key(number: int = 0) -> RSAPrivateKey:
    """Return one of the shared keys."""
    return make_rsa_key()


def rsa_keys() -> Callable[[], RSAPrivateKey]:
    """Return a function whose first calls return different shared keys."""
    return partial(next, map(rsa_key, cycle(range(FEW))))


@cache
def rsa_pem() -> str:
    """Return a shared key as PEM text."""
    return rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
