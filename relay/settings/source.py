"""Reads relay.toml and the environment into sections: a faulty key is reported and keeps its default."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relay.domain.errors import SettingsInvalid
from relay.security.secret_files import Process, unreadable
from relay.settings.contents import read_regular, text_misfit
from relay.settings.mail_sections import ServerSection
from relay.settings.push_sections import ApnsAccountSection, FcmAccountSection
from relay.settings.section import Section
from relay.settings.sections import NAMED, RETIRED, SECTIONS, AdminTokenSection, known_keys

PREFIX: Final = "RELAY__"
SERVER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
"""Server names go into metrics, logs and environment variables."""
NAMES: Final = {
    "servers": "mail server",
    "apns.accounts": "developer team or certificate",
    "fcm.accounts": "Firebase project",
    "admin.tokens": "administrator or program",
}
"""What a table of NAMED describes, in the words of remedies."""
KINDS: Final = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text in quotes",
    "tuple": "must be a text or a list",
}
"""What a value must be, by the beginning of pydantic's name of the error."""
SYNTAX: Final = {
    "Unescaped": "Write / or two backslashes for one, or put the text into single quotes: 'EXAMPLE\\ann'.",
    "twice": "Keep one table of that name, and put all its keys there.",
    "Cannot overwrite": "Keep one of the two lines: each key stands once in its table.",
    "Invalid value": 'Correct that line: a text stands in straight quotes "", true and false are in lower case.',
    "after a key": "Correct that line: key = value.",
    "after a statement": 'Correct that line: texts stand in straight quotes "", and only a comment may follow.',
    "Invalid statement": "Correct that line, in which an editor may have left an invisible character.",
}
"""Remedies by what the parser of TOML says."""
_QUOTED: Final = re.compile(r"\(.*\)|'.*'|\".*\"", re.DOTALL)
S = TypeVar("S", bound=Section)


class Faults:
    """The faults of the settings, in the order found."""

    def __init__(self) -> None:
        self.list: list[tuple[str, str, str]] = []
        self.warnings: list[tuple[str, str, str]] = []
        """What works, but an operator should change; of the same form."""

    def add(self, key: str, wrong: str, remedy: str) -> None:
        """Add one fault: `wrong` continues a sentence that begins with the key, `remedy` is a whole sentence."""
        self.list.append((key, wrong, remedy))

    def warn(self, key: str, noted: str, remedy: str) -> None:
        """Add one warning, worded as a fault."""
        self.warnings.append((key, noted, remedy))

    def require(self, key: str, given: object, remedy: str) -> bool:
        """Return whether a key is set; if not, add that it is missing, unless it has another fault already."""
        if not given and key not in self:
            self.add(key, "is missing", remedy)
        return bool(given)

    def __contains__(self, key: object) -> bool:
        return any(key == faulty for faulty, _, _ in self.list)


@dataclass(frozen=True, slots=True)
class Sections:
    """The raw tables of relay.toml, overridden by the environment."""

    tables: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """The environment variable that set a key, by key; keys from the file are not here."""
    values: dict[str, object] = field(default_factory=dict, repr=False)
    """What was read, with defaults, by key as in TOML; a table that is there has an entry of its own."""

    def read(self, table: str, model: type[S], faults: Faults) -> S:
        """Return one table, e.g. "api", checked; a faulty key is reported and has its default."""
        outer, _, inner = table.rpartition(".")
        raw = self._inner(outer, inner) if outer else self.tables.get(table, {})
        if isinstance(raw, dict):
            raw = {key: value for key, value in raw.items() if f"{table}.{key}" not in {*NAMED, *SECTIONS}}
        return self._salvage(table, raw, model, faults)

    def servers(self, faults: Faults) -> dict[str, ServerSection]:
        """Return the tables of all servers, by name; a server with an unusable name is reported and left out."""
        return self._named("servers", self.tables.get("servers", {}), ServerSection, faults)

    def apns_accounts(self, faults: Faults) -> dict[str, ApnsAccountSection]:
        """Return the tables of all APNs accounts, by name; an unusable name is reported and left out."""
        return self._named("apns.accounts", self._inner("apns", "accounts"), ApnsAccountSection, faults)

    def fcm_accounts(self, faults: Faults) -> dict[str, FcmAccountSection]:
        """Return the tables of all FCM accounts, by name; an unusable name is reported and left out."""
        return self._named("fcm.accounts", self._inner("fcm", "accounts"), FcmAccountSection, faults)

    def admin_tokens(self, faults: Faults) -> dict[str, AdminTokenSection]:
        """Return the tables of all admin tokens, by name; an unusable name is reported and left out."""
        return self._named("admin.tokens", self._inner("admin", "tokens"), AdminTokenSection, faults)

    def _inner(self, table: str, key: str) -> Any:
        """Return what stands at a key of a table."""
        outer = self.tables.get(table, {})
        return outer.get(key, {}) if isinstance(outer, dict) else {}

    def _named(self, where: str, tables: Any, model: type[S], faults: Faults) -> dict[str, S]:
        """Return the tables below the table `where`, e.g. "servers", by name."""
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

    def report_unknown_tables(self, faults: Faults) -> None:
        """Report the tables that relay.toml cannot have."""
        known = [table for table in SECTIONS if "." not in table]
        for table in sorted(self.tables.keys() - set(known)):
            wrong, remedy = _unknown(table, known, _settings_named(table))
            faults.add(table, wrong + self._from(table), remedy)

    def _salvage(self, table: str, raw: Any, model: type[S], faults: Faults) -> S:
        """Validate a table; report its faulty keys, and validate the rest without them."""
        if not isinstance(raw, dict):
            faults.add(table, "is no table" + self._from(table), f"Begin a table with [{table}] on a line of its own.")
            return model()
        try:
            section = model.model_validate(raw)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
        else:
            self.values[table] = table.partition(".")[0] in self.tables
            self.values.update({f"{table}.{key}": value for key, value in section})
            return section
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
            wrong, remedy = RETIRED.get(name) or _unknown(key, list(model.model_fields))
        else:
            wrong = _in_words(problem)
            remedy = f"Set it to: {model.model_fields[key].description}."
        return wrong + self._from(name), remedy

    def _from(self, name: str) -> str:
        """Return " (set by VARIABLE)" if the environment set this key, or a key of this table."""
        variables = [variable for key, variable in self.origins.items() if f"{key}.".startswith(f"{name}.")]
        return f" (set by {', '.join(variables)})" if variables else ""


def read_sections(path: Path, environ: Mapping[str, str]) -> Sections:
    """Return the tables of the file, overridden by the environment; raises SettingsInvalid if the file is not TOML."""
    try:
        content, _ = read_regular(path)
    except OSError as error:
        remedy = "Name another file with --config or RELAY_CONFIG, or write one with `relay init`."
        if isinstance(error, PermissionError):
            remedy = unreadable(path.absolute(), Process.present())
        raise SettingsInvalid([(str(path), f"cannot be read: {error.strerror}", remedy)]) from error
    if (misfit := text_misfit(content)) is not None:
        raise SettingsInvalid([(str(path), *misfit)])
    try:
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid([(str(path), f"is no TOML: {_place(error)}", _mended(str(error)))]) from error
    except RecursionError as error:
        raise SettingsInvalid([(str(path), "is no TOML: it nests too deep", "Correct it.")]) from error
    except ValueError as error:  # Python converts no number of thousands of digits
        raise SettingsInvalid([(str(path), "is no TOML: a number has too many digits", "Correct it.")]) from error
    origins = {}
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            keys = _keys(variable, tables)
            if _put(tables, keys, environ[variable]):
                origins[".".join(keys)] = variable
    return Sections(tables, origins)


def _in_words(problem: ErrorDetails) -> str:
    """Return what is wrong with a value, without the value: an operator may have put a secret there by mistake."""
    kind, limits = problem["type"], problem.get("ctx", {})
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"must be at least {limits['ge']}" if "ge" in limits else f"must be at most {limits['le']}"
    if kind in ("too_short", "string_too_short"):
        return "is empty"
    if kind == "string_pattern_mismatch":  # the remedy has the form in words
        return "is not in the form that it must have"
    if kind.startswith(("int", "float", "bool", "string_type", "tuple")):
        return KINDS[kind.partition("_")[0]]
    wrong = problem["msg"].removeprefix("Value error, ")
    wrong = wrong.replace("Input should be", "must be").replace("String should", "must", 1)
    return wrong[:1].lower() + wrong[1:]


def _mended(why: str) -> str:
    """Return how to mend a text that is no TOML, by the parser's words."""
    return next((remedy for words, remedy in SYNTAX.items() if words in why), "Correct that line.")


def _place(error: tomllib.TOMLDecodeError) -> str:
    """Return where a text is no TOML and why, without the text, which may be a secret."""
    why, bracket, where = str(error).partition(" (at ")
    return _QUOTED.sub("...", why) + bracket + where


def _keys(variable: str, tables: Mapping[str, Any]) -> list[str]:
    """Split RELAY__SERVERS__MAIN__URL into servers, main, url; variables write the hyphen of a name as underscore."""
    keys = variable.removeprefix(PREFIX).lower().split("__")
    place: Any = tables
    for depth, key in enumerate(keys):
        if ".".join(keys[:depth]) in NAMED and isinstance(place, dict):
            keys[depth] = next((name for name in place if name.lower().replace("-", "_") == key), key)
        place = place.get(keys[depth]) if isinstance(place, dict) else None
    return keys


def _put(tables: dict[str, Any], keys: list[str], value: str) -> bool:
    """Set one value in nested tables; return False if the file has a value where a table belongs, a fault by itself."""
    *outer, last = keys
    table = tables
    for key in outer:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
        table = cast("dict[str, Any]", inner)
    table[last] = value
    return True


def _unknown(key: str, known: list[str], elsewhere: Sequence[str] = ()) -> tuple[str, str]:
    """Return what is wrong with an unknown name and what to do; `elsewhere` are settings that may be meant."""
    meant = get_close_matches(key, known, n=1) or elsewhere
    if meant:
        return "is unknown", f"Did you mean {', or '.join(meant)}?"
    return "is unknown", f"Remove it, or use one of: {', '.join(known)}."


def _settings_named(name: str) -> list[str]:
    """Return the settings that somebody may mean who writes a table of that name: such a key, or a value of a key."""
    found = [key for key in (*SECTIONS, *NAMED, *known_keys()) if key.rpartition(".")[2] == name]
    return found or [
        f'{table}.{key} = "{name}"'
        for table, section in SECTIONS.items()
        for key, found in section.model_fields.items()
        if name in _choices(found.annotation)
    ]


def _choices(annotation: Any) -> Iterator[Any]:
    """Return the values that a type lists, such as those of a Literal within a union."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)
