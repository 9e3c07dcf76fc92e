"""The users that a client certificate names."""

from collections.abc import Iterator
from typing import Final

from cryptography import x509

UPN: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
"""The user principal name, as Active Directory certificate services write it [MS-WCCE 2.2.2.7.7.4]."""
_TEXTS: Final = {0x0C: "utf-8", 0x16: "ascii", 0x13: "ascii"}
"""The tags of DER for UTF8String, IA5String and PrintableString."""
HEAD: Final = 2  # bytes before a text: its tag and its length
LONGEST: Final = 0x7F
"""Bytes of a text whose length is one byte in DER; a longer name is written with more, and 82 hex means two."""


def user_names(der: bytes) -> frozenset[str]:
    """Return the mail addresses and user principal names among the alternative names; none of a bad certificate."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return frozenset()
    addresses = names.get_values_for_type(x509.RFC822Name)
    return frozenset({*addresses, *_principals(names.get_values_for_type(x509.OtherName))})


def _principals(names: list[x509.OtherName]) -> Iterator[str]:
    for name in names:
        text = _text(name.value) if name.type_id == UPN else None
        if text:
            yield text


def _text(der: bytes) -> str | None:
    """Return the text that an element of DER holds; None for anything else."""
    coding = _TEXTS.get(int.from_bytes(der[:1], "big"))
    size, start = int.from_bytes(der[1:HEAD], "big"), HEAD
    if size > LONGEST:
        start += size & LONGEST
        size = int.from_bytes(der[HEAD:start], "big")
    if coding is None or start + size != len(der):
        return None
    try:
        return der[start:].decode(coding)
    except UnicodeDecodeError:
        return None
