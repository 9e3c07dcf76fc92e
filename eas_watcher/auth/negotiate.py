"""Negotiate [RFC 4559] with Kerberos, as far as it needs no KDC: credential, names, header, and failures.

The relay authenticates to the KDC as itself and gets tickets in the users' names [MS-SFU 1.3: S4U2self, S4U2proxy]. So
a user's credential has no secret: an invitation that the operator signed gives the right to watch the mailbox.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from re import compile as pattern
from typing import Final
from urllib.parse import urlsplit

from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, Unreachable
from eas_watcher.reasons import Reason

SPNEGO: Final = bytes.fromhex("06062b0601050502")  # OBJECT IDENTIFIER 1.3.6.1.5.5.2 [RFC 4178 3]
KERBEROS: Final = bytes.fromhex("06092a864886f712010202")  # OBJECT IDENTIFIER 1.2.840.113554.1.2.2 [RFC 4121 1]
ACCOUNT: Final = pattern(r"[\w.'+&$~!-]{1,64}")
"""The name of an account, without characters that have a meaning in Kerberos names (/ @ \\) [RFC 4120 6.1, 6.2]."""
DOMAIN: Final = pattern(r"[A-Za-z0-9.-]{1,255}", flags=256)  # re.ASCII

# From krb5.h, base -1765328384 (ERROR_TABLE_BASE_krb5).
CLIENT_UNKNOWN: Final = -1765328378
SERVER_UNKNOWN: Final = -1765328377
POLICY: Final = -1765328372
BAD_OPTION: Final = -1765328371
CLIENT_REVOKED: Final = -1765328366
KEY_EXPIRED: Final = -1765328361
SERVICE_UNAVAILABLE: Final = -1765328355
CLOCK_SKEW: Final = -1765328347
REALM_UNKNOWN: Final = -1765328230
KDC_UNREACHABLE: Final = -1765328228
REALM_UNRESOLVED: Final = -1765328164
AWAY: Final = frozenset({REALM_UNKNOWN, KDC_UNREACHABLE, REALM_UNRESOLVED, SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class KerberosCredential:
    """The user of a mailbox, and the operator's signed invitation to watch it."""

    user: str
    invitation: str = field(repr=False)

    def authorization(self) -> None:
        """Return None: the header differs with each request."""
        return


@dataclass(frozen=True, slots=True)
class Principal:
    """A user as the KDC knows them."""

    name: str
    enterprise: bool = False
    """True if `name` is an address that the directory looks up (userPrincipalName) [RFC 6806 5]."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How login names become principals; from the settings."""

    realm: str
    domains: frozenset[str] = frozenset()
    """Mail domains, lower-case, whose addresses are accounts of the realm."""
    addresses: bool = False
    """True if users are looked up by address instead of by account name."""

    def principal(self, user: str) -> Principal:
        r"""Return the principal of a login `user`: `ann`, `ann@DOMAIN` or `DOMAIN\ann`.

        Raises UnusableCredential for another domain, and for a text that is not the name of an account: a guess could
        open the mailbox of another user.
        """
        windows_domain, backslash, name = user.rpartition("\\")
        account, at, domain = name.rpartition("@") if "@" in name else (name, "", "")
        if not ACCOUNT.fullmatch(account):
            raise UnusableCredential("is no name of an account that Kerberos knows")
        if at and (not DOMAIN.fullmatch(domain) or domain.lower() not in self.domains | {self.realm.lower()}):
            raise UnusableCredential("is an address of a domain that this server does not serve")
        # Active Directory names the Windows domain after the realm's first label, unless it is configured otherwise.
        if backslash and windows_domain.lower() != self.realm.partition(".")[0].lower():
            raise UnusableCredential("names a Windows domain that is not the realm's")
        if not self.addresses:
            return Principal(f"{account}@{self.realm}")
        if not at or backslash:
            raise UnusableCredential("is no address, and this server's users are looked up by address")
        return Principal(name, enterprise=True)


@dataclass(frozen=True, slots=True)
class Service:
    """The relay's own identity; without a principal, that of the last `kinit`, which cannot act for other users."""

    principal: str = ""
    keytab: Path | None = None
    target: str = ""
    """The mail server's principal, e.g. HTTP/mail.example.com@EXAMPLE.COM; empty: HTTP@HOST of each URL."""


class Step(Enum):
    """The ticket that was requested."""

    OWN = auto()
    """The relay's own, with its keytab."""
    USER = auto()
    """One to the relay in a user's name."""
    TARGET = auto()
    """One to the mail server."""


def target_of(url: str) -> str:
    """Return the name of the service at a URL for GSSAPI [RFC 4559 4.1: HTTP@host]."""
    return f"HTTP@{urlsplit(url).hostname or ''}"


def header(ticket: bytes) -> str:
    """Return the value of the Authorization header for a Kerberos token of GSSAPI [RFC 4559 4.2].

    The token is part of an initial SPNEGO message that offers Kerberos only [RFC 4178 4.2.1].
    """
    offer = _der(0x30, _der(0xA0, _der(0x30, KERBEROS)), _der(0xA2, _der(0x04, ticket)))
    return "Negotiate " + b64encode(_der(0x60, SPNEGO, _der(0xA0, offer))).decode("ascii")


def read_refusal(challenge: str) -> AccessDenied:
    """Return the error of a server that answers a ticket with 401; `challenge` is its WWW-Authenticate.

    The user can never mend it: there is no password that could be wrong, and the KDC, which knows who may log in,
    issued the ticket.
    """
    schemes = [part.strip().partition(" ") for part in challenge.split(",")]
    if not any(scheme.lower() == "negotiate" for scheme, _, _ in schemes):
        offers = "the server offers no Negotiate authentication (HTTP 401): enable Windows authentication on its path"
        return AccessDenied(offers, Reason.KERBEROS_NOT_OFFERED)
    if any(scheme.lower() == "negotiate" and token for scheme, _, token in schemes):
        further = "the server does not take the Kerberos ticket and wants to negotiate further (HTTP 401)"
        return AccessDenied(further, Reason.KERBEROS_TICKET)
    refuses = "the server refuses the Kerberos ticket (HTTP 401): see which account holds its service name"
    return AccessDenied(refuses, Reason.KERBEROS_TICKET)


def read_failure(step: Step, code: int, text: str, target: str = "") -> EasError:
    """Return the error for a ticket that was not issued; `code` and `text` are those of libkrb5.

    CredentialVoid ends the watch, because there is no such user. AccessDenied: an operator must act. Unreachable: a
    retry may succeed. None of them means that the mail server was reached.
    """
    error: EasError
    match step, code:
        case _, _ if code in AWAY:
            error = Unreachable(f"no Kerberos ticket, for no KDC answers ({text})", reached=False)
        case _, _ if code == CLOCK_SKEW:
            error = AccessDenied("the clock of this host differs too much from the KDC's", Reason.KERBEROS_CLOCK)
        case Step.OWN, _:
            error = AccessDenied(f"the KDC does not take the relay's own key ({text})", Reason.KERBEROS_KEYTAB)
        case Step.USER, _ if code == CLIENT_UNKNOWN:
            error = CredentialVoid("the directory has no such user", Reason.KERBEROS_USER_UNKNOWN)
        case Step.USER, _ if code in {CLIENT_REVOKED, KEY_EXPIRED, POLICY}:
            # Samba answers POLICY for disabled accounts [observed: Samba 4.17, 2026-11].
            error = AccessDenied("the user's account is disabled, expired or locked", Reason.KERBEROS_USER_LOCKED)
        case Step.TARGET, _ if code == SERVER_UNKNOWN:
            error = AccessDenied(f"no account of the directory has the service name {target}", Reason.KERBEROS_TARGET)
        case _, _ if code in {POLICY, BAD_OPTION}:
            subject = target or "the mail server"
            wrong = f"the KDC does not let the relay act for this user at {subject} ({text})"
            error = AccessDenied(wrong, Reason.KERBEROS_DELEGATION)
        case _:
            error = AccessDenied(f"the KDC gives no ticket for the user ({text})", Reason.KERBEROS_REFUSED)
    return error


def _der(tag: int, *parts: bytes) -> bytes:
    """Return one value in DER [X.690 8.1, 10.1]: tag, length, content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 -- the short form of lengths
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
