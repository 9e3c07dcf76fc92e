from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from eas_watcher.auth.credential import UnusableCredential
from relay.cli.main import cli
from relay.security.invitations import AUDIENCE, Invitations, generate, invite, load_private
from relay.security.sealing import generate as generate_sealing_keys

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(days=7)
KEY = Ed25519PrivateKey.generate()
INVITATIONS = Invitations([KEY.public_key()])
ANN = invite(KEY, "main", "ann@example.com", UNTIL)


def test_an_invitation_is_valid_until_it_expires() -> None:
    INVITATIONS.check(ANN, "main", "ann@example.com", NOW)
    INVITATIONS.check(ANN, "main", "ann@example.com", UNTIL - timedelta(seconds=1))

    with pytest.raises(UnusableCredential, match="expired"):
        INVITATIONS.check(ANN, "main", "ann@example.com", UNTIL)


def test_the_expiry_of_an_invitation_that_was_accepted_in_time_does_not_matter() -> None:
    expired = invite(KEY, "main", "ann@example.com", NOW - timedelta(days=400))

    INVITATIONS.check(expired, "main", "ann@example.com", None)


@pytest.mark.parametrize(("server", "user"), [("main", "ben@example.com"), ("branch", "ann@example.com"), ("main", "")])
def test_an_invitation_is_for_one_user_at_one_server(server: str, user: str) -> None:
    with pytest.raises(UnusableCredential, match="another user or server"):
        INVITATIONS.check(ANN, server, user, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b.c",
        ANN[:-4] + "AAAA",
        ANN + " " * 2048,
        invite(Ed25519PrivateKey.generate(), "main", "ann@example.com", UNTIL),
        jwt.encode({"aud": AUDIENCE, "srv": "main", "sub": "ann@example.com", "exp": 2**33}, "", algorithm="none"),
        jwt.encode({"aud": "another", "srv": "main", "sub": "ann@example.com", "exp": 2**33}, KEY, algorithm="EdDSA"),
    ],
)
def test_a_text_that_the_operator_did_not_sign_for_the_relay_is_refused(text: str) -> None:
    with pytest.raises(UnusableCredential, match="no invitation"):
        INVITATIONS.check(text, "main", "ann@example.com", NOW)


@pytest.mark.parametrize("exp", [{}, {"exp": True}, {"exp": "soon"}, {"exp": 1.5}])
def test_an_invitation_without_an_expiry_is_refused(exp: dict[str, object]) -> None:
    text = jwt.encode({"aud": AUDIENCE, "srv": "main", "sub": "ann", **exp}, KEY, algorithm="EdDSA")

    with pytest.raises(UnusableCredential):
        INVITATIONS.check(text, "main", "ann", None)


def test_two_keys_are_accepted_while_the_operator_replaces_one() -> None:
    first, second = generate(), generate()
    both = Invitations.load(first[1] + second[1])

    for private, _ in (first, second):
        both.check(invite(load_private(private), "main", "ann", UNTIL), "main", "ann", NOW)


@pytest.mark.parametrize("pem", [b"", b"no PEM", generate()[0], generate_sealing_keys()[1]])
def test_a_file_without_a_public_key_for_invitations_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match="Ed25519"):
        Invitations.load(pem)


def test_an_operator_makes_keys_and_invites_users(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = run(cli, ["invitations", "keygen", "--folder", str(tmp_path)])
    key = tmp_path / "invitation-private.pem"
    arguments = ["invitations", "issue", "--key", str(key), "--server", "main"]
    issued = run(cli, [*arguments, "ann@EXAMPLE.com", "EXAMPLE\\ben"])

    assert (made.exit_code, issued.exit_code) == (0, 0)
    assert key.stat().st_mode & 0o777 == 0o600
    invitations = Invitations.load((tmp_path / "invitation-public.pem").read_bytes())
    lines = [line.split("\t") for line in issued.stdout.splitlines()]
    assert [user for user, _, _ in lines] == ["ann@example.com", "example\\ben"]
    for user, invitation, until in lines:
        invitations.check(invitation, "main", user, datetime.fromisoformat(until) - timedelta(days=1))


def test_keys_are_never_overwritten_and_faults_end_with_a_status(tmp_path: Path) -> None:
    run = CliRunner().invoke
    run(cli, ["invitations", "keygen", "--folder", str(tmp_path)])
    key, public = tmp_path / "invitation-private.pem", tmp_path / "invitation-public.pem"
    before = key.read_bytes()

    assert run(cli, ["invitations", "keygen", "--folder", str(tmp_path)]).exit_code == 1
    assert key.read_bytes() == before
    for wrong in (["--key", str(public), "ann"], ["--key", str(tmp_path / "none"), "ann"], ["--key", str(key), "a:b"]):
        assert run(cli, ["invitations", "issue", "--server", "main", *wrong]).exit_code == 2
