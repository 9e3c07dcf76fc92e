"""Own how credentials of every kind are written as JSON before they are sealed, and read after."""

import hmac
import json
from enum import StrEnum
from typing import TypeAlias

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential

StoredCredential: TypeAlias = BasicCredential | OAuthCredential | CertificateCredential | KerberosCredential


class CredentialKind(StrEnum):
    """Name how a user proves who they are."""

    BASIC = "basic"
    OAUTH = "oauth"
    CERTIFICATE = "certificate"
    KERBEROS = "kerberos"


def kind_of(credential: StoredCredential) -> CredentialKind:
    """Name the kind of a credential."""
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
    """Write a credential as JSON."""
    match credential:
        case BasicCredential(user, password):
            fields = {"user": user, "password": password}
        case OAuthCredential(user, refresh_token, client_id, origin):
            fields = {"user": user, "refresh_token": refresh_token, "client_id": client_id, "origin": origin}
        case CertificateCredential(user, chain, key):
            fields = {"user": user, "chain": chain, "key": key}
        case KerberosCredential(user, invitation):
            fields = {"user": user, "invitation": invitation}
    return json.dumps({"kind": kind_of(credential).value, **fields}).encode()


def read(text: bytes) -> StoredCredential:
    """Read what `write` wrote; raises ValueError, KeyError or UnusableCredential for anything else."""
    fields = json.loads(text)
    match CredentialKind(fields["kind"]):
        case CredentialKind.BASIC:
            return BasicCredential(fields["user"], fields["password"])
        case CredentialKind.OAUTH:
            return OAuthCredential(fields["user"], fields["refresh_token"], fields["client_id"], fields["origin"])
        case CredentialKind.CERTIFICATE:
            return CertificateCredential(fields["user"], fields["chain"], fields["key"])
        case CredentialKind.KERBEROS:
            return KerberosCredential(fields["user"], fields["invitation"])


def alike(left: StoredCredential, right: StoredCredential) -> bool:
    """Tell, in constant time, whether two credentials prove the same; a rotated grant is the grant it was."""
    return hmac.compare_digest(_essence(left), _essence(right))


def _essence(credential: StoredCredential) -> bytes:
    if isinstance(credential, OAuthCredential):
        return json.dumps([credential.user, credential.client_id, credential.grant]).encode()
    return write(credential)
