from pathlib import Path

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.names import MailboxId
from relay.domain.errors import SealBroken
from relay.security.sealing import SealingPrivateKey, SealingPublicKey, derive_device_id, generate

MAILBOX = MailboxId("00112233445566ff")
CREDENTIAL = BasicCredential("ann", "canary-päss")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SealingPrivateKey, SealingPublicKey]:
    private, public = generate()
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(public)
    return SealingPrivateKey.load(tmp_path / "private.pem"), SealingPublicKey.load(tmp_path / "public.pem")


def test_the_private_key_opens_what_the_public_key_sealed(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    private, public = keys

    assert private.open(MAILBOX, public.seal(MAILBOX, CREDENTIAL)) == CREDENTIAL


def test_a_seal_hides_the_password_and_no_two_seals_are_equal(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    _, public = keys
    sealed = public.seal(MAILBOX, CREDENTIAL)

    assert b"canary" not in sealed
    assert sealed != public.seal(MAILBOX, CREDENTIAL)


def test_a_seal_does_not_open_for_another_mailbox(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    private, public = keys

    with pytest.raises(SealBroken):
        private.open(MailboxId("ffffffffffffffff"), public.seal(MAILBOX, CREDENTIAL))


def test_changed_bytes_and_unknown_formats_do_not_open(keys: tuple[SealingPrivateKey, SealingPublicKey]) -> None:
    private, public = keys
    sealed = public.seal(MAILBOX, CREDENTIAL)

    for broken in (b"", b"\x02" + sealed[1:], sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(SealBroken):
            private.open(MAILBOX, broken)


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


def _written(tmp_path: Path) -> Path:
    path = tmp_path / "other.pem"
    path.write_bytes(generate()[0])
    return path
