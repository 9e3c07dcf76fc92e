"""Credentials of every kind as JSON: the plaintext that is sealed."""

import hmac
import json
from enum import StrEnum
from typing import TypeAlias

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential

StoredCredential: TypeAlias = BasicCredential | OAuthCredential | CertificateCredential | KerberosCredential


class CredentialKind(StrEnum):
    """How a user authenticates at the mail server."""

    BASIC = "basic"
    OAUTH = "oauth"
    CERTIFICATE = "certificate"
    KERBEROS = "kerberos"


def kind_of(credential: StoredCredential) -> CredentialKind:
    """Return the kind of a credential."""
    match credential:
        case BasicCredential():
            return CredentialKind.BASIC
        case OAuthCredential():
            return CredentialKind.OAUTH
        case CertificateCredential():
            return CredentialKind.CERTIFICATE
        case KerberosCredential():
            return CredentialKind.KERBEROS


def write(credential: StoredCredential) -> bytes:
    """Return a credential as JSON."""
    match credential:
        case BasicCredential(user, password):
            fields = {"user": user, "password": password}
        case OAuthCredential(user, _, client_id, _, AuthorizationCode(code, verifier, redirect_uri)):
            fields = {"user": user, "client_id": client_id, "code": code}
            fields |= {"code_verifier": verifier, "redirect_uri": redirect_uri}
        case OAuthCredential(user, refresh_token, client_id, origin):
            fields = {"user": user, "refresh_token": refresh_token, "client_id": client_id, "origin": origin}
        case CertificateCredential(user, chain, key):
            fields = {"user": user, "chain": chain, "key": key}
        case KerberosCredential(user, invitation):
            fields = {"user": user, "invitation": invitation}
    return json.dumps({"kind": kind_of(credential).value, **fields}).encode()


def read(text: bytes) -> StoredCredential:
    """Return the credential that `write` wrote; raises ValueError, KeyError or UnusableCredential."""
    fields = json.loads(text)
    match CredentialKind(fields["kind"]):
        case CredentialKind.BASIC:
            return BasicCredential(fields["user"], fields["password"])
        case CredentialKind.OAUTH if "code" in fields:
            code = AuthorizationCode(fields["code"], fields["code_verifier"], fields["redirect_uri"])
            return OAuthCredential(fields["user"], "", fields["client_id"], code=code)
        case CredentialKind.OAUTH:
            return OAuthCredential(fields["user"], fields["refresh_token"], fields["client_id"], fields["origin"])
        case CredentialKind.CERTIFICATE:
            return CertificateCredential(fields["user"], fields["chain"], fields["key"])
        case CredentialKind.KERBEROS:
            return KerberosCredential(fields["user"], fields["invitation"])


def alike(left: StoredCredential, right: StoredCredential) -> bool:
    """Return whether two credentials are the same, in constant time; a rotated refresh token is the same grant."""
    return hmac.compare_digest(_comparable(left), _comparable(right))


def _comparable(credential: StoredCredential) -> bytes:
    """Return a credential as JSON, without what changes when its refresh token is rotated."""
    if isinstance(credential, OAuthCredential):
        return json.dumps([credential.user, credential.client_id, credential.grant]).encode()
    return write(credential)
