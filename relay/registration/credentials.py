"""A login that an app sends becomes a credential, of the kinds that the mailbox's server accepts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.auth.negotiate import KerberosCredential
from relay.domain.clock import Clock
from relay.registration.errors import InvalidRequest, UnsupportedCredential
from relay.registration.requests import (
    BasicLogin,
    CertificateLogin,
    KerberosLogin,
    Login,
    OAuthCodeLogin,
    OAuthLogin,
)
from relay.security.credentials import CredentialKind, StoredCredential
from relay.security.invitations import InvitedUsers

DEFAULT: Final = frozenset({CredentialKind.BASIC})


class CertificateReader(Protocol):
    """Reads certificates that unknown clients send."""

    async def read(self, user: str, login: CertificateLogin) -> CertificateCredential:
        """Return the certificate with its key, in bounded time; raise UnusableCredential."""


class Logins:
    """Makes credentials of logins."""

    def __init__(
        self,
        kinds: Mapping[str, frozenset[CredentialKind]],
        certificates: CertificateReader,
        clock: Clock,
        guests: Mapping[str, InvitedUsers] = MappingProxyType({}),
        redirects: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Set up with the kinds that each server accepts, by its name; other servers accept Basic.

        `guests` are the users that the operator of each server invites, `redirects` the URIs to which the authorization
        endpoint of each server may have sent users with a code.
        """
        self._kinds = kinds
        self._certificates = certificates
        self._clock = clock
        self._guests = guests
        self._redirects = redirects

    async def credential(self, server: str, user: str, login: Login) -> StoredCredential:
        """Return the credential of a login; raises UnsupportedCredential, InvalidRequest if no server can accept it."""
        kind, field = _describe(login)
        if kind not in self._kinds.get(server, DEFAULT):
            raise UnsupportedCredential(
                f"the server of this mailbox takes no credentials of the kind {kind.value!r}", "credential.kind"
            )
        try:
            match login:
                case BasicLogin(password):
                    return BasicCredential(user, password)
                case OAuthLogin(refresh_token, client_id):
                    return OAuthCredential(user, refresh_token, client_id)
                case OAuthCodeLogin(code, verifier, redirect_uri, client_id):
                    self._check_redirect(server, redirect_uri)
                    return OAuthCredential(user, "", client_id, code=AuthorizationCode(code, verifier, redirect_uri))
                case CertificateLogin():
                    return await self._certificates.read(user, login)
                case KerberosLogin(invitation):
                    return self._invited(server, KerberosCredential(user, invitation))
        except UnusableCredential as error:
            raise InvalidRequest([(f"credential.{field}", str(error))]) from error

    def _check_redirect(self, server: str, redirect_uri: str) -> None:
        """Raise InvalidRequest for a URI to which no user was to be sent with a code of this server."""
        if redirect_uri not in self._redirects.get(server, frozenset()):
            wrong = "is none that the relay takes codes for: ask the administrator to list it in oauth_redirect_uris"
            raise InvalidRequest([("credential.redirect_uri", wrong)])

    def _invited(self, server: str, credential: KerberosCredential) -> KerberosCredential:
        """Return the credential; raise InvalidRequest if its invitation cannot be valid. The watch role checks too."""
        guests = self._guests[server]
        guests.check(credential, self._clock())
        try:
            guests.principal(credential.user)
        except UnusableCredential as error:
            raise InvalidRequest([("credential.user", str(error))]) from error
        return credential


def _describe(login: Login) -> tuple[CredentialKind, str]:
    """Return the kind of a login and the field that has its secret."""
    match login:
        case BasicLogin():
            return CredentialKind.BASIC, "password"
        case OAuthLogin():
            return CredentialKind.OAUTH, "refresh_token"
        case OAuthCodeLogin():
            return CredentialKind.OAUTH, "code"
        case CertificateLogin():
            return CredentialKind.CERTIFICATE, "pkcs12" if login.pkcs12 else "pem"
        case KerberosLogin():
            return CredentialKind.KERBEROS, "invitation"
