"""Own how relay.toml and the environment become sections: what is faulty is reported and left out, the rest is kept."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relay.domain.errors import SettingsInvalid
from relay.settings.model import NAMED, SECTIONS
from relay.settings.sections import ApnsAccountSection, Section, ServerSection

PREFIX: Final = "RELAY__"
SERVER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
"""Server names go into metrics, logs and environment variables."""
NAMES: Final = {"servers": "mail server", "apns.accounts": "developer team or certificate"}
"""What the tables of NAMED stand for, in remedies."""
S = TypeVar("S", bound=Section)


class Faults:
    """Collect what is wrong, in the order found."""

    def __init__(self) -> None:
        self.list: list[tuple[str, str, str]] = []

    def add(self, key: str, wrong: str, remedy: str) -> None:
        """Note one fault; both sentences without and with a full stop at their ends."""
        self.list.append((key, wrong, remedy))

    def __contains__(self, key: object) -> bool:
        return any(key == faulty for faulty, _, _ in self.list)


@dataclass(frozen=True, slots=True)
class Sections:
    """Hold the raw tables, and find their values' way back to where they were set."""

    tables: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """Which environment variable set a key."""

    def read(self, table: str, model: type[S], faults: Faults) -> S:
        """Read one table, e.g. "api"; faulty keys are reported and hold their defaults."""
        raw = self.tables.get(table, {})
        if isinstance(raw, dict):
            raw = {key: value for key, value in raw.items() if f"{table}.{key}" not in NAMED}
        return self._salvage(table, raw, model, faults)

    def servers(self, faults: Faults) -> dict[str, ServerSection]:
        """Read the tables of all servers with a usable name."""
        return self._named("servers", self.tables.get("servers", {}), ServerSection, faults)

    def apns_accounts(self, faults: Faults) -> dict[str, ApnsAccountSection]:
        """Read the tables of all APNs accounts with a usable name."""
        apns = self.tables.get("apns", {})
        tables = apns.get("accounts", {}) if isinstance(apns, dict) else {}
        return self._named("apns.accounts", tables, ApnsAccountSection, faults)

    def _named(self, where: str, tables: Any, model: type[S], faults: Faults) -> dict[str, S]:
        """Read the tables below one, e.g. those of all servers."""
        kind = where.rpartition(".")[2].rstrip("s")
        if not isinstance(tables, dict):
            faults.add(where, "is no table", f"Begin a table [{where}.NAME] for each {NAMES[where]}.")
            return {}
        sections = {}
        for name, table in tables.items():
            if not SERVER_NAME.fullmatch(name):
                faults.add(
                    f"{where}.{name}",
                    f"is no {kind} name",
                    "Name it with up to 32 lower-case letters, digits and hyphens.",
                )
                continue
            sections[name] = self._salvage(f"{where}.{name}", table, model, faults)
        return sections

    def report_strangers(self, faults: Faults) -> None:
        """Report the tables that nobody knows."""
        for table in sorted(self.tables.keys() - SECTIONS.keys()):
            wrong, remedy = _unknown(table, list(SECTIONS))
            faults.add(table, wrong + self._from(table), remedy)

    def _salvage(self, table: str, raw: Any, model: type[S], faults: Faults) -> S:
        if not isinstance(raw, dict):
            faults.add(table, "is no table" + self._from(table), f"Begin a table with [{table}] on a line of its own.")
            return model()
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
        bad: dict[str, ErrorDetails] = {}
        for problem in problems:
            key = str(problem["loc"][0])
            bad.setdefault(key, problem)
        for key, problem in bad.items():
            name = f"{table}.{key}"
            faults.add(name, *self._explain(name, problem, model))
        return model.model_validate({key: value for key, value in raw.items() if key not in bad})

    def _explain(self, name: str, problem: ErrorDetails, model: type[Section]) -> tuple[str, str]:
        key = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            wrong, remedy = _unknown(key, list(model.model_fields))
        else:
            # The value itself is not shown: somebody may have put a secret there.
            wrong = problem["msg"].replace("Input should be", "must be").replace("String should", "must", 1)
            wrong = wrong[:1].lower() + wrong[1:]
            remedy = f"Set it to: {model.model_fields[key].description}."
        return wrong + self._from(name), remedy

    def _from(self, name: str) -> str:
        """Name the environment variable that set a key or something in a table, if one did."""
        variables = [variable for key, variable in self.origins.items() if f"{key}.".startswith(f"{name}.")]
        return f" (set by {', '.join(variables)})" if variables else ""


def read_sections(path: Path, environ: Mapping[str, str]) -> Sections:
    """Read the file and lay the environment over it; raises SettingsInvalid when the file is unreadable or no TOML."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        wrong = f"cannot be read: {error.strerror}"
        raise SettingsInvalid(
            [(str(path), wrong, "Name another file with --config, or copy config/relay.toml.")]
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid([(str(path), f"is no TOML: {error}", "Correct that line.")]) from error
    origins = {}
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            keys = _keys(variable, tables)
            if _put(tables, keys, environ[variable]):
                origins[".".join(keys)] = variable
    return Sections(tables, origins)


def _keys(variable: str, tables: Mapping[str, Any]) -> list[str]:
    """Turn RELAY__SERVERS__MAIN__URL into servers, main, url; a hyphen of a name is an underscore there."""
    keys = variable.removeprefix(PREFIX).lower().split("__")
    place: Any = tables
    for depth, key in enumerate(keys):
        if ".".join(keys[:depth]) in NAMED and isinstance(place, dict):
            keys[depth] = next((name for name in place if name.lower().replace("-", "_") == key), key)
        place = place.get(keys[depth]) if isinstance(place, dict) else None
    return keys


def _put(tables: dict[str, Any], keys: list[str], value: str) -> bool:
    """Set one value in nested tables; not where the file has no table, which is a fault of its own."""
    *outer, last = keys
    table = tables
    for key in outer:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
        table = cast("dict[str, Any]", inner)
    table[last] = value
    return True


def _unknown(key: str, known: list[str]) -> tuple[str, str]:
    meant = get_close_matches(key, known, n=1)
    if meant:
        return "is unknown", f"Did you mean {meant[0]}?"
    return "is unknown", f"Remove it, or use one of: {', '.join(known)}."
