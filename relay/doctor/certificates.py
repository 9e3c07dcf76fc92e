"""What a certificate, or a failed handshake, means for phones and for the relay; without I/O."""

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from eas_watcher.transport.tls import CERTIFICATES, HANDSHAKES, UNKNOWN_CA
from relay.doctor.finding import Finding, Subject
from relay.domain.counted import counted

E = TypeVar("E", bound=x509.ExtensionType)

EXPIRY: Final = timedelta(days=14)
"""Time left below which a certificate should be renewed; as in health."""
LONGEST: Final = timedelta(days=825)
"""iOS takes no server certificate that is valid for longer [Apple: Requirements for trusted certificates in iOS 13]."""
SHORTEST_RSA: Final = 2048  # bits [same]
SHOWN_NAMES: Final = 4

NO_NAMES: Final = "phones look for names in the subject alternative names only: let the CA issue it with them"
NOT_SERVER: Final = "let the CA issue it with the extended key usage serverAuth"
WEAK: Final = "phones refuse it: let the CA issue one with RSA 2048 or longer, or ECDSA, and SHA-256"
TOO_LONG: Final = "iPhones refuse it: let the CA issue one for at most 825 days"
ORDER: Final = "write the server's certificate first, then the one that signed it, and so on"
INTERMEDIATE: Final = (
    "append the intermediate certificates that the CA gave with it, unless its issuer is the root that phones trust"
)
SELF_SIGNED: Final = "phones that do not trust this very certificate refuse it: let a CA that they trust issue one"
OTHER_HOST: Final = (
    "browsers refuse it there, unless a proxy shows them another: let the CA issue it with this name, or correct "
    "webapp.origin"
)
RENEW_CA: Final = "the relay accepts it; have the CA renewed with these extensions before newer software refuses it"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a server showed in a handshake that succeeded."""

    version: str
    """In OpenSSL's spelling, e.g. "TLSv1.3"."""
    valid_until: datetime | None
    http2: bool = False
    flaw: str = ""
    """Why newer software does not trust the certificate or its CA, in OpenSSL's words; empty: it does."""


def judge_shown(subject: Subject, shown: Shown, now: datetime, seconds: float) -> Finding:
    """Return the finding about a certificate that is trusted."""
    spoken = f"{shown.version}, {'HTTP/2' if shown.http2 else 'HTTP/1.1'}"
    if shown.valid_until is None:
        return subject.good(spoken, seconds)
    text = f"{spoken}, certificate trusted and valid until {shown.valid_until:%Y-%m-%d}"
    if shown.valid_until - now <= EXPIRY:
        return subject.note(f"{text}: it expires soon", "renew the server's certificate")
    if shown.flaw:
        return subject.note(f"{text}; newer software refuses it: {shown.flaw}", RENEW_CA)
    return subject.good(text, seconds)


def judge_failure(subject: Subject, error: ssl.SSLError, setting: str, met: str) -> Finding:
    """Return the finding about a handshake that failed.

    `setting` names the trusted CAs; `met` describes the certificate that was shown, empty if none was.
    """
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = error.reason or type(error).__name__
        remedy = HANDSHAKES.get(reason, "check host and port, and what stands on the way there")
        return subject.bad(f"no TLS: {reason}", remedy)
    text = f"certificate not trusted: {error.verify_message}{f'; shown was {met}' if met else ''}"
    remedy = CERTIFICATES.get(error.verify_code, "renew the certificate")
    if error.verify_code in UNKNOWN_CA:
        remedy = (
            f"{remedy} ({setting}); if a proxy that opens TLS is the issuer, trust its CA there or let it exempt this"
        )
    return subject.bad(text, remedy)


def describe(der: bytes) -> str:
    """Return whose certificate this is, who issued it, and until when; empty if it cannot be read."""
    try:
        read = x509.load_der_x509_certificate(der)
        return f"{_name(read.subject)}, issued by {_name(read.issuer)}, valid until {read.not_valid_after_utc:%Y-%m-%d}"
    except ValueError:
        return ""


def judge_own(subject: Subject, pem: bytes, roots: frozenset[str], now: datetime, browsed: str = "") -> list[Finding]:
    """Return the findings about the certificate that the relay shows to phones.

    `roots` has the common names of the CAs that this host trusts; `browsed` is the host of the web app's address, empty
    if it has none. Its key, and whether it is valid now, are checked with the settings.
    """
    try:
        chain = x509.load_pem_x509_certificates(pem)
        faults = [*_faults(subject, chain[0]), *_chain(subject, chain, roots)]
        names = _names(chain[0])
    except ValueError:
        return [subject.bad("a certificate in the file cannot be read", "let the CA issue it again")]
    until = chain[0].not_valid_after_utc
    if until - now <= EXPIRY:
        faults.append(subject.note(f"expires on {until:%Y-%m-%d}", "renew it"))
    if names and browsed and not any(_covers(name, browsed) for name in names):
        faults.append(subject.note(f"does not name {browsed}, the host of webapp.origin", OTHER_HOST))
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    shown = ", ".join(names[:SHOWN_NAMES]) + more
    return faults or [subject.good(f"for {shown}, valid until {until:%Y-%m-%d}, {counted(len(chain), 'certificate')}")]


def _faults(subject: Subject, leaf: x509.Certificate) -> Iterator[Finding]:
    """Yield why phones refuse a certificate whatever its issuer is."""
    if not _names(leaf):
        yield subject.bad("has no subject alternative names", NO_NAMES)
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        yield subject.bad("is not for servers", NOT_SERVER)
    key = leaf.public_key()
    digest = leaf.signature_hash_algorithm
    if (isinstance(key, RSAPublicKey) and key.key_size < SHORTEST_RSA) or (digest and digest.name in {"md5", "sha1"}):
        yield subject.bad("has a key or a signature that is too weak", WEAK)
    days = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days
    if days > LONGEST.days:
        yield subject.note(f"is valid for {days} days", TOO_LONG)


def _chain(subject: Subject, chain: Sequence[x509.Certificate], roots: frozenset[str]) -> Iterator[Finding]:
    """Yield what is wrong with the certificates that follow the server's own."""
    for signed, signer in pairwise(chain):
        try:
            signed.verify_directly_issued_by(signer)
        except (ValueError, TypeError, InvalidSignature):
            yield subject.bad(
                f"its chain is broken: {_name(signer.subject)} did not sign {_name(signed.subject)}", ORDER
            )
            return
    leaf, last = chain[0], chain[-1]
    if leaf.issuer == leaf.subject:
        yield subject.note("is signed by itself", SELF_SIGNED)
    elif len(chain) == 1 and _name(last.issuer) not in roots and _extension(leaf, x509.AuthorityInformationAccess):
        yield subject.note(f"comes without the certificate of its issuer {_name(last.issuer)}", INTERMEDIATE)


def _names(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _covers(name: str, host: str) -> bool:
    """Return True if a name of a certificate means a host, which is in lower case [RFC 6125 6.4.3]."""
    first, _, rest = name.lower().partition(".")
    return name.lower() == host or (first == "*" and host.partition(".")[2] == rest)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(name: x509.Name) -> str:
    """Return the common name in a name, or all of it."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "nobody"
