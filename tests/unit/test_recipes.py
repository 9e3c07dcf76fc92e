"""Checks that the recipes name settings and commands that the relay has."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from relay.cli.main import cli
from relay.settings.sections import NAMED, known_keys

PAGES: Final = sorted((Path(__file__).parents[2] / "docs/recipes").glob("*.md"))
TOML: Final = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTING: Final = re.compile(r"`((?:api|autodiscover|push|network|registrations)\.[a-z_]+|servers\.NAME\.[a-z_]+)`")
COMMAND: Final = re.compile(r"(?:^|`)relay ([a-z-]+)", re.MULTILINE)


def keys(table: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Return the keys of a table as `known_keys` names them, e.g. "servers.NAME.url"."""
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{table}.{key}"
        elif table in NAMED:
            yield from keys(f"{table}.NAME", value)
        else:
            yield from keys(f"{table}.{key}" if table else key, value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_recipe_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = {key for block in TOML.findall(text) for key in keys("", tomllib.loads(block))}

    assert (written | set(SETTING.findall(text))) - known_keys().keys() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_recipe_names_exists(page: Path) -> None:
    group = get_command(cli)
    assert isinstance(group, TyperGroup)
    assert set(COMMAND.findall(page.read_text(encoding="utf-8"))) - group.commands.keys() == set()


def test_a_setting_that_does_not_exist_is_found() -> None:
    table = tomllib.loads('[servers.main]\nurl = "https://mail.example.com"\nulr = 1\n[push]\nmode = "shadow"')

    assert set(keys("", table)) - known_keys().keys() == {"servers.NAME.ulr"}
