import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential
from relay.security.credentials import StoredCredential, alike, read, write

ANN = BasicCredential("ann", "correct horse")
GRANT = OAuthCredential("ann", "first-token", "app-on-phones")
CODE = OAuthCredential("ann", "", "app", code=AuthorizationCode("one-code", "verifier" * 6, "https://app.example.com/"))
CERTIFICATE = CertificateCredential("ann", "chain", "key")
INVITED = KerberosCredential("ann", "invitation")


@pytest.mark.parametrize("credential", [ANN, GRANT, GRANT.rotated("second"), CODE, CERTIFICATE, INVITED])
def test_every_kind_is_read_as_it_was_written(credential: StoredCredential) -> None:
    assert read(write(credential)) == credential


def test_a_basic_credential_sealed_by_an_older_version_is_read() -> None:
    assert read(b'{"kind": "basic", "user": "ann", "password": "correct horse"}') == ANN


@pytest.mark.parametrize("text", [b"", b"[]", b'{"kind": "magic"}', b'{"kind": "basic", "user": "ann"}'])
def test_a_text_that_is_no_credential_is_not_read(text: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        read(text)


def test_a_rotated_grant_is_still_the_same_grant() -> None:
    rotated = GRANT.rotated("second").rotated("third")

    assert alike(GRANT, rotated)
    assert rotated.refresh_token == "third"
    assert not alike(OAuthCredential("ann", "third", "app-on-phones"), rotated)
    assert alike(CODE, CODE.rotated("first"))


@pytest.mark.parametrize(
    "other",
    [
        BasicCredential("ann", "correct horsf"),
        BasicCredential("ben", "correct horse"),
        GRANT,
        CODE,
        CERTIFICATE,
        INVITED,
    ],
)
def test_credentials_are_alike_only_if_user_and_secret_are_the_same(other: StoredCredential) -> None:
    assert alike(ANN, BasicCredential("ann", "correct horse"))
    assert not alike(ANN, other)


def test_no_credential_shows_its_secret() -> None:
    shown = repr([ANN, GRANT, GRANT.rotated("second"), CODE, CERTIFICATE, INVITED])
    secrets = (
        "correct horse",
        "first-token",
        "second",
        "one-code",
        "verifierverifier",
        "chain",
        "'key'",
        "'invitation'",
    )

    assert not [secret for secret in secrets if secret in shown]
