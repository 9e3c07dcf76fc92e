from pathlib import Path

import pytest
import typer

from relay.cli.configuration import VARIABLE, default_config


def test_the_first_place_that_has_settings_is_taken(tmp_path: Path) -> None:
    etc, here = tmp_path / "etc.toml", tmp_path / "here.toml"
    here.touch()
    assert default_config({}, (etc, here)) == here

    etc.touch()
    assert default_config({}, (etc, here)) == etc


def test_the_environment_is_asked_before_all_places(tmp_path: Path) -> None:
    here = tmp_path / "here.toml"
    here.touch()

    assert default_config({VARIABLE: "other.toml"}, (here,)) == Path("other.toml")
    assert default_config({VARIABLE: ""}, (here,)) == here


def test_where_it_looked_is_said_if_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        default_config({}, (tmp_path / "etc.toml", tmp_path / "here.toml"))

    assert ended.value.exit_code == 2
    told = capsys.readouterr().err
    assert f"looked for {tmp_path / 'etc.toml'} and {tmp_path / 'here.toml'}" in told
    assert "--config" in told
    assert VARIABLE in told
