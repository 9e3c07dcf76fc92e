"""Sealing keys come from files, from systemd's credentials and from variables; all that is wrong is said at once."""

import base64
import shutil
from pathlib import Path

import pytest

from relay.domain.model import Role
from relay.domain.sealing_keys import KeyOrigin
from relay.security.sealing import SealingPrivateKey, SealingPublicKey, generate
from relay.settings import Settings, key_making, load
from relay.settings.changes import compare
from relay.settings.sealing import name_beside
from tests.installation import Installation

PRIVATE, PUBLIC = generate()
NAME = SealingPublicKey.read(PUBLIC).name
ANOTHER, _ = generate()


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def sealing(site: Installation, *lines: str) -> None:
    site.replace("[relay]", "\n".join(["[sealing]", *lines, "[relay]"]))


def names(settings: Settings) -> set[str]:
    assert settings.sealing.private is not None
    return set(settings.sealing.private.names)


def present(settings: Settings) -> str:
    assert settings.sealing.public is not None
    return settings.sealing.public.name


def test_keys_beside_the_present_one_open_too(site: Installation) -> None:
    before = site.load()
    site.write(f"state/sealing-private-{NAME}.pem", PRIVATE)
    site.write("state/sealing-private-copy.pem", ANOTHER)  # no id: not a key of the relay
    site.write(f"state/sealing-private-{NAME}.pem.retired", ANOTHER)

    found = site.load()

    assert names(found) == {present(before), NAME}
    assert present(found) == present(before)
    assert [(each.id, each.origin, each.where) for each in found.sealing.sources] == [
        (present(before), KeyOrigin.FILE, str(site.folder / "state/sealing-private.pem")),
        (NAME, KeyOrigin.FILE, str(site.folder / f"state/sealing-private-{NAME}.pem")),
    ]
    assert key_making(site.toml, {}).former == {bytes.fromhex(NAME)}
    assert site.load().origin.patterns == ((site.folder / "state", "sealing-private-" + "[0-9a-f]" * 16 + ".pem"),)


def test_a_running_process_takes_a_key_that_came_or_went_beside_the_present_one(site: Installation) -> None:
    before = site.load().origin
    site.write(f"state/sealing-private-{NAME}.pem", PRIVATE)

    with_it = site.load().origin

    assert compare(before, before, with_it).live == ("sealing.former_private_key_files",)
    assert compare(before, with_it, before).live == ("sealing.former_private_key_files",)


def test_the_api_role_reads_no_private_key(site: Installation) -> None:
    site.write(f"state/sealing-private-{NAME}.pem", b"no key")
    site.replace("[relay]", '[database]\nurl = "postgresql://relay@db.example.com/relay"\n[relay]')

    assert site.load(Role.API).sealing.private is None
    assert site.load(Role.API).origin.patterns == ()


def test_a_neighbour_that_is_no_key_or_open_to_others_is_a_fault(site: Installation) -> None:
    site.write(f"state/sealing-private-{NAME}.pem", b"no key")
    site.write(f"state/sealing-private-{'0' * 16}.pem", PRIVATE, 0o644)

    assert [key for key, _ in site.faults()] == ["sealing.private_key_file", "sealing.private_key_file"]


@pytest.mark.parametrize("text", [PRIVATE.decode(), base64.b64encode(PRIVATE).decode()], ids=["PEM", "base64"])
def test_a_private_key_comes_from_a_variable(site: Installation, text: str) -> None:
    (site.folder / "state/sealing-private.pem").unlink()
    site.write("state/sealing-public.pem", PUBLIC, 0o644)
    sealing(site, 'private_key_file = "environment:SEALING_KEY"')

    found = site.load(environ={"SEALING_KEY": text})

    assert present(found) == NAME
    (source,) = found.sealing.sources
    assert (source.origin, source.where, source.made_at) == (KeyOrigin.ENVIRONMENT, "environment:SEALING_KEY", None)
    assert text not in repr(found)
    (site.folder / "state/sealing-public.pem").unlink()
    first = load(site.toml, {"SEALING_KEY": text}, Role.ALL, first=True)
    assert first.sealing.private is not None  # so none is made


def test_a_public_key_that_is_not_of_the_key_in_a_variable_is_told_with_its_name(site: Installation) -> None:
    sealing(site, 'private_key_file = "environment:SEALING_KEY"')

    ((key, text),) = site.faults(environ={"SEALING_KEY": ANOTHER.decode()})

    assert key == "sealing.public_key_file"
    assert text == f"{site.folder / 'state/sealing-public.pem'} does not belong to environment:SEALING_KEY"


def test_a_variable_has_no_neighbours_and_former_keys_may_be_variables_too(site: Installation) -> None:
    site.write(f"state/sealing-private-{NAME}.pem", ANOTHER)
    site.write("state/sealing-public.pem", PUBLIC, 0o644)
    sealing(site, 'private_key_file = "environment:A"', 'former_private_key_files = ["environment:B", "old.pem"]')
    site.write("old.pem", generate()[0])

    found = site.load(environ={"A": PRIVATE.decode(), "B": ANOTHER.decode()})

    assert present(found) == NAME
    assert [each.origin for each in found.sealing.sources] == [
        KeyOrigin.ENVIRONMENT,
        KeyOrigin.ENVIRONMENT,
        KeyOrigin.FILE,
    ]


def test_a_private_key_comes_from_a_credential_of_systemd_with_those_beside_it(
    site: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, content in (("sealing.pem", PRIVATE), (f"sealing-{'a' * 16}.pem", ANOTHER)):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o400)
    (site.folder / "state/sealing-public.pem").unlink()
    sealing(site, 'private_key_file = "credential:sealing.pem"')

    found = site.load(environ={"CREDENTIALS_DIRECTORY": str(folder)})

    assert present(found) == NAME
    assert [each.origin for each in found.sealing.sources] == [KeyOrigin.CREDENTIAL, KeyOrigin.CREDENTIAL]


def test_all_faults_of_variables_are_said_at_once_and_no_value(site: Installation) -> None:
    wrong = [f"environment:{name}" for name in ("EMPTY", "NOT_BASE64", "NO_KEY", "RELAY__X", "")]
    sealing(site, 'private_key_file = "environment:UNSET"', f"former_private_key_files = {wrong}")

    faults = site.faults(environ={"EMPTY": " ", "NOT_BASE64": "canary!", "NO_KEY": "Y2FuYXJ5"})

    assert [(key.rpartition(".")[2], text) for key, text in faults] == [
        ("private_key_file", "names the variable UNSET, which is empty or not set"),
        ("former_private_key_files", "names the variable EMPTY, which is empty or not set"),
        ("former_private_key_files", "names the variable NOT_BASE64, which holds neither PEM nor base64"),
        ("former_private_key_files", "environment:NO_KEY holds no X25519 private key"),
        ("former_private_key_files", "names no variable for a key"),
        ("former_private_key_files", "names no variable for a key"),
    ]
    assert "canary" not in str(faults)


def test_a_public_key_of_a_former_pair_is_a_warning_and_of_no_pair_a_fault(site: Installation) -> None:
    """A rotation that was cut off between the two files must not keep the relay from starting."""
    state = site.folder / "state"
    shutil.copy(state / "sealing-private.pem", name_beside(state / "sealing-private.pem", present(site.load())))
    site.write("state/sealing-private.pem", PRIVATE)

    found = site.load()

    assert present(found) == NAME
    (warned,) = [warning for warning in found.warnings if warning[0] == "sealing.public_key_file"]
    assert "belongs to another key than the present one" in warned[1]
    site.write("state/sealing-public.pem", SealingPrivateKey.load(site.write("x.pem", ANOTHER)).public_key().pem, 0o644)
    assert [key for key, _ in site.faults()] == ["sealing.public_key_file"]


def test_the_folder_of_keys_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "keys [old] *"
    folder.mkdir()
    site = Installation(folder)
    site.write(f"state/sealing-private-{NAME}.pem", PRIVATE)

    assert NAME in names(load(site.toml, {}, Role.ALL))
