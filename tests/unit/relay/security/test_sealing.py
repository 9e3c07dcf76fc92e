from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.names import MailboxId
from relay.domain.errors import SealBroken
from relay.security.credentials import StoredCredential
from relay.security.sealing import (
    BLOCK,
    SealingPrivateKey,
    SealingPublicKey,
    derive_account,
    derive_device_id,
    generate,
    is_old,
)
from tests.fakes.seals import old_seal


@dataclass(frozen=True)
class Row:
    id: MailboxId
    server: str = "main"
    user: str = "ann"


ANN = Row(MailboxId("00112233445566ff"))
CREDENTIAL = BasicCredential("ann", "canary-päss")
EVERY_KIND = [
    CREDENTIAL,
    OAuthCredential("ann", "canary-refresh", "app", "canary-refresh"),
    OAuthCredential("ann", "", "app", code=AuthorizationCode("canary-code", "canary-" * 7, "app:/canary")),
    CertificateCredential("ann", "canary-chain", "canary-key"),
    KerberosCredential("ann", "canary-invitation"),
]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SealingPrivateKey, SealingPublicKey]:
    private, public = generate()
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(public)
    return SealingPrivateKey.load(tmp_path / "private.pem"), SealingPublicKey.load(tmp_path / "public.pem")


@pytest.mark.parametrize("credential", EVERY_KIND)
def test_the_private_key_opens_what_the_public_key_sealed(
    keys: tuple[SealingPrivateKey, SealingPublicKey], credential: StoredCredential
) -> None:
    private, public = keys

    assert private.open(ANN, public.seal(ANN, credential)) == credential


def test_a_seal_hides_the_password_and_no_two_seals_are_equal(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    _, public = keys
    sealed = public.seal(ANN, CREDENTIAL)

    assert b"canary" not in sealed
    assert sealed != public.seal(ANN, CREDENTIAL)


@pytest.mark.parametrize("credential", EVERY_KIND)
@pytest.mark.parametrize(
    "row",
    [replace(ANN, id=MailboxId("ffffffffffffffff")), replace(ANN, server="branch"), replace(ANN, user="ben")],
    ids=["mailbox", "server", "user"],
)
def test_a_seal_does_not_open_for_another_mailbox_server_or_user(
    keys: tuple[SealingPrivateKey, SealingPublicKey], row: Row, credential: StoredCredential
) -> None:
    private, public = keys

    with pytest.raises(SealBroken, match="another mailbox, server or user"):
        private.open(row, public.seal(ANN, credential))


def test_rows_whose_texts_only_join_alike_are_different_owners(
    keys: tuple[SealingPrivateKey, SealingPublicKey],
) -> None:
    private, public = keys

    with pytest.raises(SealBroken):
        private.open(replace(ANN, server="maina", user="nn"), public.seal(ANN, CREDENTIAL))


@pytest.mark.parametrize("credential", EVERY_KIND)
def test_the_user_inside_is_the_user_of_the_row(
    keys: tuple[SealingPrivateKey, SealingPublicKey], credential: StoredCredential
) -> None:
    """The public key is no secret: somebody may seal ann's credential for ben's row."""
    private, public = keys
    ben = replace(ANN, user="ben")

    with pytest.raises(SealBroken, match="another mailbox, server or user"):
        private.open(ben, public.seal(ben, credential))


def test_the_length_of_a_seal_does_not_tell_the_length_of_the_password(
    keys: tuple[SealingPrivateKey, SealingPublicKey],
) -> None:
    _, public = keys

    lengths = {len(public.seal(ANN, BasicCredential("ann", "x" * length))) for length in range(1, 401)}
    longer = len(public.seal(ANN, BasicCredential("ann", "x" * 600)))

    assert len(lengths) == 1
    assert longer == lengths.pop() + BLOCK


def test_changed_bytes_and_unknown_formats_do_not_open(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    private, public = keys
    sealed = public.seal(ANN, CREDENTIAL)

    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for broken in (b"", b"\x02", b"\x03" + sealed[1:], b"\x01" + sealed[9:], sealed[:9], sealed[:-1], changed):
        with pytest.raises(SealBroken):
            private.open(ANN, broken)


def test_a_former_key_opens_and_its_seals_are_made_anew_for_the_present_key(
    keys: tuple[SealingPrivateKey, SealingPublicKey], tmp_path: Path
) -> None:
    _, former_public = keys
    present = _written(tmp_path)
    both = SealingPrivateKey.load(present, tmp_path / "private.pem")
    alone = SealingPrivateKey.load(present)
    sealed = former_public.seal(ANN, CREDENTIAL)

    with pytest.raises(SealBroken, match="does not open with this sealing key"):
        alone.open(ANN, sealed)
    assert both.open(ANN, sealed) == CREDENTIAL
    renewed = both.renewed(ANN, sealed)
    assert renewed is not None
    assert alone.open(ANN, renewed) == CREDENTIAL
    assert both.renewed(ANN, renewed) is None
    assert both.upgraded(ANN, renewed) is None
    assert both.names == {former_public.name, alone.public_key().name}


def test_a_credential_that_follows_another_is_sealed_for_the_same_key_while_that_is_here(
    keys: tuple[SealingPrivateKey, SealingPublicKey], tmp_path: Path
) -> None:
    """The other watch processes may not have the present key yet."""
    _, former_public = keys
    present = _written(tmp_path)
    both = SealingPrivateKey.load(present, tmp_path / "private.pem")
    alone = SealingPrivateKey.load(present)
    before = former_public.seal(ANN, CREDENTIAL)

    follows, without = both.seal_again(ANN, CREDENTIAL, before), alone.seal_again(ANN, CREDENTIAL, before)

    assert follows.startswith(former_public.head)
    assert without.startswith(alone.public_key().head)
    assert alone.open(ANN, without) == CREDENTIAL


def test_a_seal_of_the_old_form_is_made_anew_and_never_opened(
    keys: tuple[SealingPrivateKey, SealingPublicKey],
) -> None:
    private, public = keys
    sealed = old_seal(public, ANN, CREDENTIAL)

    assert is_old(sealed)
    with pytest.raises(SealBroken, match="older version"):
        private.open(ANN, sealed)
    assert private.renewed(ANN, sealed) is None
    renewed = private.upgraded(ANN, sealed)
    assert renewed is not None
    assert private.open(ANN, renewed) == CREDENTIAL


def test_a_seal_of_the_old_form_is_not_made_anew_for_another_mailbox_or_user(
    keys: tuple[SealingPrivateKey, SealingPublicKey],
) -> None:
    private, public = keys
    sealed = old_seal(public, ANN, CREDENTIAL)

    for row in (replace(ANN, id=MailboxId("ffffffffffffffff")), replace(ANN, user="ben")):
        assert private.upgraded(row, sealed) is None


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    private, public = generate()
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(public)

    with pytest.raises(ValueError, match=r"PEM|key"):
        SealingPrivateKey.load(tmp_path / "public.pem")
    with pytest.raises(ValueError, match=r"PEM|key"):
        SealingPublicKey.load(tmp_path / "private.pem")


def test_device_ids_are_stable_and_differ_by_user_server_and_installation(
    keys: tuple[SealingPrivateKey, SealingPublicKey], tmp_path: Path
) -> None:
    _, public = keys
    other = SealingPrivateKey.load(_written(tmp_path)).public_key()

    ids = {
        derive_device_id(public, "main", "ann"),
        derive_device_id(public, "main", "ann"),
        derive_device_id(public, "main", "ben"),
        derive_device_id(public, "branch", "ann"),
        derive_device_id(other, "main", "ann"),
    }

    assert len(ids) == 4
    assert all(len(id_) == 32 and id_.isalnum() for id_ in ids)


def test_a_user_has_one_hash_in_all_spellings_and_another_with_each_key(
    keys: tuple[SealingPrivateKey, SealingPublicKey], tmp_path: Path
) -> None:
    _, public = keys
    other = SealingPrivateKey.load(_written(tmp_path)).public_key()

    ann = derive_account(public, "ann@example.com")

    assert {derive_account(public, spelling) for spelling in ("ANN@example.com", "EXAMPLE\\ann", "ann")} == {ann}
    assert ann not in {derive_account(other, "ann@example.com"), derive_account(public, "ben@example.com")}
    assert len(ann) == 32
    assert "ann" not in ann


def test_two_keys_have_two_ids(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    private, public = keys
    other = SealingPrivateKey(X25519PrivateKey.generate())

    assert private.ids == {public.id}
    assert other.ids.isdisjoint(private.ids)


def _written(tmp_path: Path) -> Path:
    path = tmp_path / "other.pem"
    path.write_bytes(generate()[0])
    return path
