from pathlib import Path

from relay.settings.checks import state_folder
from relay.settings.sections import RelaySection
from relay.settings.source import Faults

UNSET = RelaySection()


def test_settings_in_etc_have_their_state_in_var_lib() -> None:
    assert state_folder(Path("/etc/push-relay"), UNSET, Faults()) == Path("/var/lib/push-relay")
    assert state_folder(Path("/etc/relay-two"), UNSET, Faults()) == Path("/var/lib/relay-two")


def test_other_settings_have_their_state_beside_them() -> None:
    for folder in ("/srv/relay", "/etc", "/etc/push/relay"):
        assert state_folder(Path(folder), UNSET, Faults()) == Path(folder) / "state"


def test_a_state_folder_that_is_named_is_taken() -> None:
    assert state_folder(Path("/etc/push-relay"), RelaySection(state_dir="state"), Faults()) == Path(
        "/etc/push-relay/state"
    )


def test_the_state_of_an_earlier_version_is_not_left_behind(tmp_path: Path) -> None:
    etc, states = tmp_path / "etc", tmp_path / "lib"
    beside = etc / "push-relay" / "state"
    beside.mkdir(parents=True)
    (beside / "sealing-private.pem").touch()
    faults = Faults()

    state_folder(etc / "push-relay", UNSET, faults, etc, states)
    assert [key for key, _, _ in faults.list] == ["relay.state_dir"]

    (states / "push-relay").mkdir(parents=True)
    (states / "push-relay" / "relay.sqlite3").touch()
    faults = Faults()
    assert state_folder(etc / "push-relay", UNSET, faults, etc, states) == states / "push-relay"
    assert faults.list == []
