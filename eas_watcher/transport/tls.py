"""TLS to servers: how every context of a client is made, and what a failed handshake means in words."""

import ssl
from pathlib import Path
from types import MappingProxyType
from typing import Final

_OLD_TLS: Final = "the server speaks TLS 1.0 or 1.1 only, and the relay 1.2 and 1.3: switch TLS 1.2 on there"
_NO_COMMON: Final = "both sides have no version or cipher in common, or the server wants a client certificate"
_NO_TLS: Final = "what answers there speaks no TLS: check the port"

CERTIFICATES: Final = MappingProxyType(
    {
        7: "its signature is not its issuer's: another CA of the same name is trusted here",
        9: "check the clock of this host, then the certificate's dates",
        10: "renew the server's certificate or that of its CA, or correct the clock of this host",
        18: "let your CA issue a certificate for the server, or name this very certificate in ca_file",
        19: "name the CA of this chain in ca_file",
        20: "name the CA in ca_file, and let the server send its intermediate certificates too",
        21: "let the server send its intermediate certificates too, or name the CA in ca_file",
        23: "the CA has withdrawn it: give the server another one",
        24: "a certificate that may not sign others has signed it: see its basic constraints",
        25: "its chain is longer than a CA in it allows",
        26: "it is not for servers: give the server one with the extended key usage serverAuth",
        34: "it has a critical extension that OpenSSL does not know: let the CA issue it without that",
        47: "a CA of its chain may not sign for this name: see the CA's name constraints",
        48: "a CA of its chain may not sign for this name: see the CA's name constraints",
        62: "use a name in the URL that the certificate has, or let the CA add this one",
        64: "use a name in the URL that the certificate has, or let the CA add this address",
        66: "its key is too short for this host's OpenSSL: give the server one with RSA 2048 or longer",
        67: "a CA's key is too short for this host's OpenSSL: renew the CA with RSA 2048 or longer",
        68: "a certificate of the chain is signed with MD5 or SHA-1: let the CA sign with SHA-256",
        79: "a certificate that may not sign others has signed it: see its basic constraints",
    }
)
"""OpenSSL's X509_V_ERR number -> what to do; OpenSSL's own text says what is wrong."""
UNKNOWN_CA: Final = frozenset({18, 19, 20, 21})
"""The numbers that a CA mends which is trusted here."""
HANDSHAKES: Final = MappingProxyType(
    {
        "WRONG_VERSION_NUMBER": _NO_TLS,
        "HTTP_REQUEST": _NO_TLS,
        "RECORD_LAYER_FAILURE": _NO_TLS,
        "PACKET_LENGTH_TOO_LONG": _NO_TLS,
        "UNSUPPORTED_PROTOCOL": _OLD_TLS,
        "VERSION_TOO_LOW": _OLD_TLS,
        "TLSV1_ALERT_PROTOCOL_VERSION": _OLD_TLS,
        "NO_PROTOCOLS_AVAILABLE": "the OpenSSL configuration of this host forbids TLS 1.2 and 1.3",
        "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_COMMON,
        "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NO_COMMON,
        "NO_CIPHERS_AVAILABLE": "the OpenSSL configuration of this host leaves no cipher",
        "TLSV1_UNRECOGNIZED_NAME": "the server does not know the name in the URL",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate",
        "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": (
            "the server, or what inspects TLS before it, renegotiates in the old unsafe way [RFC 5746]: update it"
        ),
        "DH_KEY_TOO_SMALL": "the server's Diffie-Hellman group is too short: use ECDHE or 2,048 bits there",
        "EE_KEY_TOO_SMALL": CERTIFICATES[66],
        "CA_KEY_TOO_SMALL": CERTIFICATES[67],
        "CA_MD_TOO_WEAK": CERTIFICATES[68],
        "WRONG_SIGNATURE_TYPE": "the server signs with MD5 or SHA-1: switch TLS 1.2 with SHA-256 on there",
        "UNEXPECTED_EOF_WHILE_READING": "the server, or a firewall before it, closes during the handshake",
    }
)
"""OpenSSL's reason -> what it means, and what to do."""
ENDS: Final = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
"""Errors that the server has ended TLS; with some versions of Python, 3.11.2 for one, they have no reason."""


def client_context(ca_file: Path | None = None, *, ca_pem: bytes = b"", strict: bool = False) -> ssl.SSLContext:
    """Return a context that trusts the CAs of a file or a PEM text only; with neither, those of the system.

    It always verifies the whole chain and the name, over TLS 1.2 at least, alike with every version of Python. `strict`
    also checks the form of each certificate [RFC 5280], as newer software does. Raises OSError when the file cannot be
    read, its subclass ssl.SSLError when it holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Set whole, not added to: the defaults differ between versions of Python.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if ca_file is None and not ca_pem:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile=ca_file, cadata=ca_pem.decode("ascii") or None)
    return context


def remedy_of(error: BaseException) -> str:
    """Return what to do about a certificate, unless only the CA is unknown here; empty: nothing to add."""
    code = getattr(error, "verify_code", 0)
    return "" if code in UNKNOWN_CA else CERTIFICATES.get(code, "")


def in_words(error: ssl.SSLError) -> str:
    """Return what a failed handshake means and what to do, without names that change."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = CERTIFICATES.get(error.verify_code, "")
        said = f"certificate not trusted: {error.verify_message}"
    else:
        reason = error.reason or ("UNEXPECTED_EOF_WHILE_READING" if isinstance(error, ENDS) else type(error).__name__)
        remedy = HANDSHAKES.get(reason, "")
        said = f"no TLS: {reason}"
    return f"{said} ({remedy})" if remedy else said
