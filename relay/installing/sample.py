"""Writes the relay.toml of a role from the sample of all settings; no I/O."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from relay.domain.model import Platform, Role

Value = str | bool | int | float | list[str]
PROVIDERS: Final = tuple(platform.value for platform in Platform)
SERVER: Final = "servers"
FILL_IN: Final = '# To fill in: replace the example, and remove the "#".'

_SHARED: Final = ("relay", "database", "ops", "log")
_TABLES: Final[Mapping[Role, frozenset[str]]] = MappingProxyType(
    {
        Role.API: frozenset(
            {*_SHARED, "sealing", "api", SERVER, "autodiscover", "registrations", "webapp", *PROVIDERS}
        ),
        Role.WATCH: frozenset({*_SHARED, "sealing", SERVER, "autodiscover", "registrations", "tracing"}),
        Role.PUSH: frozenset(
            {*_SHARED, "apns.accounts", "fcm.accounts", "network", "push", "egress", "tracing", *PROVIDERS}
        ),
    }
)
"""The tables that a role reads. Role.ALL reads all."""
_KEYS: Final[Mapping[tuple[Role, str], frozenset[str]]] = MappingProxyType(
    {
        (Role.API, "sealing"): frozenset({"public_key_file"}),
        (Role.API, "apns"): frozenset({"topics"}),
        (Role.API, "fcm"): frozenset({"apps"}),
        (Role.API, "webpush"): frozenset({"hosts", "apps", "public_key"}),
        (Role.WATCH, "sealing"): frozenset({"private_key_file", "former_private_key_files"}),
    }
)
"""The keys of a table that a role may have, where it may not have all of them."""
_OPTIONAL: Final = frozenset({"servers.domains"})
"""Set in the sample, and yet not needed."""
_HEADING: Final = re.compile(r"^#?\[([a-z.]+)\]$", re.MULTILINE)
_SETTING: Final = re.compile(r"^(#?)([a-z0-9_]+) = ")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A relay.toml, and what is still to be filled in."""

    text: str
    blanks: tuple[str, ...]
    """Settings as in faults, e.g. "servers.main.url"."""


def reads(role: Role, key: str) -> bool:
    """Return whether a role may have a setting, e.g. "apns.key_file"; those of servers are "servers.KEY"."""
    table, _, name = key.rpartition(".")
    if role is Role.ALL:
        return True
    return table in _TABLES[role] and name in _KEYS.get((role, table), {name})


def render(
    sample: str, role: Role, values: Mapping[str, Value], providers: Collection[str], server: str = "main"
) -> Rendered:
    """Return the sample with the tables and keys of a role, set to `values`: by "TABLE.KEY", of servers "servers.KEY".

    Tables of other providers than `providers` are left out. A setting that the sample sets and `values` does not have
    is a blank, which stays a comment: `relay check` names it until it is filled in.
    """
    head, *paragraphs = sample.rstrip("\n").split("\n\n")
    blanks: list[str] = []
    kept = [f"# Written by `relay init`{'' if role is Role.ALL else f' for the role {role.value}'}.\n{head}"]
    for paragraph in paragraphs:
        heading = _HEADING.search(paragraph)
        if heading is None:
            raise ValueError("a paragraph of the sample has no table")
        place = heading[1]
        table = SERVER if place.startswith(f"{SERVER}.") else place.removesuffix(".other")
        provider = table.partition(".")[0]
        if provider in PROVIDERS and provider not in providers:
            continue
        if role is not Role.ALL and table not in _TABLES[role]:
            continue
        if table == SERVER:
            place = f"{SERVER}.{server}"
        # Some tables of the sample are comments as a whole.
        begins = table == SERVER or any(key.startswith(f"{table}.") for key in values)
        named = paragraph.replace(heading[0], f"[{place}]", 1) if begins else paragraph
        lines = named.replace('(here "main")', f'(here "{server}")').split("\n")
        kept.append("\n".join(_lines(lines, role, table, place, values, blanks)))
    return Rendered("\n\n".join(kept) + "\n", tuple(blanks))


def _lines(
    lines: list[str], role: Role, table: str, place: str, values: Mapping[str, Value], blanks: list[str]
) -> Iterator[str]:
    """Return the lines of one table; the comment before a key goes where the key goes."""
    comment: list[str] = []
    for line in lines:
        setting = _SETTING.match(line)
        if setting is None:
            comment.append(line)
            if _HEADING.fullmatch(line):
                yield from comment
                comment.clear()
            continue
        key = f"{table}.{setting[2]}"
        if reads(role, key):
            yield from comment
            if key in values:
                yield f"{setting[2]} = {toml(values[key])}"
            elif setting[1] or key in _OPTIONAL:
                yield f"#{line.removeprefix('#')}"
            else:
                blanks.append(f"{place}.{setting[2]}")
                yield FILL_IN
                yield f"#{line}"
        comment.clear()
    yield from comment


def toml(value: Value) -> str:
    """Return a value as TOML writes it: JSON's texts, numbers and lists are TOML's, too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
